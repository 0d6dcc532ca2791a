"""Made-up streets: the same every time, every part known, and night is day but for what is lit."""

import numpy as np
import pytest

from mmgen_jax.data import Paired, Streets, load
from mmgen_jax.data.builders import streets
from mmgen_jax.modalities import Image, LabelMap


def test_scenes_follow_from_their_number_and_split():
    data = Streets(side=32, train=5, test=3)
    train, test = data.source("train"), data.source("test")
    assert (len(train), len(test)) == (5, 3)
    for a, b in zip(train[4].values(), Streets(side=32, train=5).source("train")[-1].values(), strict=True):
        np.testing.assert_array_equal(a, b)
    for other in (train[0], test[4 - 2], Streets(side=32, train=5, seed=1).source("train")[4]):
        assert np.any(other["photo"] != train[4]["photo"])
    with pytest.raises(IndexError):
        train[5]


def test_what_is_where_is_what_is_seen():
    source, seen = Streets().source("train"), np.zeros(5, int)
    for i in range(20):
        example = source[i]
        cut, photo, night = example["map"], example["photo"].astype(float), example["night"].astype(float)
        seen += np.bincount(cut.ravel(), minlength=5) > 0
        rows = np.indices(cut.shape)[0]
        ground = rows[np.isin(cut, (streets.ROAD, streets.PAVEMENT))].min()
        for kind in (streets.SKY, streets.HOUSE):
            assert rows[cut == kind].max() < ground
        assert (rows[cut == streets.CAR] > ground - 16).all()
        sky, road = photo[cut == streets.SKY], photo[cut == streets.ROAD]
        assert sky.mean() > road.mean() + 40 and np.ptp(road, axis=1).max() < 30  # bright and blue over grey
        lit = night.sum(-1) > photo.sum(-1)
        assert (cut[lit] == streets.HOUSE).all() and night[~lit].mean() < 0.35 * photo[~lit].mean()
    assert (seen[:4] == 20).all() and 5 < seen[streets.CAR] < 20


def test_days_with_the_nights_of_other_streets():
    """What translation without pairs is trained on."""
    days, nights = (Streets(32, (part,), train=6, seed=seed) for seed, part in enumerate(("photo", "night")))
    both = Paired(days, nights, by=None)
    batch = load(both.source("train"), {"photo": Image(32, 32), "night": Image(32, 32)})
    one, other = days.source("train"), nights.source("train")
    order = [int(np.argmin([np.abs(x - o["night"] / 255).max() for o in other])) for x in batch.values["night"]]
    assert sorted(order) == list(range(6)) and order != list(range(6))
    np.testing.assert_allclose(batch.values["photo"][3], one[3]["photo"] / 255, atol=1e-6)


def test_a_map_is_encoded_as_it_is():
    example = Streets(16).source("test")[0]
    np.testing.assert_array_equal(LabelMap(16, 16, 5).encode(example["map"]), example["map"])


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(side=7), "side must be an integer of at least 8, not 7"),
        (dict(train=0), "train must be an integer of at least 1, not 0"),
        (dict(parts=("dusk",)), "parts must be some of .*, not \\('dusk',\\)"),
        (dict(parts=()), "parts must be some of"),
    ],
)
def test_fields_out_of_range(fields, message):
    with pytest.raises(ValueError, match=message):
        Streets(**fields)
