"""Every metric against stored numbers, closed forms, and what must not change it."""

import json
import tracemalloc

import numpy as np
import pytest

from mmgen_jax.evals import metrics
from mmgen_jax.evals.metrics import sliced, text
from mmgen_jax.evals.metrics.similarity import gaussian_window


def cases(file):
    return json.loads(str(file["meta"]))["cases"].items()


def features(n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def check_frechet_at_infinity(file):
    x, y, sizes = (file[f"fid_inf/{name}"] for name in ("x", "y", "N"))
    for n, value in zip(sizes, file["fid_inf/values"], strict=True):
        assert metrics.frechet_distance(x[:n], y) == pytest.approx(value, rel=1e-8)
    intercept = file["fid_inf/intercept"]
    np.testing.assert_allclose(metrics.frechet_at_infinity(x, y, [int(n) for n in sizes]), intercept, rtol=1e-8)


def check_class_score(file):
    for case, settings in cases(file):
        logits = file[settings["logits"]]
        if settings["shuffle"]:
            logits = logits[file[f"{case}/permutation"]]
        mean, deviation = metrics.class_score(logits, settings["splits"])
        np.testing.assert_allclose(mean, file[f"{case}/mean"], rtol=1e-10, err_msg=case)
        np.testing.assert_allclose(deviation, file[f"{case}/std"], rtol=1e-9, atol=1e-12, err_msg=case)


def check_kernel_distance(file):
    for case, settings in cases(file):
        x, y = file["x"], file["y"]
        if case in ("identical_sets", "full"):
            x, y = x[:50], (x[:50] if case == "identical_sets" else y)
        elif case == "same_distribution":
            x, y = file["same"], x[:50]
        elif case == "duplicated":
            x = file["duplicated/x"]
        if settings.get("kid_kernel") == "rbf":
            k = metrics.Gaussian(settings["kid_kernel_rbf_sigma"])
        else:
            k = metrics.Polynomial(
                settings.get("kid_kernel_poly_degree", 3),
                settings.get("kid_kernel_poly_gamma"),
                settings.get("kid_kernel_poly_coef0", 1.0),
            )
        subsets = list(zip(file[f"{case}/index_1"], file[f"{case}/index_2"], strict=True))
        mean, deviation = metrics.kernel_distance(x, y, k, subsets)
        np.testing.assert_allclose(mean, file[f"{case}/mean"], rtol=1e-9, atol=1e-12, err_msg=case)
        np.testing.assert_allclose(deviation, file[f"{case}/std"], rtol=1e-9, atol=1e-12, err_msg=case)
        if case == "full":
            np.testing.assert_allclose(metrics.kernel_distance(x, y, k)[0], mean, rtol=1e-10)


def check_neighbours(file):
    for case, _ in cases(file):
        made, real = file[f"{case}/fake"], file[f"{case}/real"]
        for key in (key for key in file.files if key.startswith(f"{case}/k")):
            k = int(key.split("/k")[1].split(".")[0])
            if key.endswith("improved"):
                found = list(metrics.precision_recall(made, real, k).values())
            else:
                edgeless = metrics.precision_recall(made, real, k, strict=True)
                found = [edgeless["precision"], edgeless["recall"], *metrics.density_coverage(made, real, k).values()]
            np.testing.assert_allclose(found, file[key], rtol=1e-6, atol=1e-9, err_msg=key)
    n, m, k = (int(x) for x in file["expected_coverage/N_M_k"])
    assert metrics.expected_coverage(n, m, k) == pytest.approx(float(file["expected_coverage/value"]), rel=1e-12)


def check_sliced(file):
    x, y, u, n = file["x"], file["y"], file["directions"], int(file["n_used"])
    np.testing.assert_allclose(sliced.sliced_power(x[:n], y[:n], u, 1), file["sw1"], rtol=1e-10)
    np.testing.assert_allclose(sliced.sliced_power(x[:n], y[:n], u, 2), file["sw2_squared"], rtol=1e-10)
    np.testing.assert_allclose(metrics.mind(x[:n], y[:n], u), file["mind"], rtol=1e-10)
    np.testing.assert_allclose(sliced.sliced_power(x, y, u, 1), file["sw1_unequal"], rtol=1e-10)
    shifted = metrics.mind(x + file["shift"], x, u)
    np.testing.assert_allclose(shifted, file["mind_shift_given_directions"], rtol=1e-9)


def check_patches_of_pyramids(file):
    settings = json.loads(str(file["meta"]))["settings"]["swd"]
    both = [file[f"swd/images_{i}"].transpose(0, 2, 3, 1) for i in (1, 2)]
    pyramids = [sliced.laplacian_pyramid(images, settings["levels"]) for images in both]
    for i, levels in enumerate(zip(*pyramids, strict=True)):
        first = file[f"swd/level{i}.pyramid_1_first"].transpose(1, 2, 0)
        np.testing.assert_allclose(levels[0][0], first, rtol=1e-10, atol=1e-10)
        size, channels = settings["patch"], first.shape[-1]
        cut = [
            sliced.patches(level, top, left, size)
            for level, top, left in zip(levels, file[f"swd/level{i}.top"], file[f"swd/level{i}.left"], strict=True)
        ]
        u = file[f"swd/level{i}.directions_unnormalised"].astype(
            np.float64
        )  # [repeats, directions, channels size size]
        u = u.reshape(-1, channels, size, size).transpose(0, 2, 3, 1).reshape(-1, channels * size * size)
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        np.testing.assert_allclose(1000 * sliced.sliced_power(*cut, u, 1), file["swd/values_x1000"][i], rtol=1e-9)


def check_similarity(file):
    x, y, large_x, large_y = (file[name].transpose(0, 2, 3, 1) for name in ("small/x", "small/y", "large/x", "large/y"))
    np.testing.assert_allclose(metrics.psnr(x, y, 255), file["small/psnr"], rtol=1e-10)
    # pytorch-msssim's window is rounded to float32, so that its sum is off by some 1e-8, its SSIM by 1e-5.
    np.testing.assert_allclose(metrics.ssim(x, y, 255), file["small/ssim_gauss_f64"], rtol=1e-10)
    np.testing.assert_allclose(metrics.ssim(x, y, 255), file["small/ssim_pytorch_msssim"], rtol=2e-5)
    uniform = metrics.ssim(x, y, 255, np.full(7, 1 / 7), unbiased=True)
    np.testing.assert_allclose(uniform, file["small/ssim_uniform7_skimage"], rtol=1e-10)
    three = metrics.ms_ssim(x, y, 255, gaussian_window(5), (0.3, 0.4, 0.3))
    np.testing.assert_allclose(three, file["small/ms_ssim_3scale_win5"], rtol=1e-5)
    five = metrics.ms_ssim(large_x, large_y, 255)
    np.testing.assert_allclose(five, file["large/ms_ssim_pytorch_msssim"], rtol=2e-5, atol=1e-9)


def check_texts(file):
    made, one, two = ([str(s) for s in file[name]] for name in ("hypotheses", "references", "references_2"))
    for found, key in (
        (text.bleu(made, one), "bleu_1ref/score"),
        (text.bleu(made, one, two), "bleu_2ref/score"),
        (text.bleu(made, one, smooth_method="none"), "bleu_nosmooth/score"),
        (text.bleu(made, one, smooth_method="add-k", smooth_value=1), "bleu_addk1/score"),
        (text.bleu(made, one, lowercase=True, tokenize="none"), "bleu_lower_notok/score"),
        (text.chrf(made, one), "chrf/score"),
        (text.chrf(made, one, words=2), "chrf++/score"),
        (text.word_error_rate(made, one), "wer/corpus"),
        (text.character_error_rate(made, one), "cer/corpus"),
    ):
        np.testing.assert_allclose(found, file[key], rtol=1e-9, err_msg=key)


def check_retrieval(file):
    assert metrics.alignment(file["a"], file["b"]) == pytest.approx(float(file["clip_score_mean_cos"]), rel=1e-12)
    assert metrics.recall_at(1, file["a"], file["b"]) == pytest.approx(float(file["recall_at_1_a_to_b"]), abs=1e-12)


CHECKS = {
    "fid": (check_frechet_at_infinity,),
    "inception_score": (check_class_score,),
    "kid": (check_kernel_distance,),
    "prdc": (check_neighbours,),
    "sliced": (check_sliced, check_patches_of_pyramids),
    "ssim": (check_similarity,),
    "text": (check_texts,),
    "contrastive": (check_retrieval,),
}


def reads(path):
    return path.stem in CHECKS


def test_golden(golden_metrics):
    for check in CHECKS[golden_metrics.stem]:
        check(np.load(golden_metrics))


def test_golden_embeddings(golden_gan):
    for check in CHECKS[golden_gan.stem]:
        check(np.load(golden_gan))


def test_parts_of_a_stream_merge_in_any_order():
    x = 1e6 + features(57, 5, 0)  # an offset at which E[xx'] - mean mean' has lost its digits
    whole = metrics.Moments.of(x)
    np.testing.assert_allclose(whole.covariance, np.cov(x.T), rtol=1e-9)
    a, b, c = (metrics.Moments.of(part) for part in (x[:1], x[1:30], x[30:]))
    empty = metrics.Moments.of(x[:0])
    for merged in (a.merged(b).merged(c), a.merged(b.merged(c)), c.merged(empty).merged(a).merged(b)):
        assert merged.n == 57
        np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-14)
        np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=1e-9)
    y = 1e6 + features(40, 5, 1)
    both = metrics.frechet_of_moments(a.merged(b).merged(c), metrics.Moments.of(y))
    assert both == pytest.approx(metrics.frechet_distance(x, y), rel=1e-9)


def test_blocks_change_nothing(monkeypatch):
    x, y = features(30, 4, 0), features(25, 4, 1)

    def values():
        return [
            *metrics.kernel_distance(x, y),
            *metrics.precision_recall(x, y).values(),
            *metrics.density_coverage(x, y).values(),
            metrics.recall_at(2, x[:25], y),
            metrics.copying(x, y, y[:9]),
            metrics.frechet_distance(x, y),
        ]

    whole = values()
    monkeypatch.setattr(metrics.tiles, "ROOM", 7 * 25)
    monkeypatch.setattr(metrics.tiles, "TILE", 4)
    monkeypatch.setattr(metrics.moments, "BLOCK", 8)
    np.testing.assert_allclose(values(), whole, rtol=1e-12)


@pytest.mark.parametrize(
    "metric",
    [
        metrics.kernel_distance,
        metrics.precision_recall,
        metrics.density_coverage,
        metrics.authentic,
        lambda x, y: metrics.recall_at(1, x, y),
    ],
)
def test_no_matrix_of_all_pairs_is_ever_in_memory(metric, monkeypatch):
    x, y = features(1500, 4, 0).astype(np.float32), features(1500, 4, 1).astype(np.float32)
    monkeypatch.setattr(metrics.tiles, "ROOM", 1500 * 50)
    monkeypatch.setattr(metrics.tiles, "TILE", 200)
    tracemalloc.start()
    metric(x, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 1500**2 / 5


def test_kernel_distance_is_right_on_average():
    # Gaussians of the same covariance: of a linear kernel x.y the distance is |mean_1 - mean_2|^2.
    rng, linear = np.random.default_rng(0), metrics.Polynomial(1, 1.0, 0.0)
    values = [
        metrics.kernel_distance(rng.normal(size=(9, 3)), rng.normal(size=(6, 3)) + 1, linear)[0] for _ in range(2000)
    ]
    assert abs(np.mean(values) - 3) < 5 * np.std(values) / 2000**0.5


def test_coverage_of_one_distribution_is_what_is_expected():
    rng = np.random.default_rng(0)
    found = [metrics.density_coverage(*rng.normal(size=(2, 60, 3)), k=5) for _ in range(200)]
    coverage = np.array([x["coverage"] for x in found])
    expected = metrics.expected_coverage(60, 60, 5)
    assert abs(coverage.mean() - expected) < 4 * coverage.std() / 200**0.5
    assert np.mean([x["density"] for x in found]) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("n", "m", "p"), [(7, 7, 1), (6, 4, 2), (1, 5, 1)])
def test_sliced_distance_on_a_line_is_optimal_transport(n, m, p):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 1)), rng.normal(size=(m, 1)) + 1
    often_x, often_y = np.sort(np.repeat(x, m)), np.sort(np.repeat(y, n))
    best = np.mean(np.abs(often_x - often_y) ** p)
    assert metrics.sliced_power(x, y, np.ones((1, 1)), p) == pytest.approx(best, rel=1e-12)


def test_pyramids_add_up_and_tell_pictures_apart():
    x = np.random.default_rng(0).random((5, 32, 20, 3))
    fine, coarse = sliced.laplacian_pyramid(x, 2)
    np.testing.assert_allclose(fine + sliced.enlarged(coarse, fine.shape), x, rtol=1e-12)
    distance = metrics.PyramidDistance(smallest=10, count=40, directions=30)
    near, far = distance(x, x[::-1], 0), distance(x, np.round(x), 0)
    assert len(near) == 2 and near[0] < far[0]


def test_vendi_score_counts():
    assert metrics.vendi_score(np.eye(6)) == pytest.approx(6)
    assert metrics.vendi_score(np.repeat(np.eye(3, 8), 4, axis=0)) == pytest.approx(3)
    assert metrics.vendi_score(np.ones((5, 2))) == pytest.approx(1)
    x = features(9, 4, 0)
    grown = np.concatenate([x, x])
    assert metrics.vendi_score(grown) == pytest.approx(metrics.vendi_score(x), rel=1e-9)


def test_texts():
    assert text.distinct(["a b a b", "a b"], 2) == pytest.approx(2 / 4)
    assert text.distinct(["a"], 2) == 0
    assert text.exact(["one", "two"], ["one", "three"]) == 0.5


def test_pictures_of_odd_and_small_sizes_have_scales():
    x = np.random.default_rng(0).random((2, 25, 47, 1))
    assert metrics.ms_ssim(x, x) == pytest.approx([1, 1])
    assert metrics.ssim(x, 1 - x).max() < 0
    tiny = x[:, :3, :4]
    assert metrics.ms_ssim(tiny, tiny) == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: metrics.kernel_distance(x, x[:, :2]), r"features must be \[n, d\] and \[m, d\]"),
        (lambda x: metrics.draw_subsets(5, 9, 2, 6, seed=0), r"size is 6, but must be in 2\.\.5"),
        (lambda x: metrics.precision_recall(x, x, 5), r"k is 5, but must be in 1\.\.4"),
        (lambda x: metrics.class_score(x, 6), r"splits is 6, but must be in 1\.\.5"),
        (lambda x: metrics.vendi_score(0 * x), "features must not be zero, but 5 of 5 are"),
        (lambda x: metrics.recall_at(0, x, x), r"k is 0, but must be in 1\.\.5"),
        (lambda x: metrics.frechet_at_infinity(x, x, [3, 9]), r"sizes is \[3, 9\], but must be at least two"),
        (lambda x: metrics.Moments.of(x[0]), r"features must be \[n, d\], not \[3\]"),
        (lambda x: metrics.Moments.of(x / 0), "features must be finite"),
        (
            lambda x: metrics.ssim(x[..., None, None], x[..., None, None], window=np.ones(4) / 4),
            "at least 4 pixels wide",
        ),
        (lambda x: text.library("no_such_library"), "text metrics need no_such_library"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_what_cannot_be_measured(call, message):
    with pytest.raises(ValueError, match=message):
        call(features(5, 3, 0))
