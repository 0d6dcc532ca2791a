"""Arrays, pairing by label, the three ways in which parts go missing, and pictures in black and white."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmgen_jax.data import Arrays, Binarized, Missing, Paired, load
from mmgen_jax.modalities import Bernoulli, Image, Video
from mmgen_jax.types import Source

N = 4_000
SPOKEN = Path(__file__).parents[2] / "shared" / "data" / "spoken_digits.npz"


@dataclasses.dataclass(frozen=True)
class Counting:
    """N examples: `level` rises with the number, `label` is its last digit."""

    n: int = N

    def source(self, split: str) -> Source:
        number = np.arange(self.n)
        columns = {"level": number / self.n, "label": number % 10, "text": ["x" * (i % 50) for i in number]}
        return Arrays({"level": columns["level"], "label": columns["label"], "text": columns["text"]}, columns).source(
            split
        )


def there(source: Source, name: str) -> np.ndarray:
    return np.array([name in source[i] for i in range(len(source))])


def test_arrays_give_their_entries() -> None:
    data = Arrays({"image": np.arange(12).reshape(3, 4), "text": ["a", None, "c"]}, {"text": ["d"]})
    train, test = data.source("train"), data.source("test")
    assert len(train) == 3 and len(test) == 1
    np.testing.assert_array_equal(train[1]["image"], [4, 5, 6, 7])
    assert train[1]["text"] is None and test[0] == {"text": "d"}


def test_arrays_errors() -> None:
    with pytest.raises(ValueError, match="^Arrays: the columns of train differ in length: {'a': 2, 'b': 3}.$"):
        Arrays({"a": [1, 2], "b": [1, 2, 3]})
    with pytest.raises(ValueError, match="^Arrays: test was not given.$"):
        Arrays({"a": [1]}).source("test")
    with pytest.raises(ValueError, match='^Arrays: split must be "train" or "test", not \'valid\'.$'):
        Arrays({"a": [1]}).source("valid")


def pair(first: list[int], second: list[int], **how: Any) -> Source:
    left = Arrays({"image": list(range(len(first))), "label": first})
    right = Arrays({"audio": list(range(len(second))), "label": second})
    return Paired(left, right, **how).source("train")


def test_paired_examples_agree_on_the_label() -> None:
    first, second = list(np.arange(40) % 3), list(np.arange(30) % 3)
    source = pair(first, second)
    assert len(source) == 40
    for i in range(40):
        example = source[i]
        assert set(example) == {"image", "audio", "label"}
        assert example["image"] == i and example["label"] == first[i] == second[example["audio"]]


def test_paired_uses_every_example_of_the_second_as_often() -> None:
    source = pair([0] * 20, [0] * 8)
    counts = np.bincount([source[i]["audio"] for i in range(20)], minlength=8)
    assert set(counts) == {2, 3}


def test_paired_is_a_function_of_the_seed() -> None:
    def audio(seed: int) -> list[int]:
        source = pair([0, 1] * 20, [0, 1] * 20, seed=seed)
        return [source[i]["audio"] for i in range(40)]

    assert audio(0) == audio(0) != audio(1)


def test_paired_by_another_name() -> None:
    left, right = Arrays({"a": [7], "digit": [1]}), Arrays({"b": [8, 9], "digit": [0, 1]})
    assert Paired(left, right, by="digit").source("train")[0] == {"a": 7, "b": 9, "digit": 1}


def test_paired_errors() -> None:
    both = Arrays({"image": [0], "label": [0]})
    with pytest.raises(ValueError, match=r"""^Paired: only "label" may be in both data sets, but \['image'\] are.$"""):
        Paired(both, both).source("train")
    with pytest.raises(ValueError, match='^Paired: no example of the second data set has label 2 in "train".$'):
        pair([0, 2], [0, 1])
    with pytest.raises(ValueError, match='^Paired: example 0 has no "label".$'):
        Paired(Arrays({"audio": [0]}), both).source("train")


@pytest.mark.skipif(not SPOKEN.exists(), reason="the recordings of ../shared/data are not here")
def test_real_speech_pairs_with_pictures() -> None:
    file = np.load(SPOKEN, allow_pickle=False)
    pcm = file["pcm"]
    clips = [pcm[a:b] for a, b in zip(file["off"][:-1], file["off"][1:], strict=True)]
    speech = Arrays({"audio": clips, "label": file["y"]})
    source = Paired(Arrays({"image": np.zeros((50, 2)), "label": np.arange(50) % 10}), speech).source("train")
    heard = {clip.tobytes(): int(y) for clip, y in zip(clips, file["y"], strict=True)}
    assert all(heard[source[i]["audio"].tobytes()] == source[i]["label"] for i in range(50))


def test_missing_completely_at_random_depends_on_nothing() -> None:
    source = Missing(Counting(), {"level": 0.3, "text": 0.6}).source("train")
    gone = ~there(source, "level")
    number = np.arange(N)
    assert abs(gone.mean() - 0.3) < 0.03  # four standard deviations
    assert abs(there(source, "text").mean() - 0.4) < 0.03
    assert abs(np.corrcoef(gone, number)[0, 1]) < 0.06
    assert abs(np.corrcoef(gone, number % 10)[0, 1]) < 0.06
    assert abs(np.corrcoef(gone, there(source, "text"))[0, 1]) < 0.06
    assert there(source, "label").all()


def test_missing_by_label_depends_on_the_label_alone() -> None:
    source = Missing(Counting(), {"level": 0.3}, how="label").source("train")
    gone = ~there(source, "level")
    rates = gone.reshape(-1, 10).mean(0)
    np.testing.assert_allclose(rates, 0.3 * 2 * (np.arange(10) + 0.5) / 10, atol=0.1)
    assert abs(gone.mean() - 0.3) < 0.03
    within = [np.corrcoef(gone[k::10], np.arange(N)[k::10])[0, 1] for k in range(10)]
    assert np.abs(np.mean(within)) < 0.06


@pytest.mark.parametrize("name", ["level", "text"])
def test_missing_by_value_depends_on_what_is_taken(name: str) -> None:
    source = Missing(Counting(), {name: 0.3}, how="value").source("train")
    gone = ~there(source, name)
    size = np.arange(N) if name == "level" else np.arange(N) % 50
    quarter = gone[np.argsort(size, kind="stable")].reshape(4, -1).mean(1)
    np.testing.assert_allclose(quarter, 0.3 * 2 * (np.arange(4) + 0.5) / 4, atol=0.06)
    assert abs(gone.mean() - 0.3) < 0.03


def test_missing_by_value_treats_equal_values_alike() -> None:
    data = Arrays({"x": np.zeros(N), "label": np.zeros(N, int)})
    gone = ~there(Missing(data, {"x": 0.5}, how="value").source("train"), "x")
    halves = gone.reshape(2, -1).mean(1)
    np.testing.assert_allclose(halves, 0.5, atol=0.05)


def test_missing_is_the_same_every_time_and_another_with_another_seed() -> None:
    def gone(seed: int) -> np.ndarray:
        return there(Missing(Counting(200), {"text": 0.5}, seed=seed).source("train"), "text")

    np.testing.assert_array_equal(gone(0), gone(0))
    assert not np.array_equal(gone(0), gone(1))


def test_test_examples_stay_whole() -> None:
    source = Missing(Counting(100), {"text": 1.0}).source("test")
    assert there(source, "text").all()


def test_one_part_of_each_example_stays() -> None:
    source = Missing(Counting(100), {"level": 1.0, "text": 0.9, "label": 1.0}).source("train")
    assert all(list(source[i]) == ["text"] for i in range(100))
    data = Arrays({"a": [1, None], "b": [None, 2]})
    source = Missing(data, {"a": 1.0, "b": 1.0}).source("train")
    assert source[0] == {"a": 1} and source[1] == {"b": 2}


def test_missing_nests() -> None:
    inner = Missing(Counting(1_000), {"text": 0.5})
    source = Missing(inner, {"level": 0.5}, seed=1).source("train")
    assert abs((there(source, "text") | there(source, "level")).mean() - 0.75) < 0.06


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"rates": {"text": 1.5}}, r'Missing: rates\["text"\] must be in \[0, 1\], not 1.5.'),
        ({"rates": {"text": float("nan")}}, r'Missing: rates\["text"\] must be in \[0, 1\], not nan.'),
        ({"rates": {}, "how": "mcar"}, "Missing: how must be one of .*, not 'mcar'."),
        ({"rates": {}}, "Missing: rates names no modality."),
        ({"rates": {"label": 0.1}, "how": "label"}, 'Missing: "label" decides what is missing'),
    ],
)
def test_missing_field_errors(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + sentence):
        Missing(Counting(), **fields)


def test_missing_names_what_the_data_has() -> None:
    with pytest.raises(ValueError, match='^Missing: "image" is not in the data, which has level, label, text.$'):
        Missing(Counting(5), {"image": 0.5}).source("train")
    with pytest.raises(ValueError, match='^Missing: "digit" is not in the data'):
        Missing(Counting(5), {"text": 0.5}, how="label", by="digit").source("train")


def test_fields_are_plain() -> None:
    missing = Missing(Counting(5), {"text": 0.5})
    assert json.loads(json.dumps(dataclasses.asdict(missing)))["rates"] == {"text": 0.5}
    assert missing == Missing(Counting(5), {"text": 0.5})


GREYS = np.array([[[0], [127]], [[128], [255]]], np.uint8)


@pytest.mark.parametrize("value", [GREYS, (GREYS / 255).astype(np.float32), GREYS > 127])
def test_binarized_tells_bright_from_dark(value: np.ndarray) -> None:
    x = Binarized(Arrays({"image": [value]})).source("train")[0]["image"]
    assert x.dtype == bool
    np.testing.assert_array_equal(x, [[[0], [0]], [[1], [1]]])


def test_binarized_by_another_threshold_and_nothing_but_what_is_named() -> None:
    data = Arrays({"image": [GREYS, None], "other": [GREYS, GREYS]})
    source = Binarized(data, threshold=0.9).source("train")
    assert len(source) == 2 and source[1]["image"] is None
    assert source[0]["image"].sum() == 1 and source[0]["other"] is GREYS
    assert Binarized(data, threshold=0.0).source("train")[0]["image"].sum() == 3


def test_a_bernoulli_likelihood_takes_what_is_binarized() -> None:
    data = Arrays({"image": [GREYS], "video": [np.stack([GREYS, GREYS])]})
    modalities = {
        "image": Image(2, 2, 1, likelihood=Bernoulli()),
        "video": Video(2, 2, 2, 1, likelihood=Bernoulli()),
    }
    with pytest.raises(ValueError, match="needs values of 0 or 1 only"):
        load(data.source("train"), modalities)
    loaded = load(Binarized(data, ("image", "video")).source("train"), modalities)
    np.testing.assert_array_equal(loaded.values["image"][0, ..., 0], [[0, 0], [1, 1]])
    assert loaded.values["video"].sum() == 4


def test_binarized_of_parts_that_go_missing() -> None:
    thinned = Missing(Arrays({"image": [GREYS] * 50, "label": list(range(50))}), {"image": 0.9})
    source = Binarized(thinned).source("train")
    np.testing.assert_array_equal(there(source, "image"), there(thinned.source("train"), "image"))
    assert not there(source, "image")[0]  # a name is looked for beyond the first example


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"names": "image"}, "Binarized: names must be a tuple of modalities, not 'image'."),
        ({"names": ()}, r"Binarized: names must be a tuple of modalities, not \(\)."),
        ({"threshold": 1.0}, r"Binarized: threshold must be in \[0, 1\), not 1.0."),
        ({"threshold": float("nan")}, r"Binarized: threshold must be in \[0, 1\), not nan."),
    ],
)
def test_binarized_field_errors(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        Binarized(Counting(2), **fields)


def test_binarized_names_what_the_data_has_and_refuses_what_has_no_brightness() -> None:
    with pytest.raises(ValueError, match='^Binarized: "image" is not in the data, which has level, label, text.$'):
        Binarized(Counting(5)).source("train")
    with pytest.raises(ValueError, match='^"text": Binarized takes arrays of uint8, floats or bool, not <U1.$'):
        Binarized(Counting(5), ("text",)).source("train")[1]
