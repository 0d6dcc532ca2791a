"""Sound: the spectrogram is the published one, it can be heard again, and recordings of all kinds are read."""

import io
import json
import wave
from pathlib import Path

import numpy as np
import pytest

from mmgen_jax.modalities import Audio
from mmgen_jax.modalities import spectrogram as sp


def tone(hz: float, samples: int = 8000, rate: int = 8000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(samples) / rate)


def write_wav(path: Path, pcm: np.ndarray, rate: int = 8000, width: int = 2) -> Path:
    """pcm [n] or [n, channels], whole numbers of `width` bytes."""
    shifted = pcm + 128 if width == 1 else pcm
    data = shifted.astype("<i4").reshape(-1, 1).view(np.uint8)[:, :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if pcm.ndim == 1 else pcm.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(data)
    return path


def loudest(x: np.ndarray, rate: int) -> float:
    """The frequency of most energy, Hz."""
    spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x))))
    return np.fft.rfftfreq(len(x), 1 / rate)[spectrum.argmax()]


def test_golden_logmel(golden_metrics: Path) -> None:
    if golden_metrics.stem != "logmel":
        pytest.skip("not about spectrograms")
    z = np.load(golden_metrics)
    s = json.loads(str(z["meta"]))["settings"]
    x = z["wave_int16"] / 32768
    mels = sp.mel_to_hz(np.linspace(0, sp.hz_to_mel(s["fmax"]), len(z["mel_to_hz.slaney"])))
    np.testing.assert_allclose(mels, z["mel_to_hz.slaney"], atol=1e-9)
    filters = sp.mel_filters(s["sr"], s["n_fft"], s["n_mels"])
    np.testing.assert_allclose(filters, z["filters.slaney"], atol=1e-12)
    magnitude = np.abs(sp.stft(x, s["n_fft"], s["hop"]))
    np.testing.assert_allclose(magnitude.T[:, :5], z["stft_abs_first5"], atol=1e-9)
    log_mel = sp.log_mel(x, s["sr"], s["n_fft"], s["hop"], s["n_mels"])
    np.testing.assert_allclose(log_mel.T, z["logmel.slaney.power1.center"], atol=1e-9)


def test_float32_stays_float32_and_means_the_same() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, 4000)
    single, double = (sp.log_mel(x.astype(dtype), 8000, 512, 128, 40) for dtype in (np.float32, np.float64))
    assert single.dtype == np.float32 and double.dtype == np.float64
    np.testing.assert_allclose(single, double, atol=1e-4)


def test_product_is_that_of_matrices() -> None:
    rng = np.random.default_rng(0)
    rows, matrix = rng.normal(size=(5, 7)), rng.normal(size=(7, 3))
    np.testing.assert_allclose(sp.product(rows, matrix), rows @ matrix, rtol=1e-12)


@pytest.mark.parametrize("samples, hop", [(1000, 64), (1001, 100), (3, 64), (1, 128)])
def test_istft_inverts_stft(samples: int, hop: int) -> None:
    x = np.random.default_rng(0).normal(size=samples)
    spectrum = sp.stft(x, 256, hop)
    assert spectrum.shape == (1 + samples // hop, 129)
    # What lies behind the last frame cannot come back.
    reached = min(samples, (len(spectrum) - 1) * hop + 100)
    np.testing.assert_allclose(sp.istft(spectrum, 256, hop, samples)[:reached], x[:reached], atol=1e-7)


def test_mel_scale_inverts() -> None:
    hz = np.linspace(0, 8000, 101)
    np.testing.assert_allclose(sp.mel_to_hz(sp.hz_to_mel(hz)), hz, atol=1e-9)


def decibels_lost(audio: Audio, sound: np.ndarray) -> float:
    """Mean difference of the mel bands of `sound` and of what is heard of it, down to 40 dB below the loudest."""
    x = audio.encode(sound)
    db = 3 * 20 / np.log(10)  # of one unit of the standardised logarithm
    return np.abs(audio.encode(audio.decode(x)) - x)[x > x.max() - 40 / db].mean() * db


@pytest.mark.parametrize("hz", [220.0, 1000.0, 3000.0])
def test_a_tone_keeps_its_frequency(hz: float) -> None:
    """To the band. A band does not say how narrow the sound in it was, so a pure tone comes back 1 to 4 dB weaker."""
    audio = Audio(8000, rate=8000, mels=40)
    heard = audio.decode(audio.encode(tone(hz)))
    edges = sp.mel_to_hz(np.linspace(0, sp.hz_to_mel(4000), 42))
    band = np.diff(edges)[np.searchsorted(edges, hz) - 1]
    assert loudest(heard, 8000) == pytest.approx(hz, abs=band)
    assert decibels_lost(audio, tone(hz)) < 2.5
    assert -4.5 < 20 * np.log10(np.std(heard) / np.std(tone(hz))) < 0


def test_a_changing_sound_keeps_its_spectrogram() -> None:
    """Harmonics gliding under a pulsing envelope, as voices do."""
    t = np.arange(8000) / 8000
    phase = 2 * np.pi * np.cumsum(150 + 60 * np.sin(5 * t)) / 8000
    voice = (np.sin(phase) + 0.5 * np.sin(3 * phase) + 0.2 * np.sin(9 * phase)) * (0.3 + 0.2 * np.sin(25 * t))
    assert decibels_lost(Audio(8000, rate=8000, mels=40), voice) < 1.5


def test_the_same_spectrogram_always_sounds_the_same() -> None:
    audio = Audio(800, rate=8000, mels=20)
    x = audio.encode(tone(440, 800))
    np.testing.assert_array_equal(audio.decode(x), audio.decode(x))


def test_standardisation_is_fixed() -> None:
    audio = Audio(800, rate=8000, mels=8)
    silence = audio.encode(np.zeros(800))
    np.testing.assert_allclose(silence, (np.log(1e-5) + 6) / 3, rtol=1e-6)
    np.testing.assert_array_equal(audio.decode(silence), 0)
    full = audio.encode(2 * tone(1000, 800)).max()
    assert 1 < full < 3


def test_integers_are_16_bit() -> None:
    audio = Audio(3)
    for dtype in (np.int16, np.int32, np.int64):  # int64 is what tensorflow-datasets hands out
        np.testing.assert_array_equal(audio.encode(np.array([-32768, 0, 16384], dtype))[:, 0], [-1, 0, 0.5])
    np.testing.assert_array_equal(audio.encode(np.array([[0.5], [-1], [0]], np.float16))[:, 0], [0.5, -1, 0])


def test_wav_keeps_every_16_bit_value() -> None:
    audio = Audio(65536)
    pcm = np.arange(-32768, 32768).astype(np.int16)
    with wave.open(io.BytesIO(audio.render(audio.encode(pcm)).data)) as file:
        np.testing.assert_array_equal(np.frombuffer(file.readframes(65536), "<i2"), pcm)


def test_short_is_followed_by_silence_and_long_keeps_its_middle() -> None:
    np.testing.assert_array_equal(Audio(5).encode([0.1, 0.2])[:, 0], np.float32([0.1, 0.2, 0, 0, 0]))
    np.testing.assert_array_equal(Audio(2).encode([0.1, 0.2, 0.3, 0.4, 0.5])[:, 0], np.float32([0.2, 0.3]))


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav_files_of_every_width(tmp_path: Path, width: int) -> None:
    top = 2 ** (8 * width - 1)
    path = write_wav(tmp_path / "a.wav", np.array([-top, 0, top // 2]), width=width)
    np.testing.assert_allclose(Audio(3, rate=8000).encode(path)[:, 0], [-1, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose(Audio(3, rate=8000).encode(str(path))[:, 0], [-1, 0, 0.5], atol=1e-6)


def test_wav_files_are_mixed_and_resampled(tmp_path: Path) -> None:
    stereo = np.stack([tone(500, 22050, 22050), np.zeros(22050)], axis=1)
    path = write_wav(tmp_path / "a.wav", np.round(stereo * 32767), rate=22050)
    heard = Audio(8000, rate=8000).encode(path)[:, 0]
    np.testing.assert_allclose(heard[100:-100], tone(500)[100:-100] / 2, atol=2e-3)


def test_positions_are_seconds() -> None:
    spectrogram = Audio(800, rate=8000, mels=8, hop=80, patch=1)
    np.testing.assert_allclose(spectrogram.positions()[:, 0], np.arange(11) * 0.01, rtol=1e-6)
    waveform = Audio(800, rate=8000, hop=80, patch=2)  # tokens of 160 samples, 20 ms
    np.testing.assert_allclose(np.diff(waveform.positions()[:, 0]), 0.02, rtol=1e-5)


RANGE = "Audio: samples must be 16-bit integers or floats in [-1, 1], not "


@pytest.mark.parametrize(
    "raw, sentence",
    [
        ([], "Audio: a recording must be an array [n] or [n, 1] with n > 0, not [0]."),
        (np.zeros((4, 2)), "Audio: a recording must be an array [n] or [n, 1] with n > 0, not [4, 2]."),
        (np.zeros(3, np.uint8), RANGE + "uint8."),
        ([True, False], RANGE + "bool."),
        ([0.0, -1.5], RANGE + "up to 1.5 times that."),
        ([0.0, np.nan], RANGE + "up to nan times that."),
        ([np.inf], RANGE + "up to inf times that."),
        ([65536], RANGE + "up to 2 times that."),
    ],
)
def test_errors(raw, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        Audio(4).encode(raw)
    assert str(caught.value) == sentence


def test_errors_of_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Audio(4).encode(tmp_path / "none.wav")
    path = tmp_path / "text.wav"
    path.write_text("no sound at all")
    with pytest.raises(ValueError, match=r"text\.wav is not a WAV file of whole numbers: "):
        Audio(4).encode(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"text\.wav is not a WAV file"):
        Audio(4).encode(path)
