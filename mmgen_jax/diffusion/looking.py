"""What a flow transformer looks at when it makes one modality of all others.

The modality is at the time t on its way from the data to noise, the others are clean at t = 0, or noise where they are
not there: as in sampling (`sampling.py`). The network is asked once for each modality, side by side, and its attention
looked at (`nn/watching.py`).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from mmgen_jax.diffusion.sampling import Task
from mmgen_jax.nn.watching import SOWN, arranged, own_rows
from mmgen_jax.types import Array, Batch, Key, Params


def attention_maps(model: Any, params: Params, batch: Batch, key: Key, t: float = 0.5) -> Array:
    """Of a `Flow`, [B, blocks, M, M]: the attention that each modality pays to each other while it is made at time t.

    Rows and columns are in the order of `model.modalities`, and a row sums to 1; the mean over heads and tokens.
    """
    return arranged(looks(model, params, batch, key, t), list(model.modalities))


@functools.partial(jax.jit, static_argnames=("model", "t"))
def looks(model: Any, params: Params, batch: Batch, key: Key, t: float) -> dict[str, Array]:
    """The rows [B, blocks, M] by name, their columns in the order of the sorted names."""
    model, batch, names = model.on_path(params), batch.masked(), sorted(model.modalities)
    noise, clean = model.noise(key, len(batch)), model.clean(batch.values)
    views = []
    for name in names:
        task = Task(model, (name,), frozenset(names) - {name}, params, None, batch, clean, noise)
        level = model.path.level(jnp.asarray(t))
        x, words = task.begun(key, jnp.asarray(t), False)
        shown = {name: model.path.shown(value, level) for name, value in x.items()}
        times = dict.fromkeys(x, model.path.clock(level)) | dict.fromkeys(words, jnp.asarray(t))
        views.append(task.view(task.everything, {**shown, **words}, times, jnp.zeros(())))
    together = jax.tree.map(lambda *parts: jnp.concatenate(parts), *views)
    _, sown = model.network.apply({"params": params}, *together, mutable=[SOWN])
    stacks = [stack for stack, depth in (("joint", model.joint), ("shared", model.depth)) if depth]
    return own_rows(sown[SOWN], stacks, model.token_counts())
