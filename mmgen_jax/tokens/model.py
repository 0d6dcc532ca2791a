"""The token transformer: one network that makes any of its modalities from any others, all of them as symbols.

Texts and labels are symbols already. Real values become symbols by a tokenizer that was trained before (`first`), once
for all of a training set in memory. The network is trained on random tasks (`tasks.py`), as 4M is (Mizrahi et al. 2023,
arXiv:2312.06647), here with one decoder:

    L = sum_m w_m mean over the slots of m that count of -log p(right symbol)                                       (1)

and answers by filling in masks or by writing on (`sampling.py`). By the chain rule it knows how probable any modality
is, given any others:

    log p(x_m | others) = sum_i log p(token_i | tokens before i, others)                                            (2)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from flax.core import FrozenDict

from mmgen_jax.modalities.given import answered, chained, known
from mmgen_jax.modalities.places import places, symbols
from mmgen_jax.modalities.text import Text
from mmgen_jax.nn.decoder import NOWHERE
from mmgen_jax.nn.transformer import PADDING
from mmgen_jax.rng import fold_name
from mmgen_jax.tokens import looking
from mmgen_jax.tokens.decoding import NEVER
from mmgen_jax.tokens.network import Sequence, TokenTransformer
from mmgen_jax.tokens.sampling import Decoding, MaskGIT, RandomOrder, Write, make
from mmgen_jax.tokens.tasks import Tasks
from mmgen_jax.tokens.tokenizer import Tokenizer
from mmgen_jax.train.step import gradient_step
from mmgen_jax.types import Array, Batch, Estimate, Key, Metrics, Modality, Params, Stats, TrainState, Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """A joint model of `modalities`, and a `types.SecondStage` where there are tokenizers.

    Attributes:
        modalities: what is modelled, by name; their order changes nothing.
        first: for each modality of real values, a tokenizer that has been trained on it; see `Experiment.first`.
        width: of a token; a multiple of twice the heads.
        depth: blocks.
        heads, groups: of attention: of queries, and of keys and values (None: as many).
        tasks: what is trained.
        weights: w_m of (1), by name, 1 where none is given.
        decoding: how a modality is made, by name; by default texts and labels are written, others are filled in.
        guidance: how strongly what is made follows all that it is made from; 1 for none.
        scales: the same for single modalities; then `guidance` must be 1.
        dtype: what the network computes in; parameters, logits and losses are float32.

    Raises:
        ValueError: a field is outside its range, or a modality of real values has no tokenizer of its own.
    """

    modalities: Mapping[str, Modality]
    first: Mapping[str, Tokenizer] = FrozenDict()
    width: int = 256
    depth: int = 6
    heads: int = 8
    groups: int | None = None
    tasks: Tasks = Tasks()
    weights: Mapping[str, float] = FrozenDict()
    decoding: Mapping[str, Decoding] = FrozenDict()
    guidance: float = 1.0
    scales: Mapping[str, float] = FrozenDict()
    dtype: Literal["bfloat16", "float32"] = "float32"

    def __post_init__(self) -> None:
        for field in ("modalities", "first", "weights", "decoding", "scales"):  # frozen, so that it can be hashed
            object.__setattr__(self, field, FrozenDict(getattr(self, field)))
        groups = self.heads if self.groups is None else self.groups
        for field, fits, what in (
            ("modalities", len(self.modalities) > 0, "at least one"),
            ("heads", self.heads >= 1, "at least 1"),
            ("width", self.width > 0 and self.width % (2 * self.heads) == 0, f"a multiple of {2 * self.heads}"),
            ("depth", self.depth >= 1, "at least 1"),
            ("groups", groups >= 1 and self.heads % groups == 0, f"None or a divisor of the {self.heads} heads"),
            ("guidance", self.guidance >= 0, "at least 0"),
            ("guidance", self.guidance == 1 or not self.scales, "1 where there are scales"),
        ):
            if not fits:
                raise ValueError(f"{field} is {getattr(self, field)!r}, but must be {what}")
        for field in ("first", "weights", "decoding", "scales"):
            if strange := sorted(set(getattr(self, field)) - set(self.modalities)):
                raise ValueError(f"{field} names {strange}, but the modalities are {list(self.modalities)}")
        for field in ("weights", "scales"):
            for name, value in getattr(self, field).items():
                if not value >= 0:
                    raise ValueError(f"{field}[{name!r}] is {value}, but must be at least 0")
        for name, modality in self.modalities.items():
            self._check_first(name, modality)

    def _check_first(self, name: str, modality: Modality) -> None:
        """Raises ValueError unless a modality has a tokenizer of its own just where it is of real values."""
        if (name in self.first) == (symbols(modality) is not None):
            what = "symbols, so it must have none" if name in self.first else "real values, so it must have one"
            raise ValueError(f"first has tokenizers of {list(self.first)}, but {name!r} is of {what}")
        if name in self.first:
            tokenizer = self.first[name]
            if not callable(getattr(tokenizer, "to_tokens", None)) or tokenizer.modalities.get(name) != modality:
                raise ValueError(f"first[{name!r}] must be a Tokenizer of {name!r} as it is here, {modality}")

    @property
    def makes(self) -> tuple[str, ...]:
        """The modalities that can be generated: all."""
        return tuple(self.modalities)

    @property
    def sequences(self) -> dict[str, Sequence]:
        """Every modality as symbols."""
        return {name: self._sequence(name) for name in sorted(self.modalities)}

    def _sequence(self, name: str) -> Sequence:
        if name in self.first:
            tokenizer = self.first[name]
            return Sequence(tokenizer.quantizer.size, tokenizer.places(name), stages=tokenizer.quantizer.symbols)
        modality = self.modalities[name]
        return Sequence(symbols(modality), places(modality), ends=isinstance(modality, Text))

    @property
    def network(self) -> TokenTransformer:
        """The network with this model's sizes."""
        groups = self.heads if self.groups is None else self.groups
        return TokenTransformer(self.sequences, self.width, self.depth, self.heads, groups, jnp.dtype(self.dtype))

    def decoding_of(self, name: str) -> Decoding:
        """How a modality is made."""
        return self.decoding.get(name, MaskGIT() if name in self.first else Write())

    def init(self, key: Key) -> tuple[Params, Stats]:
        """Fresh parameters of the network; and of the tokenizers as well, in the statistics, until `begin`."""
        slots = {n: jax.ShapeDtypeStruct((1, s.length + 1), jnp.int32) for n, s in self.sequences.items()}
        rank = jax.ShapeDtypeStruct((1, sum(s.shape[1] for s in slots.values())), jnp.int32)
        params = self.network.lazy_init(fold_name(key, "network"), slots, rank)["params"]
        first = {}
        for name, tokenizer in self.first.items():
            own, stats = tokenizer.init(fold_name(key, f"first/{name}"))
            first[name] = tokenizer.part({"params": own, **stats}, name)
        return params, {"first": first}

    def begin(self, stats: Stats, trained: Mapping[str, Variables], data: Batch) -> Stats:
        """The statistics with what the tokenizers have learned."""
        return {**stats, "first": {name: t.part(trained[name], name) for name, t in self.first.items()}}

    @functools.partial(jax.jit, static_argnums=0)
    def prepare(self, stats: Stats, batch: Batch) -> Batch:
        """The batch with symbols [B, T] in place of real values."""
        batch = batch.only(self.modalities).masked()
        made = {
            name: tokenizer.to_tokens(stats["first"][name], name, batch.values[name])
            for name, tokenizer in self.first.items()
        }
        return Batch({**batch.values, **made}, batch.present)

    def tokens(self, stats: Stats, batch: Batch) -> dict[str, Array]:
        """The symbols {m: int [B, T_m]} of a batch, which may be prepared."""
        if any(not jnp.issubdtype(batch.values[name].dtype, jnp.integer) for name in self.first):
            batch = self.prepare(stats, batch)
        return {name: batch.values[name].reshape(len(batch), -1) for name in sorted(self.modalities)}

    def step(
        self, tx: optax.GradientTransformation, state: TrainState, batch: Batch, key: Key
    ) -> tuple[TrainState, Metrics]:
        """One step of gradient descent on the mean of (1)."""
        batch = batch.only(self.modalities)
        symbols_only = Batch(self.tokens(state.stats, batch), batch.present)

        def loss(params: Params, stats: Stats, batch: Batch, key: Key) -> tuple[Array, tuple[Stats, dict]]:
            per_example, terms = self.loss(params, batch, key)
            return per_example, (stats, terms)

        return gradient_step(loss, tx, state, symbols_only, key)

    def loss(self, params: Params, batch: Batch, key: Key) -> tuple[Array, dict[str, Array]]:
        """(1), [B], of a batch of symbols {m: [B, T_m]}; and its unweighted terms, the means over slots that count."""
        task = self.tasks.draw(key, self.sequences, batch.values, batch.present)
        logits = self.network.apply({"params": params}, task.slots, task.rank, task.chosen)
        terms, total = {}, 0.0
        for name, sequence in self.sequences.items():
            own = logits[name]
            if sequence.ends:  # what is written needs no padding, so that the texts sum to one
                own = jnp.where(task.written[:, None, None], without_padding(own), own)
            error = optax.softmax_cross_entropy_with_integer_labels(own, task.right[name])
            error, count = jnp.where(task.counts[name], error, 0.0), task.counts[name].sum(axis=1)
            total += self.weights.get(name, 1.0) * error.sum(axis=1) / jnp.maximum(count, 1)
            terms[f"loss/{name}"] = error.sum() / jnp.maximum(count.sum(), 1)
        return total, terms

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def surprise(self, variables: Variables, batch: Batch, of: str) -> Array:
        """-log p of every symbol of the modality `of`, [B, T] in nats: the terms of (2); 0 after the end of a text.

        Given all other modalities that are present. 0 for examples that do not have it.
        """
        known(self.modalities, of)
        batch, sequences = batch.only(self.modalities).masked(), self.sequences
        tokens, there = self.tokens(variables, batch), batch.present
        slots = {name: sequence.slots(tokens[name]) for name, sequence in sequences.items()}

        def rank(name: str) -> Array:
            first = (1 + jnp.arange(slots[name].shape[1]))[None] * (name == of)  # the others are all there before
            return jnp.where(there[name][:, None], first, NOWHERE)

        ranks = jnp.concatenate([rank(name) for name in sorted(slots)], axis=1)
        logits = self.network.apply({"params": variables["params"]}, slots, ranks)[of][:, :-1]
        counts = jnp.broadcast_to(there[of][:, None], tokens[of].shape)
        if sequences[of].ends:
            logits, counts = without_padding(logits), counts & (tokens[of] != PADDING)
        error = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[of])
        return jnp.where(counts, error, 0.0)

    def log_likelihood(
        self, variables: Variables, batch: Batch, key: Key, of: tuple[str, ...], draws: int | None = None
    ) -> Estimate:
        """(2) of the modalities `of`, given all others that are present: see `types.Likely`. Exact, a pass for each.

        Of real values this is the probability of their code, not a density. Nothing is drawn, so the key and `draws`
        change nothing. Raises ValueError if a name is no modality.
        """

        def score(batch: Batch, name: str) -> Estimate:
            return Estimate(-self.surprise(variables, batch, name).sum(axis=1), jnp.zeros(len(batch)))

        return chained(self.modalities, batch, of, score)

    def sample(
        self,
        variables: Variables,
        key: Key,
        n: int,
        *,
        given: Mapping[str, Array] | Batch | None = None,
        targets: tuple[str, ...] | None = None,
    ) -> dict[str, Array]:
        """n examples of `targets` (default: all), given some modalities: see `modalities.given.answered`.

        Raises:
            ValueError: a name is no modality, or what is given has the wrong shape.
        """

        def answer(wanted: tuple[str, ...], batch: Batch) -> dict[str, Array]:
            tokens = self.tokens(variables, batch.masked())
            there = {name: jnp.asarray(batch.present[name]) for name in tokens}
            return self.values(variables, make(self, wanted, variables["params"], tokens, there, key))

        return answered(self.modalities, self.makes, n, given, targets, answer)

    def inpaint(self, variables: Variables, key: Key, batch: Batch, name: str, keep: Array) -> Array:
        """A modality of a batch [B, *shape] with those of its symbols made anew that are not kept, bool [B, T].

        Given the other modalities that are present. By its decoding, if that fills in, or else by `MaskGIT()`.
        Raises ValueError if `name` is no modality.
        """
        known(self.modalities, name)
        model = self
        if not isinstance(self.decoding_of(name), MaskGIT | RandomOrder):
            model = dataclasses.replace(self, decoding={**self.decoding, name: MaskGIT()})
        batch = batch.only(self.modalities).masked()
        tokens = self.tokens(variables, batch)
        start = {name: jnp.where(keep, tokens[name], self.sequences[name].mask)}
        there = {other: jnp.asarray(present) for other, present in batch.present.items()}
        made = make(model, (name,), variables["params"], tokens, there, key, start)
        return self.values(variables, made)[name]

    def token_counts(self) -> dict[str, int]:
        """How many slots of the network each modality has."""
        return {name: self.sequences[name].length + 1 for name in self.modalities}

    def cells(self, name: str) -> tuple[int, ...]:
        """The grid on which the symbols of a modality lie, some in each cell; () for a single one."""
        return self.first[name].cells[name] if name in self.first else self.modalities[name].shape

    def attention_maps(self, variables: Variables, batch: Batch, key: Key) -> Array:
        """What each modality looks at while it is made of the others, [B, blocks, M, M]: see `looking.py`."""
        return looking.attention_maps(self, variables, batch)

    @functools.partial(jax.jit, static_argnums=0)
    def values(self, stats: Stats, tokens: Mapping[str, Array]) -> dict[str, Array]:
        """Modalities [B, *shape] from symbols [B, T]."""
        made = {}
        for name, x in tokens.items():
            if name in self.first:
                made[name] = self.first[name].from_tokens(stats["first"][name], name, x)
            else:
                made[name] = x.reshape(len(x), *self.modalities[name].shape)
        return made


def without_padding(logits: Array) -> Array:
    """Logits [..., V] of a text, where padding is no symbol."""
    return logits.at[..., PADDING].set(NEVER)
