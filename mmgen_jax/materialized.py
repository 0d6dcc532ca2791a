"""Values that are computed once and kept, instead of anew inside everything that reads them.

XLA fuses what is cheap into all its readers. In a chain of residual connections x_l = x_{l-1} + f_l(x_{l-1}), and in
that of their gradients, this is the sum of everything before, again in every layer: with jax 0.10 on CPU, two fifths of
the time of a DiT's training step. A barrier ends the chain. XLA for CPU takes barriers out before it fuses, unless it
is told to leave them: `compiler_options` does that, for the program of a training step, which is where it matters.
"""

from __future__ import annotations

from typing import TypeVar

import jax

T = TypeVar("T")


def materialized(x: T) -> T:
    """x and, in a gradient, its cotangent, in memory of their own on CPU. GPU and TPU fuse by rules of their own."""
    return jax.lax.optimization_barrier(x) if jax.default_backend() == "cpu" else x


def compiler_options() -> dict[str, str] | None:
    """Of `jax.jit`, for an outermost program whose barriers are to last until XLA fuses."""
    return {"xla_disable_hlo_passes": "cse_barrier_expander"} if jax.default_backend() == "cpu" else None
