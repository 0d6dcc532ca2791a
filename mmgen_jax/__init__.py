"""Multimodal generation in JAX."""
