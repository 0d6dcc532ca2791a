"""Weights that change with the step."""

from __future__ import annotations

import jax.numpy as jnp

from mmgen_jax.types import Array


def warm(step: Array, steps: int) -> Array:
    """KL warm-up (Bowman et al. 2016, arXiv:1511.06349): rises linearly to 1 over the first `steps` steps."""
    return jnp.minimum(1.0, (step + 1) / steps) if steps else jnp.ones(())
