"""Where arrays live: a mesh of devices, and a table that says how the state is spread over it.

The mesh has three axes. `data` and `fsdp` both split the batch; `fsdp` and `model` split the parameters. Every array of
the state is spread by the first rule whose regular expression is found in its path (`params/encoder/Dense_0/kernel`,
`opt/0/mu/encoder/Dense_0/kernel`, `ema/encoder/...`), so that parameters, optimiser moments and averages agree:

    replicate   a whole copy on every device
    fsdp        the largest axis that divides is split over `fsdp` (Rajbhandari et al., 2020, ZeRO)
    model       the last axis is split over `model` (Shoeybi et al., 2019, Megatron-LM), the largest other over `fsdp`

The compiler adds the communication that this needs. What no rule names is spread by `model`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

Tactic = Literal["replicate", "fsdp", "model"]

BATCH_AXES = ("data", "fsdp")

# Arrays with fewer elements stay whole on every device: to send them about would cost more than it saves.
SMALL = 2048


@dataclasses.dataclass(frozen=True)
class Mesh:
    """The number of devices along each axis, and the table.

    Attributes:
        data: devices that split the batch; -1 for all that are left.
        fsdp: devices that split the batch and the parameters.
        model: devices that split the parameters.
        rules: (regular expression, tactic) of which the first that is found in an array's path applies.

    Raises:
        ValueError: a size below one, an unknown tactic or a faulty regular expression.
    """

    data: int = -1
    fsdp: int = 1
    model: int = 1
    rules: tuple[tuple[str, Tactic], ...] = ()

    def __post_init__(self) -> None:
        for name in ("data", "fsdp", "model"):
            size = getattr(self, name)
            if size < 1 and (name, size) != ("data", -1):
                raise ValueError(f"mesh.{name} is {size}, but must be at least 1 (or, for data, -1: all devices left)")
        for pattern, tactic in self.rules:
            if tactic not in get_args(Tactic):
                raise ValueError(f"mesh.rules: {pattern!r} has tactic {tactic!r}; it must be one of {get_args(Tactic)}")
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"mesh.rules: {pattern!r} is not a regular expression: {error}") from None

    def make(self, devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
        """The mesh over the first `data * fsdp * model` of `devices`; ValueError if they do not suffice or divide."""
        rest = self.fsdp * self.model
        sizes = f"mesh.data={self.data}, mesh.fsdp={self.fsdp}, mesh.model={self.model}"
        if self.data == -1 and len(devices) % rest:
            raise ValueError(f"{sizes} needs a multiple of {rest} devices, but there are {len(devices)}")
        data = len(devices) // rest if self.data == -1 else self.data
        wanted = data * rest
        if wanted > len(devices):
            raise ValueError(f"{sizes} needs {wanted} devices, but there are {len(devices)}")
        # Auto: the compiler places what is in between. make_mesh's default, Explicit, is not for Linen layers.
        axis_types = (AxisType.Auto,) * 3
        return jax.make_mesh(
            (data, self.fsdp, self.model), ("data", "fsdp", "model"), axis_types, devices=devices[:wanted]
        )

    def spec(self, path: str, shape: tuple[int, ...], mesh: jax.sharding.Mesh) -> PartitionSpec:
        """How an array of the state is split: by the first rule found in `path`."""
        tactic = next((tactic for pattern, tactic in self.rules if re.search(pattern, path)), "model")
        axes: list[str | None] = [None] * len(shape)
        if tactic == "replicate" or np.prod(shape) < SMALL:
            return PartitionSpec()
        if tactic == "model" and _splits(shape[-1], mesh.shape["model"]):
            axes[-1] = "model"
        free = [i for i, size in enumerate(shape) if axes[i] is None and _splits(size, mesh.shape["fsdp"])]
        if free:
            axes[max(free, key=lambda i: shape[i])] = "fsdp"
        return PartitionSpec(*axes)

    def shardings(self, tree: Any, mesh: jax.sharding.Mesh) -> Any:
        """A NamedSharding for every array, or shape, of `tree`."""

        def sharding(path: Any, x: Any) -> NamedSharding:
            return NamedSharding(mesh, self.spec(jax.tree_util.keystr(path, simple=True, separator="/"), x.shape, mesh))

        return jax.tree_util.tree_map_with_path(sharding, tree)


def _splits(size: int, parts: int) -> bool:
    return parts > 1 and size % parts == 0


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def stacked_rows(mesh: jax.sharding.Mesh, batch_size: int) -> NamedSharding:
    """The sharding of `[k, B, ...]`: k batches, their rows over `data` and `fsdp`. ValueError if B does not divide."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % parts:
        raise ValueError(f"batch_size is {batch_size}, but must be a multiple of mesh.data * mesh.fsdp = {parts}")
    return NamedSharding(mesh, PartitionSpec(None, BATCH_AXES))


def put_everywhere(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """A whole copy of numpy arrays on every device; every process must hold the same."""
    place = partial(jax.make_array_from_process_local_data, replicated(mesh))
    return jax.tree.map(lambda x: place(x, x.shape), tree)


def local_rows(sharding: NamedSharding, batch_size: int) -> slice:
    """The rows of each batch that this process has to supply under `stacked_rows`."""
    slices = [index[1] for index in sharding.addressable_devices_indices_map((1, batch_size)).values()]
    return slice(min(s.start or 0 for s in slices), max(s.stop or batch_size for s in slices))


def put(tree: Any, sharding: NamedSharding, batch_size: int) -> Any:
    """`[k, b, ...]` of this process's rows in numpy -> `[k, B, ...]` on the devices of all processes.

    On CPU the device array may share its memory with the numpy array, which therefore must never be written again.
    """

    def place(x: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, x, (x.shape[0], batch_size, *x.shape[2:]))

    return jax.tree.map(place, tree)
