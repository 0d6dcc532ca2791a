"""Judges trained here: small networks that tell an example's class, and whose last hidden layer gives features.

What a judge sees is one modality of the training split; its accuracy on the test split stands beside every number that
rests on it. Features of a judge are blind to all that its classes do not need, and distances between them cannot be
compared with published numbers, which rest on other networks.

A judge follows from the data, the fields of its `Classifier` and `VERSION`. The hash of these names the file it is
kept in; the hash of its weights, beside it in JSON, says exactly which judge has spoken.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmgen_jax.evals import kept
from mmgen_jax.evals.augment import augment
from mmgen_jax.evals.sampling import batches
from mmgen_jax.nn.conv import Down, halvings, strides_between
from mmgen_jax.progress import track
from mmgen_jax.rng import step_key
from mmgen_jax.types import Array, Batch, EvalData, Modality, Params

VERSION = 5  # to be raised when a change here makes other judges of the same fields
CALLS = 20  # compiled calls that a training is cut into, for the progress bar
MOST = 4096  # values of an example that a judge looks at
WIDEST = 8  # times the first layer's channels: a waveform is halved ten times
SMOOTHING = 0.05  # of the labels: keeps the logits, and so the features, from growing without end


class Network(nn.Module):
    """x [B, *shape] -> (features [B, width], logits [B, classes]). `ids` is the number of different tokens, 0 for none.

    Pooled by the maximum over space, so that it matters little where something stands. A clip is judged by its frames:
    the outputs are their means.
    """

    classes: int
    ids: int
    width: int
    channels: int

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        x = jax.nn.one_hot(x, self.ids) if self.ids else x
        frames = x.reshape(-1, *x.shape[-3:]) if x.ndim == 5 else x
        x, count = shrunk(frames), len(frames) // len(x)
        sizes = halvings(x.shape[1:-1]) if x.ndim > 2 else []
        for i, (large, small) in enumerate(itertools.pairwise(sizes)):
            x = nn.silu(nn.RMSNorm()(Down(self.channels * min(2**i, WIDEST), strides_between(large, small))(x)))
        x = nn.silu(nn.Dense(4 * self.width)(x)).max(tuple(range(1, x.ndim - 1)))
        features = nn.silu(nn.Dense(self.width)(x))
        outputs = features, nn.Dense(self.classes)(features)
        return tuple(y.reshape(-1, count, y.shape[-1]).mean(1) for y in outputs)


def shrunk(x: Array) -> Array:
    """[B, *space, C] with its space halved until an example has at most `MOST` values: its class is still plain."""
    while x.ndim > 2 and math.prod(x.shape[1:]) > MOST:
        x = jax.image.resize(x, (len(x), *(-(-n // 2) for n in x.shape[1:-1]), x.shape[-1]), "linear")
    return x


@dataclasses.dataclass(frozen=True)
class Classifier:
    """How a judge is built and trained.

    Attributes:
        width: number of features.
        channels: of the first layer; doubled with each halving of the space, up to eight times as many.
        steps, batch_size: length of the training.
        rate: the highest learning rate, reached after a tenth of the steps.
        seed: of its initialisation, batches and augmentation.
    """

    width: int = 64
    channels: int = 16
    steps: int = 800
    batch_size: int = 64
    rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < CALLS or self.steps % CALLS:
            raise ValueError(f"Classifier: steps must be a multiple of {CALLS}, not {self.steps}")

    def fit(self, name: str, modality: Modality, data: EvalData, label: str) -> Judge:
        """The judge that tells `label` from `name`: the one kept in `data.cache`, or a new one, then kept there.

        Raises ValueError if no example of a split has both.
        """
        train, test = (labelled(split, name, label) for split in (data.train, data.test))
        classes = 1 + max(int(y.max()) for _, y in (train, test))
        ids = different(name, modality, data)
        network = Network(classes, ids, self.width, self.channels)
        made_of = {"modality": name, "version": VERSION} | dataclasses.asdict(self) | {"classes": classes, "ids": ids}
        key = kept.digest(made_of, *train, *test)
        params = kept.read(data.cache / f"{name}-{key[:12]}")
        if params is None:
            params = jax.device_get(train_network(self, network, *train, name))
            accuracy = float(np.mean(Judge(network, params).classes(test[0]) == test[1]))
            kept.write(data.cache / f"{name}-{key[:12]}", params, made_of | {"accuracy": accuracy})
        return Judge(network, params)


@dataclasses.dataclass(frozen=True)
class RandomFeatures:
    """Features of a network that nothing has trained: a yardstick that no data set and no label has shaped.

    After Naeem et al. 2020 (arXiv:2002.09797), who take random features where no network trained on the like exists.

    Attributes:
        width: number of features.
        channels: of the first layer; doubled with each halving of the space, up to eight times as many.
        seed: of its initialisation; one is one draw, so look at several.
    """

    width: int = 64
    channels: int = 16
    seed: int = 0

    def fit(self, name: str, modality: Modality, data: EvalData, label: str) -> Judge:
        """The features of modality `name`; of `data` it needs only how many tokens there are, of `label` nothing."""
        network = Network(1, different(name, modality, data), self.width, self.channels)
        example = jnp.zeros((1, *modality.shape), modality.dtype)
        return Judge(network, jax.jit(network.init)(step_key(self.seed, "init", 0), example)["params"])


@dataclasses.dataclass(frozen=True)
class Judge:
    """A trained network."""

    network: Network
    params: Params

    def features(self, x: np.ndarray) -> np.ndarray:
        """x [N, *shape] -> [N, width]."""
        return self._outputs(x)["features"]

    def classes(self, x: np.ndarray) -> np.ndarray:
        """x [N, *shape] -> the most probable class, int [N]."""
        return self._outputs(x)["logits"].argmax(-1)

    def _outputs(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return batches(lambda _, rows: apply(self.network, self.params, x[rows]), len(x))


@functools.partial(jax.jit, static_argnums=0)
def apply(network: Network, params: Params, x: Array) -> dict[str, Array]:
    features, logits = network.apply({"params": params}, x)
    return {"features": features, "logits": logits}


def different(name: str, modality: Modality, data: EvalData) -> int:
    """How many different tokens a modality has, going by the data; 0 where it is of real values."""
    if not np.issubdtype(modality.dtype, np.integer):
        return 0
    return 1 + max(int(split.values[name].max()) for split in (data.train, data.test))


def labelled(data: Batch, name: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    """The examples [N, *shape] of modality `name` that have a label, and their labels [N].

    Raises ValueError if there are none, or no such modality.
    """
    for part in (name, label):
        if part not in data.present:
            raise ValueError(f"{part!r} is no modality of the data, which has {list(data.present)}")
    there = data.present[name] & data.present[label]
    if not there.any():
        raise ValueError(f"no example has both {name!r} and {label!r}, so nothing can be learned or judged")
    return data.values[name][there], data.values[label][there]


def train_network(classifier: Classifier, network: Network, x: np.ndarray, y: np.ndarray, name: str) -> Params:
    """Parameters of `network` after AdamW on random batches of x [N, *shape], augmented, with classes y [N]."""
    seed, x, y = classifier.seed, jnp.asarray(x), jnp.asarray(y)
    tx = optax.adamw(optax.cosine_onecycle_schedule(classifier.steps, classifier.rate, 0.1), weight_decay=0.01)

    def loss(params: Params, x: Array, y: Array) -> Array:
        truth = optax.smooth_labels(jax.nn.one_hot(y, network.classes), SMOOTHING)
        return optax.softmax_cross_entropy(network.apply({"params": params}, x)[1], truth).mean()

    def step(state: tuple[Params, Any], i: Array) -> tuple[tuple[Params, Any], None]:
        params, opt = state
        rows = jax.random.randint(step_key(seed, "rows", i), (classifier.batch_size,), 0, len(x))
        grads = jax.grad(loss)(params, augment(x[rows], step_key(seed, "augment", i)), y[rows])
        updates, opt = tx.update(grads, opt, params)
        return (optax.apply_updates(params, updates), opt), None

    params = jax.jit(network.init)(step_key(seed, "init", 0), x[:1])["params"]
    run = jax.jit(lambda state, steps: jax.lax.scan(step, state, steps)[0], donate_argnums=0)
    state = params, tx.init(params)
    for steps in track(np.arange(classifier.steps).reshape(CALLS, -1), f"judge of {name}"):
        state = run(state, steps)
    return state[0]
