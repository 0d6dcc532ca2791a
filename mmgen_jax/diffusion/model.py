"""The flow transformer: one network that makes any of its modalities from any others.

Real values flow along a path from data (t = 0) to noise (t = 1), symbols are masked one by one on the way, and the
network says how to come back (`training.py`, equations 1 to 4; `sampling.py`).

Every modality has a time of its own (`times.py`). Given a clean modality is given it at t = 0, not to have it is to
have noise at t = 1: so the same network is joint, marginal and conditional model, as in UniDiffuser (Bao et al. 2023,
arXiv:2303.06555), for any number of modalities, of real values (rectified flow: Liu et al. 2022, arXiv:2209.03003) and
of symbols (masked diffusion: Sahoo et al. 2024, arXiv:2406.07524).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from flax.core import FrozenDict

from mmgen_jax.diffusion import likelihood, looking, training
from mmgen_jax.diffusion.edm import EDM
from mmgen_jax.diffusion.grids import Grid, KarrasGrid, LogSNRGrid, UniformGrid
from mmgen_jax.diffusion.guidance import Guidance
from mmgen_jax.diffusion.learned import VDM
from mmgen_jax.diffusion.network import JointTransformer, symbols
from mmgen_jax.diffusion.objective import FlowMatching, Objective
from mmgen_jax.diffusion.paths import Path, RectifiedFlow
from mmgen_jax.diffusion.representation import Representation
from mmgen_jax.diffusion.samplers import Churn, Euler, Heun, Sampler
from mmgen_jax.diffusion.sampling import integrate
from mmgen_jax.diffusion.times import Times
from mmgen_jax.diffusion.weights import ELBO, Uniform, UniformTimes, Weight
from mmgen_jax.modalities.given import answered, chained
from mmgen_jax.nn.dit import REMAT
from mmgen_jax.rng import fold_name
from mmgen_jax.train.step import gradient_step
from mmgen_jax.types import Array, Batch, Estimate, Key, Metrics, Modality, Params, Stats, TrainState, Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow:
    """A joint model of `modalities`.

    Attributes:
        modalities: what is modelled, by name; their order changes nothing.
        width: of a token; a multiple of twice the heads.
        joint: blocks in which every modality has weights of its own.
        depth: blocks after those, with weights for all.
        heads: of attention.
        mlp: "gelu" or "swiglu".
        path: of real values, equation (1); its noise levels are learned with `VDM`.
        times: which noise levels are trained together.
        weights: w_m of (3) and (4), by name, 1 where none is given.
        weighting: of (3) by time.
        objective: of real values: flow matching (3), or `MeanFlow` or `Shortcut` for samples in one or a few steps.
        representation: what features are trained for besides, `Dispersive` or `SelfFlow`; None: nothing.
        sampler, steps: how, and in how many steps, samples are made.
        grid: where the steps end, such as `LogSNRGrid()`.
        guidance: how strongly they follow what is given.
        remat: what the backward pass keeps of a block: everything (None), or see `nn.dit.Stack`.
        implementation: of attention, see `nn.attention`; None chooses.
        dtype: what the network computes in; parameters, norms and losses are float32.

    Raises:
        ValueError: a field is outside its range.
    """

    modalities: Mapping[str, Modality]
    width: int = 256
    joint: int = 2
    depth: int = 4
    heads: int = 8
    mlp: Literal["gelu", "swiglu"] = "gelu"
    path: Path = RectifiedFlow()
    times: Times = Times()
    weights: Mapping[str, float] = FrozenDict()
    weighting: Weight = Uniform()
    objective: Objective = FlowMatching()
    representation: Representation | None = None
    sampler: Sampler = Heun()
    steps: int = 24
    grid: Grid = UniformGrid()
    guidance: Guidance = Guidance()
    remat: str | None = None
    implementation: str | None = None
    dtype: Literal["bfloat16", "float32"] = "float32"

    def __post_init__(self) -> None:
        for field in ("modalities", "weights"):  # frozen mappings, so that a model can be hashed
            object.__setattr__(self, field, FrozenDict(getattr(self, field)))
        for field, fits, what in (*self._ranges(), *self._combinations()):
            if not fits:
                raise ValueError(f"{field} is {getattr(self, field)!r}, but must be {what}")
        for name, weight in self.weights.items():
            if name not in self.modalities or not weight >= 0:
                raise ValueError(
                    f"weights[{name!r}] is {weight}, but names must be of {list(self.modalities)}, weights at least 0"
                )
        for name, modality in self.modalities.items():
            require_one_output(name, modality)

    def _ranges(self) -> list[tuple[str, bool, str]]:
        """(field, whether it is within its range, what that is)."""
        return [
            ("modalities", len(self.modalities) > 0, "at least one"),
            ("width", self.width > 0 and self.width % (2 * self.heads) == 0, f"a multiple of {2 * self.heads}"),
            ("joint", self.joint >= 0, "at least 0"),
            ("depth", self.depth >= 0 and self.joint + self.depth > 0, "at least 0, and 1 together with joint"),
            ("steps", self.steps >= 1, "at least 1"),
            ("path", isinstance(self.path, VDM) or hasattr(self.path, "understood"), "one such as RectifiedFlow()"),
            ("remat", self.remat is None or self.remat in REMAT, f"None or one of {', '.join(REMAT)}"),
        ]

    def _combinations(self) -> list[tuple[str, bool, str]]:
        """(field, whether it goes with the others, what would)."""
        objective, levels, learned = self.objective, isinstance(self.path, EDM), isinstance(self.path, VDM)
        spans, counts = objective.spans, objective.counts
        needs = self.representation is not None and self.representation.needs_tokens
        ends = isinstance(self.grid, KarrasGrid | LogSNRGrid)
        return [
            ("steps", counts is None or self.steps in counts, f"in {counts}"),
            ("sampler", not spans or self.sampler == Euler(), f"Euler() with {objective}"),
            ("grid", not spans or self.grid == UniformGrid(), f"UniformGrid() with {objective}"),
            ("times", not spans or not self.times.tokens, f"without tokens with {objective}"),
            ("path", not spans or self.path.prediction == "velocity", f"of velocities with {objective}"),
            ("sampler", levels or not isinstance(self.sampler, Churn), "another than Churn() unless path is EDM()"),
            ("grid", not levels or ends, "KarrasGrid() or LogSNRGrid() with EDM(), which has no level at t = 1"),
            ("weighting", not levels or self.weighting == Uniform(), "Uniform() with EDM(), which has its own weight"),
            ("weighting", not learned or self.weighting == ELBO(), "ELBO() with VDM()"),
            ("times", not learned or self.times.density == UniformTimes(), "of density UniformTimes() with VDM()"),
            ("grid", not learned or not ends, "UniformGrid() or ShiftedGrid() with VDM()"),
            ("representation", not needs or self.times.tokens > 0, "with times.tokens above 0"),
        ]

    @property
    def makes(self) -> tuple[str, ...]:
        """The modalities that can be generated: all."""
        return tuple(self.modalities)

    @property
    def network(self) -> JointTransformer:
        """The network with this model's sizes."""
        return JointTransformer(
            self.modalities,
            self.width,
            self.joint,
            self.depth,
            self.heads,
            self.mlp,
            spans=self.objective.spans,
            scale=1.0 if self.objective.differentiated else 1000.0,
            remat=self.remat,
            # Fused attention has no forward-mode derivative.
            implementation="xla" if self.objective.differentiated else self.implementation,
            dtype=jnp.dtype(self.dtype),
        )

    def init(self, key: Key) -> tuple[Params, Stats]:
        """Fresh parameters, with which every output is 0."""
        x = {name: jax.ShapeDtypeStruct((1, *m.shape), m.dtype) for name, m in self.modalities.items()}
        t = dict.fromkeys(x, jax.ShapeDtypeStruct((1,), jnp.float32))
        params = dict(self.network.lazy_init(fold_name(key, "network"), x, t, t)["params"])
        for name in self.modalities:  # the networks between tokens and values are the modalities' own
            params[f"{name}_out"] = jax.tree.map(jnp.zeros_like, params[f"{name}_out"])
        if self.representation is not None:
            params |= self.representation.init(fold_name(key, "representation"), self.width)
        if isinstance(self.path, VDM):
            params["path"] = self.path.init(jnp.float32)
        return params, {}

    def on_path(self, params: Params, pace: Array | None = None) -> Flow:
        """The same model with the path that its parameters say, if that is learned; `pace` as in `VDM.at`.

        Then it holds arrays, and cannot be hashed.
        """
        if not isinstance(self.path, VDM):
            return self
        return dataclasses.replace(self, path=self.path.at(params["path"], pace))

    def step(
        self, tx: optax.GradientTransformation, state: TrainState, batch: Batch, key: Key
    ) -> tuple[TrainState, Metrics]:
        """One step of gradient descent on the mean of (3) and (4)."""

        def loss(params: Params, stats: Stats, batch: Batch, key: Key) -> tuple[Array, tuple[Stats, dict]]:
            per_example, terms = self.loss(params, batch, key, teacher=state.variables["params"])
            return per_example, (stats, terms)

        return gradient_step(loss, tx, state, batch, key)

    def loss(
        self, params: Params, batch: Batch, key: Key, *, teacher: Params | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """The loss [B] of a batch that is `masked()`, and its unweighted terms [B] by name.

        teacher: parameters of the network that may make targets (default: `params`); they get no gradient.
        """
        return training.loss(self, params, batch, key, params if teacher is None else teacher)

    def noise(self, key: Key, n: int) -> dict[str, Array]:
        """What stands at t = 1, [n, *shape] each: normal noise, or masks."""

        def of(name: str, modality: Modality) -> Array:
            shape, count = (n, *modality.shape), symbols(modality)
            if count is not None:
                return jnp.full(shape, count, jnp.int32)
            return jax.random.normal(fold_name(key, name), shape)

        return {name: of(name, modality) for name, modality in self.modalities.items()}

    def standardised(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Real values at about -1 to 1, where noise is about as large as they are."""

        def of(name: str, x: Array) -> Array:
            centre, spread = self.modalities[name].standard
            return x if symbols(self.modalities[name]) is not None else (x - centre) / spread

        return {name: of(name, x) for name, x in values.items()}

    def clean(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Values [B, *shape] as the network is shown them at t = 0."""
        start = self.path.level(jnp.zeros(()))
        return {
            name: x if symbols(self.modalities[name]) is not None else self.path.shown(x, start)
            for name, x in self.standardised(values).items()
        }

    def restored(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """The inverse of `standardised`."""

        def of(name: str, x: Array) -> Array:
            centre, spread = self.modalities[name].standard
            return x if symbols(self.modalities[name]) is not None else x * spread + centre

        return {name: of(name, x) for name, x in values.items()}

    def sample(
        self,
        variables: Variables,
        key: Key,
        n: int,
        *,
        given: Mapping[str, Array] | Batch | None = None,
        targets: tuple[str, ...] | None = None,
        weak: Variables | None = None,
    ) -> dict[str, Array]:
        """n examples of `targets` (default: all), given some modalities: see `modalities.given.answered`.

        weak: an earlier checkpoint of the same model, to be guided away from (`guidance.py`, equation 5).

        Raises:
            ValueError: a name is no modality, or what is given has the wrong shape.
        """
        names = frozenset(self.modalities if isinstance(given, Batch) else given or ())

        def make(wanted: tuple[str, ...], batch: Batch) -> dict[str, Array]:
            worse = None if weak is None else weak["params"]
            return integrate(self, wanted, names, variables["params"], batch, key, worse)

        return answered(self.modalities, self.makes, n, given, targets, make)

    def log_likelihood(
        self, variables: Variables, batch: Batch, key: Key, of: tuple[str, ...], draws: int | None = None
    ) -> Estimate:
        """log p of the modalities `of`, given all others that are present: see `likelihood.py` and `types.Likely`.

        draws: for each of them, 8 by default. Raises ValueError as `likelihood.log_likelihood`.
        """
        draws = 8 if draws is None else draws

        def score(batch: Batch, name: str) -> Estimate:
            return likelihood.log_likelihood(self, variables["params"], batch, fold_name(key, name), name, draws=draws)

        return chained(self.modalities, batch, of, score)

    def token_counts(self) -> dict[str, int]:
        """How many tokens the network makes of each modality."""
        return {name: len(modality.positions()) for name, modality in self.modalities.items()}

    def attention_maps(self, variables: Variables, batch: Batch, key: Key) -> Array:
        """What each modality looks at while it is made half-way of the others, [B, blocks, M, M]: see `looking.py`."""
        return looking.attention_maps(self, variables["params"], batch.only(self.modalities), key)


def require_one_output(name: str, modality: Modality) -> None:
    """Raises ValueError if real values have another likelihood than one whose output is a value for each of them."""
    if symbols(modality) is None and modality.likelihood.out_shape(modality.shape) != modality.shape:
        raise ValueError(
            f"the likelihood of {name!r} is {modality.likelihood}, but here it must have one output a value, "
            "such as Normal(1.0)"
        )
