"""Weights of PyTorch's old files are read as plain arrays; the network they are for knows what is in photographs."""

import collections
import io
import os
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from evals_fakes import data

from mmgen_jax.data.builders.wheels import locate
from mmgen_jax.evals import EfficientNetLite, lite
from mmgen_jax.evals.torch_file import MAGIC, read_arrays, read_plain
from mmgen_jax.modalities import Audio, Image, Video

WEIGHTS = {  # name: (kind of storage, its values, offset, shape, strides)
    "a.weight": ("FloatStorage", np.arange(12, dtype=np.float32), 0, (2, 3, 2), (6, 1, 3)),
    "a.bias": ("DoubleStorage", np.array([1.5, 2.5, 3.5]), 1, (2,), (1,)),
    "count": ("LongStorage", np.array([7]), 0, (), ()),
}


class Named:
    """Something that a pickle calls by name."""

    def __init__(self, module, name, *arguments):
        self.named, self.arguments = (module, name), arguments


class Writer(pickle._Pickler):
    """Writes what PyTorch would, without it."""

    def persistent_id(self, item):
        if isinstance(item, tuple) and item and item[0] == "storage":
            return item
        return None

    def save(self, item, save_persistent_id=True):
        if isinstance(item, Named):
            self.write(pickle.GLOBAL + "\n".join(item.named).encode() + b"\n")
            if item.arguments:
                self.save(item.arguments)
                self.write(pickle.REDUCE)
        elif isinstance(item, tuple) and item and item[0] == "storage" and save_persistent_id:
            super().save(tuple(item), save_persistent_id=False)
            self.write(pickle.BINPERSID)
        else:
            super().save(item, save_persistent_id)


def written(path, weights=WEIGHTS):
    described = collections.OrderedDict()
    for key, (kind, values, *where) in weights.items():
        storage = ("storage", Named("torch", kind), key, "cpu", len(values), None)
        extra = (False, collections.OrderedDict())
        described[key] = Named("torch._utils", "_rebuild_tensor_v2", storage, *where, *extra)
    with path.open("wb") as file:
        for item in (MAGIC, 1001, {"little_endian": True}, described, sorted(weights)):
            Writer(file, 2).dump(item)
        for key in sorted(weights):
            file.write(np.int64(len(weights[key][1])).tobytes() + weights[key][1].tobytes())
    return path


def test_arrays_are_read(tmp_path):
    found = read_arrays(written(tmp_path / "a.pth"))
    assert list(found) == list(WEIGHTS)
    np.testing.assert_array_equal(found["a.weight"], np.arange(12).reshape(2, 2, 3).transpose(0, 2, 1))
    np.testing.assert_array_equal(found["a.bias"], [2.5, 3.5])
    assert found["count"].shape == () and found["count"] == 7 and found["a.weight"].dtype == np.float32


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("was executed",)


def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = read_plain(io.BytesIO(pickle.dumps({"a": Harmful()}, 2)))
    assert read == {"a": (f"{os.mkdir.__module__} mkdir", ("was executed",))}
    path = tmp_path / "harmful.pth"
    with path.open("wb") as file:
        for item in (MAGIC, 1001, {}, {"a": Harmful()}, []):
            pickle.dump(item, file, 2)
    with pytest.raises(ValueError, match="not a file of arrays of PyTorch's old format"):
        read_arrays(path)
    assert not (tmp_path / "was executed").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": ("FloatStorage", np.zeros(3, np.float32), 0, (4,), (1,))}, "values up to 3 of a storage of 3"),
        ({"a": ("FloatStorage", np.zeros(3, np.float32), 0, (2,), (-1,))}, "of a storage of 3"),
        ({"a": ("OddStorage", np.zeros(3, np.float32), 0, (2,), (1,))}, "torch OddStorage"),
    ],
)
def test_other_files_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read_arrays(written(tmp_path / "a.pth", change))


def test_what_is_no_such_file_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    for content in (b"", b"PK\x03\x04 a zip file", pickle.dumps(1, 2), pickle.dumps({1, 2}, 4)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path} is not a file of arrays"):
            read_arrays(path)


def random_weights():
    """By the names and shapes of the file: B0's table of channels."""
    rng, arrays = np.random.default_rng(0), {}

    def add(conv, norm, out, inputs, side):
        arrays[f"{conv}.weight"] = rng.normal(0, (inputs * side**2) ** -0.5, (out, inputs, side, side))
        for part, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            arrays[f"{norm}.{part}"] = rng.uniform(low, low + 1, out)

    add("_conv_stem", "_bn0", 32, 3, 3)
    channels, i = 32, 0
    for (count, side, _, widen), out in zip(lite.STAGES, (16, 24, 40, 80, 112, 192, 320), strict=True):
        for _ in range(count):
            wide, block = channels * widen, f"_blocks.{i}"
            if widen > 1:
                add(f"{block}._expand_conv", f"{block}._bn0", wide, channels, 1)
            add(f"{block}._depthwise_conv", f"{block}._bn1", wide, 1, side)
            add(f"{block}._project_conv", f"{block}._bn2", out, wide, 1)
            channels, i = out, i + 1
    add("_conv_head", "_bn1", 1280, 320, 1)
    arrays["_fc.weight"], arrays["_fc.bias"] = rng.normal(size=(1000, 1280)), np.zeros(1000)
    return {name: x.astype(np.float32) for name, x in arrays.items()}


def test_the_network_looks_at_pictures_of_any_size_and_at_clips(monkeypatch, tmp_path):
    arrays = random_weights()
    assert sum(x.size for name, x in arrays.items() if "running" not in name) == 4_652_008  # parameters of Lite0
    monkeypatch.setattr(lite, "load", lambda: lite.folded(arrays))
    judge = EfficientNetLite(side=32).fit("clip", Video(2, 5, 7, 1), data(tmp_path), "none")
    clips = np.random.default_rng(0).uniform(size=(3, 2, 5, 7, 1)).astype(np.float32)
    found = judge.features(clips)
    assert found.shape == (3, 1280) and np.isfinite(found).all() and judge.classes(clips).shape == (3,)
    frames = judge.features(clips.reshape(6, 5, 7, 1))
    np.testing.assert_allclose(frames.reshape(3, 2, -1).mean(1), found, rtol=1e-3, atol=1e-4)
    coloured = judge.features(np.repeat(clips, 3, axis=-1))
    np.testing.assert_allclose(coloured, found, rtol=1e-3, atol=1e-4)


def test_statistics_become_part_of_kernels():
    rng = np.random.default_rng(0)
    arrays, x = random_weights(), jnp.asarray(rng.normal(size=(1, 6, 6, 3)), jnp.float32)
    weights = lite.folded(arrays)
    plain = {"stem/kernel": arrays["_conv_stem.weight"].transpose(2, 3, 1, 0), "stem/bias": np.zeros(32, np.float32)}
    y = (lite.convolved(plain, "stem", x, 2) - arrays["_bn0.running_mean"].reshape(1, 1, 1, -1)) * (
        arrays["_bn0.weight"] / np.sqrt(arrays["_bn0.running_var"] + 1e-3)
    ).reshape(1, 1, 1, -1) + arrays["_bn0.bias"].reshape(1, 1, 1, -1)
    np.testing.assert_allclose(lite.convolved(weights, "stem", x, 2), y, atol=1e-5)


def test_what_it_cannot_look_at_is_said(tmp_path):
    for modality in (Audio(64, rate=64, window=32, hop=16), Image(4, 4, 2)):
        with pytest.raises(ValueError, match="looks at pictures and clips of one channel or three, but 'x' is"):
            EfficientNetLite().fit("x", modality, data(tmp_path), "none")
    with pytest.raises(ValueError, match="side must be at least 32, not 16"):
        EfficientNetLite(side=16)


def test_weights_that_are_not_the_known_ones_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lite, "locate", lambda *_: written(tmp_path / "a.pth"))
    lite.load.cache_clear()
    with pytest.raises(RuntimeError, match="does not hold the weights that this network is known by"):
        lite.load()


def test_it_knows_a_cat_and_a_cup_of_coffee(tmp_path):
    pictures = {"chelsea.png": (285, 0.6), "coffee.png": (967, 0.8)}
    try:
        lite.load.cache_clear()
        lite.load()
        paths = [locate("test", "scikit-image>=0.26", f"skimage/data/{name}") for name in pictures]
    except RuntimeError as error:
        pytest.skip(str(error))
    judge = EfficientNetLite(side=224).fit("x", Image(224, 224, 3), data(tmp_path), "none")
    for path, (expected, least) in zip(paths, pictures.values(), strict=True):
        picture = np.asarray(PIL.Image.open(path), np.float32)[None] / 255
        logits = judge.outputs(picture)["logits"][0]
        assert logits.argmax() == expected and jax.nn.softmax(logits).max() > least
