"""Training: `loop.fit` and what it is made of. Nothing is imported here, as config.py needs only mesh and optimizer."""
