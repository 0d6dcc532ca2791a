"""The autoencoder whose code is a small picture: of any size, each cell where it belongs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmgen_jax as mm
from mmgen_jax.nn.grid import GridDecoder, GridEncoder

SMALL = {"widths": (8, 16), "blocks": 1}


def strongest_quarter(changes):
    """Which quarter (row, column) of each [n, H, W, C] changes most."""
    n, height, width, _ = changes.shape
    quarters = np.abs(changes).reshape(n, 2, height // 2, 2, width // 2, -1).sum((2, 4, 5))
    return [np.unravel_index(quarter.argmax(), (2, 2)) for quarter in quarters]


def test_what_is_at_a_corner_is_at_that_corner_of_the_code_and_back():
    """Row by row, channels last; means and scales each by themselves."""
    encoder, decoder = GridEncoder(2, **SMALL, outputs=2 * 8 * 6 * 2), GridDecoder((16, 12, 1), **SMALL)
    quarters = [(0, 0), (0, 1), (1, 0), (1, 1)]
    x, z = np.zeros((5, 16, 12, 1), np.float32), np.zeros((5, 8, 6, 2), np.float32)
    for i, (row, column) in enumerate(quarters):  # the last stays empty
        x[i, row * 14 : row * 14 + 2, column * 10 : column * 10 + 2] = 3.0
        z[i, row * 7, column * 5] = 3.0
    code = jax.jit(encoder.init_with_output)(jax.random.key(0), x)[0]
    for part in jnp.split(code, 2, axis=-1):
        assert strongest_quarter((part[:4] - part[4:]).reshape(4, 8, 6, 2)) == quarters
    made = jax.jit(decoder.init_with_output)(jax.random.key(1), z.reshape(5, -1))[0]
    assert strongest_quarter(made[:4] - made[4:]) == quarters


@pytest.mark.parametrize(
    ("modality", "grid"),
    [
        (lambda e, d: mm.Image(7, 6, 3, likelihood=mm.Normal(None), encoder=e, decoder=d((7, 6, 6))), (4, 3, 3)),
        (lambda e, d: mm.Video(4, 5, 1, 1, encoder=e, decoder=d((4, 5, 1, 1))), (2, 3, 1, 3)),
    ],
)
def test_a_vae_with_a_grid_for_its_code(modality, grid):
    """For any size, dimension and likelihood; the mean is the first half, as the model reads it."""
    m = modality(GridEncoder(3, **SMALL), lambda shape: GridDecoder(shape, **SMALL))
    model = mm.VAE(modalities={"x": m}, latent=int(np.prod(grid)), objective=mm.vae.ELBO())
    params, _ = jax.jit(model.init)(jax.random.key(0))
    batch = mm.Batch({"x": np.random.default_rng(0).random((2, *m.shape), np.float32)}, {"x": np.ones(2, bool)})
    made = model.reconstruct({"params": params}, batch, jax.random.key(1))["x"]
    assert made.shape == (2, *m.shape) and np.ptp(made[0] - made[1]) > 0


def test_a_folded_grid_is_smaller_by_the_fold_and_back():
    """9 x 7 pixels become 5 x 4 cells, and one halving makes 3 x 2 of them; parts=1 leaves the scales out."""
    encoder, decoder = GridEncoder(2, **SMALL, fold=2, parts=1, outputs=12), GridDecoder((9, 7, 3), **SMALL, fold=2)
    code = jax.jit(encoder.init_with_output)(jax.random.key(0), jnp.ones((2, 9, 7, 3)))[0]
    assert code.shape == (2, 3 * 2 * 2)
    assert jax.jit(decoder.init_with_output)(jax.random.key(1), code)[0].shape == (2, 9, 7, 3)


def depends(function, x):
    """Which rows of function(x), [n, ...], depend on which rows of x [m, ...]: [n, m]."""
    slopes = jax.jacrev(lambda x: jax.vmap(jnp.sum)(function(x) ** 2))(x)
    return jnp.abs(slopes).sum(tuple(range(2, slopes.ndim))) > 0


def test_causal_codes_and_clips_do_not_look_ahead():
    """Four frames are one of the code: number j sees those before 4 (j + 1), frame t is made of numbers to t // 4.

    So the code of the first four, and what is made of it, is what it would be if there were no more frames.
    """
    fields = {"widths": (4, 6), "blocks": 1, "fold": 2, "causal": True}
    x, z = (jax.random.normal(jax.random.key(0), shape) for shape in ((7, 4, 5, 2), (2, 1, 2, 3)))
    encoder, decoder = GridEncoder(3, **fields, parts=1, outputs=z.size), GridDecoder(x.shape, **fields)

    def encode(params, x):
        frames = -(-len(x) // 4)
        return encoder.clone(outputs=frames * z[0].size).apply(params, x[None]).reshape(frames, *z.shape[1:])

    def decode(params, z, frames):
        return decoder.clone(shape=(frames, *x.shape[1:])).apply(params, z.reshape(1, -1))[0]

    @jax.jit
    def coded(x):
        params = encoder.init(jax.random.key(1), x[None])
        return depends(lambda x: encode(params, x), x), encode(params, x)[:1], encode(params, x[:4])

    @jax.jit
    def made(z):
        params = decoder.init(jax.random.key(2), z.reshape(1, -1))
        return depends(lambda z: decode(params, z, 7), z), decode(params, z, 7)[:4], decode(params, z[:1], 4)

    code, frame = np.arange(2), np.arange(7)
    (seen, *codes), (used, *clips) = coded(x), made(z)
    np.testing.assert_array_equal(seen, frame < 4 * (code[:, None] + 1))
    np.testing.assert_array_equal(used, code <= frame[:, None] // 4)
    np.testing.assert_allclose(*codes, atol=1e-5)
    np.testing.assert_allclose(*clips, atol=1e-5)


def test_codes_that_do_not_fit_a_grid_are_refused():
    x, key = jnp.zeros((1, 8, 8, 1)), jax.random.key(0)
    with pytest.raises(ValueError, match=r"the code has 16 numbers, but a grid of \(4, 4, 2\) has 32"):
        jax.eval_shape(GridEncoder(2, **SMALL, outputs=32).init, key, x)
    with pytest.raises(ValueError, match=r"a code of 9 numbers does not fill a grid of \(4, 4\) cells"):
        jax.eval_shape(GridDecoder((8, 8, 1), **SMALL).init, key, jnp.zeros((1, 9)))
    image = mm.Image(8, 8, 1, encoder=GridEncoder(2, **SMALL), decoder=GridDecoder((8, 8, 1), **SMALL))
    with pytest.raises(ValueError, match="the code has 33 numbers"):
        jax.eval_shape(mm.VAE(modalities={"image": image}, latent=33).init, key)
