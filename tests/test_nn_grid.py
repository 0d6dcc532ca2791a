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


def test_codes_that_do_not_fit_a_grid_are_refused():
    x, key = jnp.zeros((1, 8, 8, 1)), jax.random.key(0)
    with pytest.raises(ValueError, match=r"the code has 16 numbers, but a grid of \(4, 4, 2\) has 32"):
        jax.eval_shape(GridEncoder(2, **SMALL, outputs=32).init, key, x)
    with pytest.raises(ValueError, match=r"a code of 9 numbers does not fill a grid of \(4, 4\) cells"):
        jax.eval_shape(GridDecoder((8, 8, 1), **SMALL).init, key, jnp.zeros((1, 9)))
    image = mm.Image(8, 8, 1, encoder=GridEncoder(2, **SMALL), decoder=GridDecoder((8, 8, 1), **SMALL))
    with pytest.raises(ValueError, match="the code has 33 numbers"):
        jax.eval_shape(mm.VAE(modalities={"image": image}, latent=33).init, key)
