"""CLIP by its published sizes, its symbols, and what the towers compute; files of weights that execute nothing."""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evals_fakes import MODALITIES, TEXTS, Model, data, pictures

from mmgen_jax.evals import CLIP, CLIPScore, clip
from mmgen_jax.evals.bpe import BytePairs, letters
from mmgen_jax.evals.pretrained import shapes
from mmgen_jax.evals.weights_file import read_weights
from mmgen_jax.modalities import Audio
from mmgen_jax.train.record import write_evaluation

KEY = jax.random.key(0)
MERGES = BytePairs((("a", "n"), ("an", "t</w>"), ("b", "e"), ("be", "e</w>")))
SMALL = {clip.VISION: clip.Tower(64, 5, 1, 8, 3), clip.TEXT: clip.Tower(64, 12, 1, 8, MERGES.size)}


def float32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def wanted(vision, text):
    side = clip.side(vision)
    seen = shapes(functools.partial(clip.picture, sizes=vision), float32(1, side, side, 3))
    return seen | shapes(functools.partial(clip.text, sizes=text), jax.ShapeDtypeStruct((1, text.tokens), jnp.int32))


@pytest.mark.parametrize(
    ("vision", "text", "count"),
    [
        (clip.Tower(768, 50, 12, 512, 32), clip.Tower(512, 77, 12, 512, 49408), 151_277_313),  # ViT-B/32
        (clip.Tower(1024, 257, 24, 768, 14), clip.Tower(768, 77, 12, 768, 49408), 427_616_513),  # ViT-L/14
    ],
)
def test_the_published_numbers_of_parameters(vision, text, count):
    sizes = wanted(vision, text)
    assert sum(map(math.prod, sizes.values())) == count - 1  # without the temperature of the training
    assert clip.side(vision) == 224
    zeros = {name: np.broadcast_to(np.float32(0), shape) for name, shape in sizes.items()}
    assert [clip.tower(zeros, part) for part in (clip.VISION, clip.TEXT)] == [vision, text]
    found = jax.eval_shape(functools.partial(clip.look, sizes=vision), zeros, float32(3, 2, 28, 28, 1))
    assert found["features"].shape == (3, vision.embedding)  # of three clips of two frames


def random_weights():
    rng = np.random.default_rng(0)
    return {
        name: (0.2 * rng.normal(size=shape) + ("norm" in name and name.endswith("weight"))).astype(np.float32)
        for name, shape in wanted(*SMALL.values()).items()
    }


def written(path, arrays):
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, x in arrays.items():
        kind = {"float32": "F32", "float16": "F16", "int64": "I64", "bfloat16": "BF16"}[x.dtype.name]
        header[name] = {"dtype": kind, "shape": list(x.shape), "data_offsets": [len(body), len(body) + x.nbytes]}
        body += x.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def test_both_kinds_of_files_are_read(tmp_path):
    arrays = {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3), "b": np.array(3), "c": jnp.ones(2, jnp.bfloat16)}
    arrays["c"] = np.asarray(arrays["c"])
    found, sha256 = read_weights(written(tmp_path / "w.safetensors", arrays))
    for name, x in arrays.items():
        np.testing.assert_array_equal(found[name], x)
        assert found[name].dtype == x.dtype
    np.savez(tmp_path / "w.npz", a=arrays["a"])
    other, another = read_weights(tmp_path / "w.npz")
    np.testing.assert_array_equal(other["a"], arrays["a"])
    assert len(sha256) == 64 and sha256 != another


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pt", b"", "ends in .npz or .safetensors, which"),
        ("w.safetensors", b"", "its header would have 0 of 0 bytes"),
        ("w.safetensors", (99).to_bytes(8, "little") + b"{}", "would have 99 of 10 bytes"),
        ("w.safetensors", (2).to_bytes(8, "little") + b"[]", "not a readable file of arrays"),
        ("w.npz", b"PK", "not a readable file of arrays"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("offsets", [[0, 4], [4, 12], [-4, 4]])
def test_arrays_outside_the_file_are_refused(tmp_path, offsets):
    text = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": offsets}}).encode()
    (tmp_path / "w.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(ValueError, match=r"a would be \[2\] of float32"):
        read_weights(tmp_path / "w.safetensors")


def test_no_pickle_is_opened(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_weights(tmp_path / "w.npz")


def test_symbols_of_texts():
    """Of the list of CLIP itself, "a" is the symbol 320 and a text begins with 49406."""
    assert len(set(letters().values())) == 256
    assert MERGES.numbers["a</w>"] == 320 and 512 + 48_894 == 49_406
    assert MERGES.word("ant") == ["ant</w>"] and MERGES.word("anbee") == ["an", "bee</w>"]
    assert MERGES.word("é") == ["Ã", "©</w>"]  # its two bytes
    start, end = MERGES.size - 2, MERGES.size - 1
    ids = MERGES.encode("  An ANT&amp;bee! ", 10)
    words = ["an</w>", "ant</w>", "&</w>", "bee</w>", "!</w>"]
    pairs = dataclasses.replace(MERGES, merges=(*MERGES.merges, ("a", "n</w>")))
    assert [*pairs.encode("  An ANT&amp;bee! ", 10)] == [
        start + 1, *(pairs.numbers[word] for word in words), *[end + 1] * 4,
    ]  # fmt: skip
    assert ids[0] == start and len(ids) == 10
    assert [*MERGES.encode("ant ant ant", 3)] == [start, MERGES.numbers["ant</w>"], end]  # no more room
    assert [*MERGES.encode("", 3)] == [start, end, end]


def test_merges_are_read(tmp_path):
    (tmp_path / "merges.txt").write_text("#version: 0.2\na n\nan t</w>\nb e\nbe e</w>\n")
    assert BytePairs.read(tmp_path / "merges.txt") == MERGES
    (tmp_path / "merges.txt").write_text("a n\na b c\n")
    with pytest.raises(ValueError, match="two symbols in a line, not 'a b c'"):
        BytePairs.read(tmp_path / "merges.txt")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    (folder / "merges.txt").write_text("\n".join(" ".join(pair) for pair in MERGES.merges))
    return str(written(folder / "clip.safetensors", random_weights())), str(folder / "merges.txt")


def test_the_text_tower_reads_up_to_the_end_and_the_picture_tower_all(files):
    weights, (vision, text) = random_weights(), SMALL.values()
    ids = np.stack([MERGES.encode("ant bee", 12)] * 2)
    ids[1, 5:] = 7  # behind the end: not seen
    a, b = clip.read(weights, ids, text)["features"]
    np.testing.assert_allclose(a, b, rtol=1e-5)
    ids[1, 1] = 9
    assert not np.allclose(a, clip.read(weights, ids, text)["features"][1])
    slope = jax.grad(lambda x: clip.look(weights, x, vision)["features"].sum())(jnp.full((1, 6, 6, 3), 0.5))
    assert (np.abs(slope) > 0).all()


def test_a_tower_without_blocks_is_a_closed_form():
    sizes = clip.Tower(64, 5, 0, 8, 3)
    weights = {name: x for name, x in random_weights().items() if "layers" not in name}
    x = np.random.default_rng(1).normal(size=(2, 6, 6, 3)).astype(np.float32)

    def norm(h, name):
        h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
        return h * weights[f"vision_model.{name}.weight"] + weights[f"vision_model.{name}.bias"]

    first = weights["vision_model.embeddings.class_embedding"] + weights[
        "vision_model.embeddings.position_embedding.weight"
    ][0]  # fmt: skip
    expected = norm(norm(first, "pre_layrnorm"), "post_layernorm") @ weights["visual_projection.weight"].T
    found = clip.picture(lambda name, *shape: weights[name], x, sizes)
    np.testing.assert_allclose(found, np.stack([expected] * 2), rtol=1e-4, atol=1e-5)


def test_it_is_an_extractor_and_leaves_its_hash(files, tmp_path):
    world = data(tmp_path)
    judge = CLIP(*files).fit("picture", MODALITIES["picture"], world, "")
    assert judge.features(pictures(np.arange(6))).shape == (6, 8)
    (path,) = tmp_path.glob("*.json")
    sha256 = read_weights(files[0])[1]
    assert json.loads(path.read_text()) == {"modality": "picture, CLIP", "version": "1", "sha256": sha256}


def test_the_hash_gets_into_the_evaluation(files, tmp_path):
    from test_config import an_experiment

    CLIP(*files).fit("picture", MODALITIES["picture"], data(tmp_path / "judges"), "")
    write_evaluation(tmp_path, 3, {"a": 1.0}, an_experiment())
    (judge,) = json.loads((tmp_path / "evaluation.json").read_text())["protocol"]["judges"]
    assert judge["modality"] == "picture, CLIP" and judge["sha256"] == read_weights(files[0])[1]


def test_the_score_of_right_and_wrong_pairs(files, tmp_path):
    world, named = data(tmp_path), CLIPScore(CLIP(*files), image="picture")
    values = named(Model(), {}, world, KEY)
    ends = ("", "/low", "/high", "/real", "/chance")
    assert set(values) == {f"clip_score/{pair}{end}" for pair in ("text->picture", "picture->text") for end in ends}
    # What it makes of a text is the true picture.
    assert values["clip_score/text->picture"] == pytest.approx(values["clip_score/text->picture/real"], abs=1e-6)
    assert values["clip_score/text->picture/low"] < values["clip_score/text->picture/high"]
    wrong = CLIPScore(Same(), image="picture")(Model(wrong=5), {}, world, KEY)  # the next class for all but the last
    assert wrong["clip_score/text->picture/real"] == pytest.approx(1)
    assert wrong["clip_score/text->picture"] == pytest.approx(1 / 6)
    right = CLIPScore(Same(), image="picture")(Model(), {}, world, KEY)
    assert right["clip_score/text->picture"] == pytest.approx(1)
    assert right["clip_score/text->picture/chance"] == pytest.approx(0.9)  # 6 of 60 have a neighbour of another class


@dataclasses.dataclass(frozen=True)
class Same:
    """Embeds pictures and texts of a class at the same place."""

    name: str = ""

    def fit(self, name, modality, data, label):
        return Same(name)

    def features(self, x):
        said = (x[:, None] == TEXTS[None]).all(-1) if self.name == "text" else x[:, :, 0, 0]
        return np.eye(6)[said.argmax(-1)]


def test_what_does_not_fit_is_refused(files, tmp_path):
    world = data(tmp_path)
    with pytest.raises(ValueError, match="merges must name the file"):
        CLIP(files[0]).fit("text", MODALITIES["text"], world, "")
    with pytest.raises(ValueError, match="CLIP looks at pictures and clips of one channel or three, but 'sound'"):
        CLIP(*files).fit("sound", Audio(256), world, "")
    with pytest.raises(ValueError, match="'image' is no modality of the model"):
        CLIPScore(CLIP(*files))(Model(), {}, world, KEY)
    with pytest.raises(ValueError, match="CLIPScore: limit must be at least 1, not 0"):
        CLIPScore(CLIP(*files), limit=0)
    short = {name: x for name, x in random_weights().items() if "post_layernorm.bias" not in name}
    with pytest.raises(ValueError, match=r"CLIP: the file has no vision_model.post_layernorm.bias"):
        CLIP(str(written(tmp_path / "a.safetensors", short))).fit("picture", MODALITIES["picture"], world, "")
    with pytest.raises(ValueError, match="does not hold a text model"):
        empty = str(written(tmp_path / "b.safetensors", {"a": np.zeros(2)[:0].astype(np.float32)}))
        CLIP(empty, files[1]).fit("text", MODALITIES["text"], world, "")
    fewer = tmp_path / "merges.txt"
    fewer.write_text("a n\n")
    with pytest.raises(ValueError, match=f"merges give 515 symbols, but the weights are of {MERGES.size}"):
        CLIP(files[0], str(fewer)).fit("text", MODALITIES["text"], world, "")
