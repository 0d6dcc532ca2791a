"""Multimodal generation in JAX: any modalities from any others, four families, one training loop."""
