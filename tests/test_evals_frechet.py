"""The Frechet distance against stored numbers of four routes, closed forms, and what must not change it."""

import json

import numpy as np
import pytest

from mmgen_jax.evals.metrics.frechet import frechet_distance, trace_of_root


def reads(path):
    return path.stem == "fid"


def test_golden_feature_sets(golden_metrics):
    file = np.load(golden_metrics)
    cases = [name for name, case in json.loads(str(file["meta"]))["cases"].items() if "spread_of_routes" in case]
    assert len(cases) == 10
    for case in cases:
        distance = frechet_distance(file[f"{case}/x"], file[f"{case}/y"])
        np.testing.assert_allclose(distance, file[f"{case}/fid_nuclear"], rtol=1e-11, atol=1e-11, err_msg=case)
        # The other routes lose digits where a covariance is singular.
        np.testing.assert_allclose(distance, file[f"{case}/fid_torch_fidelity"], rtol=1e-7, atol=1e-11, err_msg=case)


def test_golden_gaussians(golden_metrics):
    file = np.load(golden_metrics)
    for case in ("gauss_random", "gauss_commuting", "gauss_rank_deficient", "gauss_1d"):
        mu1, mu2, cov1, cov2 = (file[f"{case}/{name}"] for name in ("mu1", "mu2", "cov1", "cov2"))
        root = trace_of_root(cov1, cov2)
        distance = np.sum((mu1 - mu2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2 * root
        np.testing.assert_allclose(distance, file[f"{case}/fid"], rtol=1e-7, err_msg=case)
        np.testing.assert_allclose(trace_of_root(cov2, cov1), root, rtol=1e-7)


def features(n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def test_closed_form_of_axis_aligned_gaussians():
    # Standardised features scaled by s and moved by m are an exact Gaussian of covariance diag(s^2):
    # d^2 = |m_1 - m_2|^2 + |s_1 - s_2|^2.
    white = features(200, 4, 0)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(white.T)), (white - white.mean(0)).T).T
    s1, s2, m1, m2 = np.random.default_rng(1).uniform(0.1, 3, (4, 4))
    distance = frechet_distance(white * s1 + m1, white * s2 + m2)
    np.testing.assert_allclose(distance, np.sum((m1 - m2) ** 2) + np.sum((s1 - s2) ** 2), rtol=1e-10)


@pytest.mark.parametrize(("n", "m"), [(90, 70), (9, 70), (9, 8)])
def test_symmetry_rotation_order_shift_and_scale(n, m):
    x, y = features(n, 12, 0), features(m, 12, 1)
    distance = frechet_distance(x, y)
    assert distance > 1
    rotation = np.linalg.qr(features(12, 12, 2))[0]
    for same in (
        frechet_distance(y, x),
        frechet_distance(x[::-1], y),
        frechet_distance(x @ rotation, y @ rotation),
        frechet_distance(x + 100, y + 100),
        frechet_distance(3 * x, 3 * y) / 9,
    ):
        np.testing.assert_allclose(same, distance, rtol=1e-6)


def test_the_two_routes_agree_where_both_are_used():
    x, y = features(40, 12, 0), features(40, 12, 1)
    # Zeros beside the features change nothing but the route: 41 dimensions are more than the examples.
    wide = [np.pad(z, ((0, 0), (0, 29))) for z in (x, y)]
    np.testing.assert_allclose(frechet_distance(*wide), frechet_distance(x, y), rtol=1e-10)


def test_nothing_between_a_set_and_itself():
    x = features(50, 6, 0)
    assert abs(frechet_distance(x, x)) < 1e-9
    assert frechet_distance(x, x + 0.5) == pytest.approx(6 * 0.25)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "n, m > 1"),
        (np.zeros((5, 3)), np.zeros((5, 4)), r"not \[5, 3\] and \[5, 4\]"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "finite"),
    ],
)
def test_bad_features(x, y, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(x, y)
