"""Error rates of sounds, by a recogniser that hears the loudness of each digit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evals_fakes import Model as Silent
from flax.core import FrozenDict

from mmgen_jax.evals import Transcripts
from mmgen_jax.evals.transcripts import plain
from mmgen_jax.modalities import Audio, Label, Text
from mmgen_jax.types import Batch, EvalData

KEY, WORDS = jax.random.key(0), ("one", "two", "three")
SOUND = Audio(64, rate=8000)
PARTS = FrozenDict({"sound": SOUND, "text": Text(length=16), "label": Label(3, names=WORDS)})


def hears(waves, rate):
    assert rate == 8000 and waves.shape[1:] == (64,)
    return [f"{WORDS[round(4 * float(wave.max())) - 1].upper()}." for wave in waves]


@dataclasses.dataclass(frozen=True)
class Speaks:
    """Says the class that it is given, but two in place of three; given a text, always one."""

    modalities: FrozenDict = PARTS

    def sample(self, variables, key, n, *, given, targets=None):
        said = jnp.where(given.present["label"], jnp.minimum(given.values["label"], 1), 0)
        return given.completed({"sound": jnp.ones((1, 64, 1)) * ((said + 1) / 4)[:, None, None]})


def world(tmp_path, n=30):
    classes = np.arange(n, dtype=np.int32) % 3
    sound = np.ones((1, 64, 1), np.float32) * ((classes + 1) / np.float32(4))[:, None, None]
    texts = np.stack([PARTS["text"].encode(f"It's {WORDS[c]}!") for c in classes])
    split = Batch({"sound": sound, "text": texts, "label": classes}, dict.fromkeys(PARTS, np.ones(n, bool)))
    return EvalData(split, split, tmp_path)


def test_words_are_compared_without_case_and_punctuation(tmp_path):
    assert plain(["It's  ONE, two!", ""]).tolist() == ["it's one two", ""]
    values = Transcripts(hears, spoken="label")(Speaks(), {}, world(tmp_path), KEY)
    ends = ("", "/low", "/high", "/real")
    pairs = ("label->sound", "text->sound")
    assert set(values) == {f"{rate}/{pair}{end}" for rate in ("wer", "cer") for pair in pairs for end in ends}
    assert values["wer/label->sound"] == pytest.approx(1 / 3)  # every three
    assert values["wer/text->sound"] == pytest.approx(2 / 3)  # all but one
    assert values["wer/label->sound/low"] < 1 / 3 < values["wer/label->sound/high"]
    assert values["wer/label->sound/real"] == 0
    assert values["cer/label->sound"] == pytest.approx(4 / 11)  # "two" for "three" is 4 of 3 + 3 + 5 letters
    by_text = Transcripts(hears, halves=0)(Speaks(), {}, world(tmp_path), KEY)
    assert by_text["wer/label->sound/real"] == pytest.approx(1 / 2)  # it never hears "it's"
    assert "wer/label->sound/low" not in by_text


def test_what_it_cannot_measure_is_refused():
    with pytest.raises(ValueError, match="needs a modality of sounds and 'text', but the model has"):
        Transcripts(hears).check(Silent())
    with pytest.raises(ValueError, match="sounds and 'words'"):
        Transcripts(hears, spoken="words").check(Speaks())
    for field, value in (("limit", 0), ("halves", 1)):
        with pytest.raises(ValueError, match=f"Transcripts: {field} must be"):
            Transcripts(hears, **{field: value})
