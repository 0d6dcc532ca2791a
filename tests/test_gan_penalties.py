"""Losses and penalties on critics of which everything is known, and what a lazy one amounts to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.gan import losses, penalties
from mmgen_jax.gan.penalties import DRAGAN, MAGP, R1, R2, WGANGP, Noise, ZeroGP
from mmgen_jax.gan.regularizers import Balanced, LeCam, Moments, PathLength, apart, near

RNG = np.random.default_rng(0)
W, A = RNG.normal(size=3).astype(np.float32), RNG.normal(size=(3, 3)).astype(np.float32)
A = A + A.T
X, Y = (RNG.normal(size=(5, 3)).astype(np.float32) for _ in range(2))
NOISE = Noise(jnp.asarray(RNG.uniform(size=5), jnp.float32), jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32))


def quadratic(x):
    """D(x) = w.x + x'Ax / 2, whose gradient is w + Ax."""
    return x @ W + 0.5 * jnp.einsum("bi,ij,bj->b", x, A, x)


def size(x):
    """|grad D|^2 of the quadratic critic."""
    return ((W + x @ A) ** 2).sum(1)


MIXED = np.asarray(NOISE.u)[:, None] * X + (1 - np.asarray(NOISE.u)[:, None]) * Y
CLOSED = {
    "r1": (R1(gamma=0.6), 0.3 * size(X)),
    "r2": (R2(gamma=0.6), 0.3 * size(Y)),
    "wgan_gp": (WGANGP(), 10 * (np.sqrt(size(MIXED)) - 1) ** 2),
    "one_sided": (WGANGP(one_sided=True), 10 * np.maximum(np.sqrt(size(MIXED)) - 1, 0) ** 2),
    "zero_gp": (ZeroGP(weight=3.0), 3 * size(MIXED)),
    "dragan": (DRAGAN(), 10 * (np.sqrt(size(X + 0.5 * X.std() * np.asarray(NOISE.e))) - 1) ** 2),
    "ma_gp": (MAGP(), 2 * size(X) ** 3),
}


@pytest.mark.parametrize("name", CLOSED)
def test_penalties_of_a_quadratic_critic(name):
    penalty, wanted = CLOSED[name]
    np.testing.assert_allclose(penalty(quadratic, X, Y, NOISE), wanted, rtol=2e-5)
    # An example of two parts has the gradients of both.
    parts = [{"a": x[:, :1], "b": x[:, 1:]} for x in (X, Y, NOISE.e)]
    if name != "dragan":  # the deviation is of each part
        both = penalty(lambda x: quadratic(jnp.hstack([x["a"], x["b"]])), *parts[:2], Noise(NOISE.u, parts[2]))
        np.testing.assert_allclose(both, wanted, rtol=2e-5)


def test_finite_differences_tend_to_the_exact_penalty():
    """Along e the quadratic critic rises by s (w + Ax).e + s^2 e'Ae / 2; on average over e its square is n."""
    e, s = np.asarray(NOISE.e), 0.1
    rise = ((W + X @ A) * e).sum(1) + s / 2 * np.einsum("bi,ij,bj->b", e, A, e)
    np.testing.assert_allclose(R1(gamma=2.0, sigma=s)(quadratic, X, Y, NOISE), rise**2, rtol=1e-4)
    many = jax.vmap(lambda k: R1(gamma=2.0, sigma=0.01)(quadratic, X, Y, k))(jax.random.split(jax.random.key(0), 20000))
    np.testing.assert_allclose(many.mean(0), size(X), rtol=0.05)


def test_penalties_move_the_critic_alone_and_are_finite_where_it_is_flat():
    def of(scale, made):
        return WGANGP()(lambda x: scale * quadratic(x), X, made, NOISE).mean()

    by_scale, by_made = jax.grad(of, (0, 1))(jnp.float32(1), jnp.asarray(Y))
    assert by_scale != 0 and not by_made.any()
    flat = jax.grad(lambda s: WGANGP()(lambda x: s * quadratic(x), X, Y, NOISE).mean())(jnp.float32(0))
    assert np.isfinite(flat)
    np.testing.assert_array_equal(WGANGP()(lambda x: 0 * x[:, 0], X, Y, NOISE), 10)


def test_slopes_are_float32_under_half_precision():
    half = R1()(lambda x: quadratic(x.astype(jnp.bfloat16).astype(jnp.float32)), X.astype(jnp.bfloat16), Y, NOISE)
    assert half.dtype == jnp.float32


def test_a_lazy_penalty_is_the_formula():
    taken = jax.jit(lambda i: penalties.taken(R1(every=4), i, lambda: R1()(quadratic, X, Y, NOISE), jnp.zeros(5)))
    values = np.stack([taken(i) for i in range(8)])
    np.testing.assert_allclose(values[[0, 4]], np.stack([4 * 0.5 * size(X)] * 2), rtol=1e-5)
    assert not values[[1, 2, 3, 5, 6, 7]].any()


def test_losses_that_do_not_pair_are_blind_to_order_and_wasserstein_is_a_difference_of_means():
    real, fake = quadratic(X), quadratic(Y)
    for loss in (losses.Minimax(), losses.NonSaturating(), losses.LeastSquares(), losses.Hinge(), losses.RaGAN()):
        np.testing.assert_allclose(loss.critic(real, fake).mean(), loss.critic(real, fake[::-1]).mean(), rtol=1e-6)
    np.testing.assert_allclose(losses.Wasserstein().critic(real, fake).mean(), fake.mean() - real.mean(), rtol=1e-6)
    pair = losses.RpGAN()
    np.testing.assert_allclose(pair.critic(real, fake), np.log1p(np.exp(fake - real)), rtol=1e-5)
    np.testing.assert_allclose(pair.critic(real, fake), pair.generator(fake, real), rtol=1e-6)
    np.testing.assert_allclose(pair.critic(real + 7, fake + 7), pair.critic(real, fake), rtol=1e-4)  # no level


def test_a_mean_over_those_that_are_there():
    there = jnp.array([True, False, True, False, False])
    real, fake = quadratic(X), quadratic(Y)
    few = losses.RaGAN().critic(real[there], fake[there])
    np.testing.assert_allclose(losses.RaGAN().critic(real, fake, losses.mean_of(there))[there], few, rtol=1e-6)
    assert losses.mean_of(jnp.zeros(5, bool))(real) == 0


def test_lecam_and_its_running_means():
    lecam, moments = LeCam(weight=2.0, decay=0.75), Moments(jnp.float32(1), jnp.float32(-1))
    real, fake = jnp.array([0.0, -3.0]), jnp.array([0.5, 4.0])
    np.testing.assert_allclose(lecam(real, fake, moments), [2 * (1 + 0.25), 0])
    after = lecam.update(moments, jnp.float32(3), jnp.float32(-3))
    np.testing.assert_allclose((after.real, after.fake), (1.5, -1.5))


def test_consistency_terms():
    double = Balanced(augment=lambda key, x: 2 * x, real=1.0, fake=3.0)
    linear = lambda x: x @ W  # noqa: E731
    np.testing.assert_allclose(double(linear, X, Y, jax.random.key(0)), (X @ W) ** 2 + 3 * (Y @ W) ** 2, rtol=1e-5)
    np.testing.assert_allclose(near(linear, X, Y, 5.0), 5 * ((X - Y) @ W) ** 2, rtol=1e-4)
    np.testing.assert_allclose(apart(X, Y, 0.5), -0.5 * ((X - Y) ** 2).mean(1), rtol=1e-6)


def test_path_lengths_of_a_linear_map():
    m = RNG.normal(size=(4, 6)).astype(np.float32)
    y = jnp.asarray(RNG.normal(size=(5, 3, 2)), jnp.float32)
    value, mean = PathLength(weight=3.0, decay=0.1)(lambda c: (c @ m).reshape(5, 3, 2), jnp.ones((5, 4)), y, 2.0)
    lengths = np.linalg.norm(np.asarray(y).reshape(5, 6) @ m.T / np.sqrt(3), axis=1)
    np.testing.assert_allclose(mean, 2 + 0.1 * (lengths.mean() - 2), rtol=1e-5)
    np.testing.assert_allclose(value, 3 * (lengths - mean) ** 2, rtol=1e-4)


@pytest.mark.parametrize(
    "make, field",
    [
        (lambda: R1(gamma=-1.0), "gamma"),
        (lambda: WGANGP(weight=-1.0), "weight"),
        (lambda: R2(every=0), "every"),
        (lambda: R1(sigma=0.0), "sigma"),
        (lambda: LeCam(decay=1.0), "decay"),
        (lambda: PathLength(every=0), "every"),
    ],
)
def test_fields_out_of_range(make, field):
    with pytest.raises(ValueError, match=field):
        make()
