"""The Frechet distance between two sets of features, as if each were Gaussian (Dowson and Landau 1982).

    d^2 = |mu_1 - mu_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^(1/2)                                (1)

With centred features A [n_1, d], B [n_2, d] scaled so that S_1 = A'A and S_2 = B'B, the last trace is

    tr (S_1 S_2)^(1/2) = |A B'|_*,                        the sum of its singular values          (2)
                       = sum_i sqrt lambda_i (S_1^(1/2) S_2 S_1^(1/2))                            (3)

Both are real and never negative, unlike the square root of a product that is not symmetric. (3) is cheaper for many
examples; (2) is exact where there are fewer than dimensions and the covariances are singular.

It is not called FID: that name belongs to the features of one network trained on photographs (Heusel et al. 2017).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mmgen_jax.evals.features import Classifier
from mmgen_jax.evals.sampling import choose, generate
from mmgen_jax.rng import fold_name
from mmgen_jax.types import EvalData, Key, Model, Variables


@dataclasses.dataclass(frozen=True)
class Frechet:
    """Distance of unconditional samples from the test split, in features of a judge of the modality, by modality.

    Returns "frechet/image", and beside it "frechet/image/floor", the distance of as many training examples: what a
    perfect model would get. Modalities of whole numbers (texts, labels) have no such features and are left out.

    Attributes:
        label: whose classes the judges are trained to tell: a modality of the model, or a label of the experiment.
        limit: the number of samples, and of test and training examples they are compared with.
        judge: how judges are built and trained.
    """

    label: str = "label"
    limit: int = 1000
    judge: Classifier = Classifier()

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        rows = min(self.limit, len(data.test))
        made = generate(model, variables, fold_name(key, "frechet"), {}, rows)
        values = {}
        for name in made:
            if not np.issubdtype(model.modalities[name].dtype, np.floating):
                continue
            judge = self.judge.fit(name, model.modalities[name], data, self.label)
            test, train = (
                judge.features(split.values[name][choose(split, (name,), rows)]) for split in (data.test, data.train)
            )
            values[f"frechet/{name}"] = frechet_distance(judge.features(made[name]), test)
            values[f"frechet/{name}/floor"] = frechet_distance(train, test)
        return values


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Equation (1) of features x [n_1, d] and y [n_2, d], in float64; the covariances divide by n - 1.

    Raises:
        ValueError: fewer than two examples, features of different size, or values that are not finite.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"features must be [n, d] and [m, d] with n, m > 1, not {list(x.shape)} and {list(y.shape)}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("features must be finite, but some are NaN or infinite")
    a, b = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    if min(len(x), len(y)) <= x.shape[1]:
        root = np.linalg.norm(a @ b.T, "nuc")  # (2)
    else:
        root = trace_of_root(a.T @ a, b.T @ b)
    return float(np.sum((x.mean(0) - y.mean(0)) ** 2) + np.sum(a**2) + np.sum(b**2) - 2 * root)


def trace_of_root(cov1: np.ndarray, cov2: np.ndarray) -> float:
    """tr (S_1 S_2)^(1/2) by equation (3), of symmetric positive semi-definite matrices [d, d]."""
    values, vectors = np.linalg.eigh(cov1)
    half = vectors * np.sqrt(np.maximum(values, 0))  # S_1 = half half'; any root of S_1 gives the same eigenvalues
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(half.T @ cov2 @ half), 0)).sum())
