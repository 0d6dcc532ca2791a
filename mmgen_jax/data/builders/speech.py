"""The sound of a digit: its name in a synthetic voice, or its two tones on a telephone keypad.

espeak-ng (GPL-3, reached through the optional `espeakng-loader`) keeps hidden state between clips that no call resets:
a clip depends on those before it. All clips are therefore made by a process of their own, in one order from one seed,
and the same requests give the same bytes. That process runs this file as a script that needs numpy alone.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

RATE = 8_000  # Hz
SAMPLES = 8_000  # one second

ACCENTS = ("en-us", "en-gb-x-rp", "en-gb-scotland", "en")
VOICES = tuple("f1 f2 f3 f4 f5 m1 m2 m3 m4 m5 m7 Alex Annie Denis Jacky Mario Michael Reed adam anika belinda".split())
TEST_VOICES = tuple("m6 m8 david linda steph caleb edward2 Andrea".split())  # never heard in training

# Columns 1209, 1336, 1477 Hz and rows 697, 770, 852, 941 Hz of the keypad (ITU-T Q.23).
KEYPAD = [(941, 1336)] + [(low, high) for low in (697, 770, 852) for high in (1209, 1336, 1477)]


class Request(NamedTuple):
    """One clip to be spoken: `rate` in words a minute, `pitch` from 0 to 99."""

    word: str
    voice: str
    rate: int
    pitch: int


def installed() -> bool:
    """Whether there is a speech synthesiser."""
    return importlib.util.find_spec("espeakng_loader") is not None


def tones(digit: int, seconds: float) -> np.ndarray:
    """The two tones of a key for at most a second, faded in and out, [SAMPLES] float."""
    t = np.arange(int(seconds * RATE)) / RATE
    fade = np.minimum(1, np.minimum(t, t[::-1]) / 0.01)
    return centred(fade * sum(np.sin(2 * np.pi * f * t) for f in KEYPAD[digit]))


def speak(requests: Sequence[Request]) -> np.ndarray:
    """Clips [N, SAMPLES] float of the requests, the same for the same requests."""
    script = [sys.executable, "-P", str(Path(__file__))]
    done = subprocess.run(script, input=json.dumps(requests).encode(), capture_output=True)
    if done.returncode:
        raise RuntimeError(f"espeak-ng failed: {done.stderr.decode(errors='replace').strip()}")
    return np.frombuffer(done.stdout, np.float32).reshape(-1, SAMPLES)


def resample(clip: np.ndarray, rate: int) -> np.ndarray:
    """The clip at RATE below `rate`: its spectrum cut off at RATE / 2, so that nothing folds back."""
    common = math.gcd(rate, RATE)
    # Whole blocks of both rates, and one of silence, since the ends meet in a Fourier series.
    blocks = -(-len(clip) // (rate // common)) + 1
    spectrum = np.fft.rfft(clip, blocks * (rate // common))
    length = blocks * (RATE // common)
    return np.fft.irfft(spectrum[: length // 2 + 1], length) * (RATE / rate)


def centred(clip: np.ndarray) -> np.ndarray:
    """What is louder than a hundredth of the peak, in the middle of SAMPLES; the end of a longer one is cut."""
    loud = np.flatnonzero(np.abs(clip) > np.abs(clip).max() / 100)
    clip = clip[loud[0] : loud[-1] + 1][:SAMPLES]
    before = (SAMPLES - len(clip)) // 2
    return np.pad(clip, (before, SAMPLES - len(clip) - before))


def loudness(clip: np.ndarray, peak: float) -> np.ndarray:
    """The clip as int16, its loudest sample at `peak` of full scale."""
    return np.round(clip * (32767 * peak / np.abs(clip).max())).astype(np.int16)


class Engine:
    """espeak-ng through ctypes: `say` gives samples at 22,050 Hz."""

    SYNCHRONOUS, UTF8, RATE_PARAMETER, PITCH_PARAMETER = 2, 1, 1, 3
    CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

    def __init__(self) -> None:
        import espeakng_loader

        self.pieces: list[np.ndarray] = []
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        folder = Path(espeakng_loader.get_data_path()).parent
        self.rate = self.library.espeak_Initialize(self.SYNCHRONOUS, 0, str(folder).encode(), 0)
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # the breath in some voices is noise, seeded by the clock
        self.callback = self.CALLBACK(self._receive)  # kept: C holds no reference
        self.library.espeak_SetSynthCallback(self.callback)

    def _receive(self, samples: ctypes._Pointer, count: int, events: int) -> int:
        if samples and count > 0:
            self.pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, request: Request) -> np.ndarray:
        self.pieces.clear()
        if self.library.espeak_SetVoiceByName(request.voice.encode()):
            raise RuntimeError(f"espeak-ng has no voice {request.voice!r}.")
        self.library.espeak_SetParameter(self.RATE_PARAMETER, request.rate, 0)
        self.library.espeak_SetParameter(self.PITCH_PARAMETER, request.pitch, 0)
        text = request.word.encode()
        self.library.espeak_Synth(text, len(text) + 1, 0, 0, 0, self.UTF8, None, None)
        self.library.espeak_Synchronize()
        return np.concatenate(self.pieces)


def main() -> None:
    """Reads requests as JSON, writes their clips as raw float32 [N, SAMPLES]."""
    engine = Engine()
    for request in json.load(sys.stdin):
        clip = centred(resample(engine.say(Request(*request)), engine.rate))
        sys.stdout.buffer.write(clip.astype(np.float32).tobytes())


if __name__ == "__main__":
    main()
