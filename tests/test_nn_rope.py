"""Rotary positions, sinusoids of time and place: the reference's numbers, and what they are for."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import PRECISIONS, Case, assert_near, of_files, precise

from mmgen_jax.nn.embed import patch_positions
from mmgen_jax.nn.rope import axis_widths, place_features, rotate, tables, time_features

reads = of_files("rope")


def grid(*sizes):
    return patch_positions(sizes, (1,) * len(sizes), (1,) * len(sizes))


def reference_tables(case, kind):
    """The reference's tables hold every frequency twice, ours once."""
    theta = case.settings["theta"]
    if kind == "3d":
        width = case["3d/cos"].shape[-1]
        assert axis_widths(width, 3) == tuple(case["3d/axis_dims"])
        return tables(grid(*case["3d/grid"]), width, theta)
    positions = case["2d/ids"] if kind == "2d" else case[f"{kind}/pos"][:, None]
    widths = case.settings["axes_2d"] if kind == "2d" else [case.settings["dim_1d"]]
    of_axes = [tables(p[:, None], w, theta) for p, w in zip(positions.T, widths, strict=True)]
    return [np.concatenate(parts, axis=-1) for parts in zip(*of_axes, strict=True)]


@PRECISIONS
def test_tables_and_rotations_are_those_of_the_reference(golden_attention, precision):
    case = Case(golden_attention, precision)
    kinds = {key.split("/")[0] for key in case.arrays if key.endswith("/cos")}
    assert len(kinds) > 2
    with precise(precision):
        for kind in kinds:
            cos, sin = reference_tables(Case(golden_attention), kind)
            assert_near(np.repeat(cos, 2, axis=-1), Case(golden_attention)[f"{kind}/cos"], "float64")
            assert_near(np.repeat(sin, 2, axis=-1), Case(golden_attention)[f"{kind}/sin"], "float64")
            for pairs in ("interleaved", "split_half"):
                if f"{kind}/rotated_{pairs}" in case:
                    x = jnp.asarray(case[f"{kind}/x"]).swapaxes(1, 2)
                    ours = rotate(x, cos, sin, interleaved=pairs == "interleaved").swapaxes(1, 2)
                    assert_near(ours, case[f"{kind}/rotated_{pairs}"], precision)


@PRECISIONS
def test_features_are_those_of_the_reference(golden_attention, precision):
    case = Case(golden_attention, precision)
    with precise(precision):
        for key in case.under("timestep/dim"):
            width, flip, shift = map(int, re.fullmatch(r"(\d+)\.flip(\d)\.shift(\d)", key).groups())
            ours = time_features(case["timestep/t"], width, shift=shift, sin_first=not flip)
            # An angle of 999 is known to 3e-5 in float32.
            assert_near(ours, case[f"timestep/dim{key}"], precision, single=1e-4)
    for key in case.under("sincos2d/dim"):
        width, side = map(int, key.split(".grid"))
        assert_near(place_features(grid(side, side), width), Case(golden_attention)[f"sincos2d/dim{key}"], "float64")


def test_time_features_know_small_times():
    t = jnp.array([[0.0, 10.0]])
    expected = [-0.83907153, 0.54030231, 0.99500417, 0.99995, -0.54402111, 0.84147098, 0.09983342, 0.00999983]
    np.testing.assert_allclose(time_features(t, 8)[0, 1], expected, atol=1e-6)
    np.testing.assert_array_equal(time_features(t, 8)[0, 0], [1] * 4 + [0] * 4)


@pytest.mark.parametrize(("width", "expected"), [(128, (44, 42, 42)), (16, (8, 4, 4)), (64, (24, 20, 20))])
def test_three_axes_share_the_channels_as_published(width, expected):
    assert axis_widths(width, 3) == expected
    assert axis_widths(width, 2) == (width // 2, width // 2) and axis_widths(width, 1) == (width,)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_products_depend_on_differences_of_positions_only(axes, interleaved):
    q, k = (jax.random.normal(jax.random.key(i), (1, 6, 2, 16)) for i in range(2))
    positions = np.random.default_rng(0).normal(size=(6, axes)) * 20

    def products(moved):
        turned = (rotate(a, *tables(positions + moved, 16), interleaved=interleaved) for a in (q, k))
        return jnp.einsum("bthd,bshd->bhts", *turned)

    here, there = products(0.0), products(np.array([3.5, -40, 7])[:axes])
    np.testing.assert_allclose(here, there, atol=1e-4)
    assert jnp.abs(here - jnp.einsum("bthd,bshd->bhts", q, k)).max() > 0.1


def test_rotation_keeps_lengths_and_the_type():
    x = jax.random.normal(jax.random.key(0), (2, 6, 3, 16), jnp.bfloat16)
    turned = rotate(x, *tables(grid(2, 3), 16))
    assert turned.dtype == jnp.bfloat16
    norms = [jnp.linalg.norm(a.astype(jnp.float32), axis=-1) for a in (x, turned)]
    np.testing.assert_allclose(*norms, rtol=0.01)
