"""Adversarial networks: one game over all modalities."""
