"""Networks that hear: files of ONNX, published sizes, spectrograms by closed forms, and what the speech embedding says.

The numbers of the embedding are those that onnxruntime gives for the same files and the same tone.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evals_fakes import MODALITIES, data

from mmgen_jax.evals import SpeechEmbedding, VGGish, speech, vggish
from mmgen_jax.evals.onnx_file import read_onnx
from mmgen_jax.evals.pretrained import shapes
from mmgen_jax.evals.sounds import heard
from mmgen_jax.modalities import Audio


def field(number, content):
    if isinstance(content, int):
        return bytes([number << 3]) + varint(content)
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def varint(value):
    parts = [value >> shift & 127 for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([*(part | 128 for part in parts[:-1]), parts[-1]])


def onnx(name, x, packed):
    sizes = field(1, b"".join(map(varint, x.shape))) if packed else b"".join(field(1, n) for n in x.shape)
    kind = {"float32": 1, "int64": 7}[x.dtype.name]
    content = sizes + field(2, kind) + field(8, name.encode()) + field(9, x.tobytes())
    return field(7, field(2, b"a graph") + field(5, content))


@pytest.mark.parametrize("packed", [True, False])
def test_arrays_are_read(tmp_path, packed):
    x = np.arange(300, dtype=np.float32).reshape(150, 2)
    content = field(1, 8) + bytes([9 << 3 | 5]) + bytes(4) + onnx("é", x, packed) + onnx("b", np.array([-7]), packed)
    (tmp_path / "a.onnx").write_bytes(content)
    found = read_onnx(tmp_path / "a.onnx")
    assert list(found) == ["é", "b"]
    np.testing.assert_array_equal(found["é"], x)
    np.testing.assert_array_equal(found["b"], [-7])


@pytest.mark.parametrize("content", [b"\x3a\x05ab", b"\x80", b"\x3b", onnx("a", np.ones(3, np.float32), True)[:-9]])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(ValueError, match="is not a readable ONNX file"):
        read_onnx(tmp_path / "a.onnx")


def test_sizes_as_published():
    wanted = shapes(vggish.network, jax.ShapeDtypeStruct((1, 96, 64, 1), jnp.float32))
    assert sum(map(math.prod, wanted.values())) == 72_141_184
    weights = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in wanted.items()}
    found = jax.eval_shape(vggish.look, weights, jax.ShapeDtypeStruct((3, 40_000), jnp.float32))
    assert found["features"].shape == (3, 128)
    wanted = shapes(speech.network, jax.ShapeDtypeStruct((1, speech.SHORTEST), jnp.float32))
    assert sum(name.startswith("model") for name in wanted) == 2 * 19 + 1 and wanted["1.melW"] == (257, 32)

    def times(samples):
        waves = jax.ShapeDtypeStruct((2, samples), jnp.float32)
        return jax.eval_shape(lambda waves: speech.network(lambda name, *shape: jnp.zeros(shape), waves), waves).shape

    assert times(speech.SHORTEST) == (2, 1, 96) and speech.SHORTEST == 12_512
    assert times(speech.SHORTEST + 8 * 160) == (2, 2, 96)  # another one every 80 ms


def test_the_bands_of_vggish():
    bands = vggish.bands()
    assert bands.shape == (257, 64) and not bands[:4].any() and not bands[241:].any()  # 125 Hz is 4, 7500 Hz is 240
    inside = bands[6:200].sum(1)  # triangles side by side sum to one
    np.testing.assert_allclose(inside, 1, rtol=1e-9)
    assert bands.argmax(0).tolist() == sorted(bands.argmax(0))
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)[None]
    found = np.asarray(vggish.spectrogram(tone))[0]
    assert found.shape == (98, 64)
    n = np.arange(400)
    seen = tone[0, :400] * np.sin(np.pi * n / 400) ** 2
    size = np.abs(np.exp(-2j * np.pi * np.arange(257)[:, None] * n[None] / 512) @ seen)
    np.testing.assert_allclose(found[0], np.log(size @ bands + 0.01), atol=1e-3)
    assert (found.argmax(1) == bands[32].argmax()).all()
    np.testing.assert_allclose(vggish.spectrogram(0 * tone), np.log(0.01), rtol=1e-6)


def test_sounds_are_heard_at_another_rate():
    audio = Audio(800, rate=8000)
    x = audio.encode(np.sin(2 * np.pi * 440 * np.arange(800) / 8000).astype(np.float32))[None]
    found = heard(audio, x, 16_000)
    assert found.shape == (1, 1600) and found.dtype == np.float32
    expected = np.sin(2 * np.pi * 440 * np.arange(1600) / 16_000)
    np.testing.assert_allclose(found[0, 100:-100], expected[100:-100], atol=0.02)
    np.testing.assert_array_equal(heard(audio, x, 8000)[0], x[0, :, 0])


def test_what_does_not_fit_is_refused(tmp_path):
    for extractor, name in ((SpeechEmbedding(), "SpeechEmbedding"), (VGGish("w.npz"), "VGGish")):
        with pytest.raises(ValueError, match=f"{name} listens to sounds, but 'text' is"):
            extractor.fit("text", MODALITIES["text"], data(tmp_path), "")
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="VGGish: the file has no features.0.weight"):
        VGGish(str(tmp_path / "w.npz")).fit("sound", Audio(800, rate=8000), data(tmp_path), "")


TONE = 8000 / 32768 * np.sin(2 * np.pi * 440 * np.arange(12_512) / 16_000 * (1 + np.arange(12_512) / 16_000))
FIRST = [-1.9985, 20.5749, -9.6796, -9.8577, 15.2637, 15.5334]


@pytest.fixture(scope="module")
def installed():
    try:
        return speech.load()
    except RuntimeError as error:
        pytest.skip(str(error))


def test_the_speech_embedding_of_a_tone(installed, tmp_path):
    audio = Audio(12_512, rate=16_000)
    judge = SpeechEmbedding().fit("sound", audio, data(tmp_path), "")
    found = judge.features(audio.encode(TONE.astype(np.float32))[None])
    assert found.shape == (1, 96)
    np.testing.assert_allclose(found[0, :6], FIRST, rtol=2e-3, atol=2e-2)
    assert len(list(tmp_path.glob("sound-speech-embedding-*.json"))) == 1
