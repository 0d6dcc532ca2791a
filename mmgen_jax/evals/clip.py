"""The two towers of CLIP (Radford et al. 2021, arXiv:2103.00020), for weights that the user has.

    block       h = h + attention(norm(h));  h = h + W_2 g(W_1 norm(h)),    g(x) = x sigmoid(1.702 x)             (1)
    picture     patches and a class symbol, norm, blocks; the class symbol, norm, projection                      (2)
    text        symbols, blocks in which nobody looks ahead, norm; what stands at the end, projection             (3)

What they say of a picture and of a text can be compared by the cosine. Names of weights are those of the files in which
the models are commonly passed on (`vision_model.encoder.layers.0.self_attn.q_proj.weight`); all sizes but those of the
heads, 64 wide in every model published, are read from their shapes.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.evals.bpe import BytePairs
from mmgen_jax.evals.pretrained import (
    Get,
    Pretrained,
    Weights,
    channels,
    convolved,
    fitting,
    framewise,
    getter,
    layer_norm,
    linear,
    require_pictures,
    shapes,
    stamp,
)
from mmgen_jax.evals.weights_file import read_weights
from mmgen_jax.nn.attention import attention
from mmgen_jax.types import Array, EvalData, Modality

NAME, VERSION = "CLIP", "1"
HEAD, EPSILON = 64, 1e-5
CENTRE, SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of its pictures, by colour


@dataclasses.dataclass(frozen=True)
class Tower:
    """Sizes: of tokens, their number, of blocks, of the embedding, and of a patch or the vocabulary."""

    width: int
    tokens: int
    depth: int
    embedding: int
    inputs: int


VISION, TEXT = "vision_model", "text_model"
PROJECTION = {VISION: "visual_projection.weight", TEXT: "text_projection.weight"}
INPUTS = {VISION: "embeddings.patch_embedding.weight", TEXT: "embeddings.token_embedding.weight"}


def tower(arrays: Mapping[str, np.ndarray], part: str) -> Tower:
    """The sizes of a tower, `VISION` or `TEXT`, by its weights. Raises ValueError if they are not those of one."""
    try:
        tokens, width = arrays[f"{part}.embeddings.position_embedding.weight"].shape
        inputs = arrays[f"{part}.{INPUTS[part]}"].shape
        embedding = len(arrays[PROJECTION[part]])
    except (KeyError, ValueError) as error:
        raise ValueError(f"CLIP: the file does not hold a {part.replace('_', ' ')} of it: {error}") from None
    if width % HEAD:
        raise ValueError(f"CLIP: the {part.replace('_', ' ')} is {width} wide, but must be a multiple of {HEAD}")
    block = re.compile(rf"{part}\.encoder\.layers\.(\d+)\.layer_norm1\.weight")
    depth = sum(block.fullmatch(name) is not None for name in arrays)
    return Tower(width, tokens, depth, embedding, inputs[-1] if part == VISION else inputs[0])


def blocks(get: Get, name: str, h: Array, sizes: Tower, causal: bool) -> Array:
    """Equation (1), `depth` times, of h [N, T, W]."""
    for i in range(sizes.depth):
        block = f"{name}.encoder.layers.{i}"

        def heads(kind: str, x: Array, block: str = block) -> Array:
            y = linear(get, f"{block}.self_attn.{kind}_proj", x, sizes.width)
            return y.reshape(*x.shape[:2], -1, HEAD)

        x = layer_norm(get, f"{block}.layer_norm1", h, EPSILON)
        seen = attention(*(heads(kind, x) for kind in "qkv"), causal=causal, implementation="xla")
        h = h + linear(get, f"{block}.self_attn.out_proj", seen.reshape(h.shape), sizes.width)
        x = linear(get, f"{block}.mlp.fc1", layer_norm(get, f"{block}.layer_norm2", h, EPSILON), 4 * sizes.width)
        h = h + linear(get, f"{block}.mlp.fc2", x * jax.nn.sigmoid(1.702 * x), sizes.width)
    return h


def projected(get: Get, part: str, h: Array, sizes: Tower) -> Array:
    return jnp.matmul(h, get(PROJECTION[part], sizes.embedding, sizes.width).T, precision="highest")


def picture(get: Get, x: Array, sizes: Tower) -> Array:
    """Equation (2) of pictures x [N, H, W, 3], standardised: [N, embedding]."""
    kernel = get(f"{VISION}.{INPUTS[VISION]}", sizes.width, 3, sizes.inputs, sizes.inputs)
    patches = convolved(x, kernel, sizes.inputs).reshape(len(x), -1, sizes.width)
    first = jnp.broadcast_to(get(f"{VISION}.embeddings.class_embedding", sizes.width), (len(x), 1, sizes.width))
    places = get(f"{VISION}.embeddings.position_embedding.weight", sizes.tokens, sizes.width)
    h = jnp.concatenate([first, patches], axis=1) + places[None]
    h = blocks(get, VISION, layer_norm(get, f"{VISION}.pre_layrnorm", h, EPSILON), sizes, causal=False)
    return projected(get, VISION, layer_norm(get, f"{VISION}.post_layernorm", h[:, 0], EPSILON), sizes)


def text(get: Get, ids: Array, sizes: Tower) -> Array:
    """Equation (3) of symbols [N, T], whose largest is the end: [N, embedding]."""
    table = get(f"{TEXT}.{INPUTS[TEXT]}", sizes.inputs, sizes.width)
    places = get(f"{TEXT}.embeddings.position_embedding.weight", sizes.tokens, sizes.width)
    h = blocks(get, TEXT, table[ids] + places[None], sizes, causal=True)
    h = layer_norm(get, f"{TEXT}.final_layer_norm", h, EPSILON)
    return projected(get, TEXT, h[jnp.arange(len(ids)), ids.argmax(1)], sizes)


def side(sizes: Tower) -> int:
    """Of the square that a picture is scaled to."""
    return sizes.inputs * round((sizes.tokens - 1) ** 0.5)


@functools.partial(jax.jit, static_argnames="sizes")
def look(weights: Weights, x: Array, sizes: Tower) -> dict[str, Array]:
    """Features of pictures or clips [N, (F,) H, W, C], C = 1 or 3, values in [0, 1]."""

    def one(frames: Array) -> dict[str, Array]:
        frames = jax.image.resize(frames, (len(frames), side(sizes), side(sizes), 3), "cubic")
        standard = (frames - channels(CENTRE, frames)) / channels(SPREAD, frames)
        return {"features": picture(getter(weights), standard, sizes)}

    return framewise(one, x)


@functools.partial(jax.jit, static_argnames="sizes")
def read(weights: Weights, ids: Array, sizes: Tower) -> dict[str, Array]:
    """Features of symbols [N, T]."""
    return {"features": text(getter(weights), ids, sizes)}


@dataclasses.dataclass(frozen=True)
class CLIP:
    """Embeddings of pictures, clips (the mean over their frames) and texts; an `Extractor`.

    A picture is scaled to a square, without cropping.

    Attributes:
        weights: a .safetensors or .npz file of a CLIP with vision transformer.
        merges: the file `merges.txt` that comes with it; only texts need it.
    """

    weights: str
    merges: str | None = None

    def fit(self, name: str, modality: Modality, data: EvalData, label: str) -> Pretrained:
        """Nothing is learned.

        Raises:
            ValueError: the modality is of another kind, or a file cannot be read or does not fit.
        """
        texts = len(modality.shape) == 1 and np.issubdtype(modality.dtype, np.integer)
        if not texts:
            require_pictures(NAME, name, modality)
        elif self.merges is None:
            raise ValueError(f"CLIP: merges must name the file of its merges, so that {name!r} can be read")
        arrays, sha256 = read_weights(self.weights)
        stamp(data, name, NAME, VERSION, sha256)
        return self._texts(arrays, modality) if texts else self._pictures(arrays)

    def _pictures(self, arrays: Mapping[str, np.ndarray]) -> Pretrained:
        sizes = tower(arrays, VISION)
        x = jax.ShapeDtypeStruct((1, side(sizes), side(sizes), 3), jnp.float32)
        wanted = shapes(functools.partial(picture, sizes=sizes), x)
        return Pretrained(fitting(NAME, arrays, wanted), functools.partial(look, sizes=sizes))

    def _texts(self, arrays: Mapping[str, np.ndarray], modality: Modality) -> Pretrained:
        sizes, pairs = tower(arrays, TEXT), BytePairs.read(self.merges)
        if pairs.size != sizes.inputs:
            raise ValueError(f"CLIP: merges give {pairs.size} symbols, but the weights are of {sizes.inputs}")
        wanted = shapes(functools.partial(text, sizes=sizes), jax.ShapeDtypeStruct((1, sizes.tokens), jnp.int32))

        def prepare(x: np.ndarray) -> np.ndarray:
            return np.stack([pairs.encode(modality.decode(one), sizes.tokens) for one in x])

        return Pretrained(fitting(NAME, arrays, wanted), functools.partial(read, sizes=sizes), prepare)
