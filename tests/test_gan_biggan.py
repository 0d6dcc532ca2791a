"""BigGAN: the published sizes, what attention is, and that every block has noise of its own."""

import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.gan import GAN, BigGAN
from mmgen_jax.gan.networks.biggan import SelfAttention
from mmgen_jax.modalities import Image
from mmgen_jax.types import Batch

KEY = jax.random.key(0)


def count(params):
    return sum(x.size for x in jax.tree.leaves(params))


def test_the_published_numbers_of_parameters():
    """For 128 pixels and 1,000 classes 70,433,988 and 87,982,370, but for what is said in `biggan.py` not to be so."""
    form, shape, width, code = BigGAN(), (128, 128, 3), 96, 128
    assert form.noise(shape) == ((20,),) * 5
    noise = [jnp.zeros((1, *n)) for n in form.noise(shape)]
    generator = jax.eval_shape(form.generator(shape, width).init, KEY, jnp.zeros((1, code)), *noise)
    cells, embedding = 16 * 16 * width, 1000 * code
    norms = 2 * sum(a + b for a, b in ((16, 16), (16, 8), (8, 4), (4, 2), (2, 1))) * width
    # There the first layer sees 20 numbers of noise, scales and shifts have no biases, and the last norm has a shift.
    assert count(generator) - (code - 20) * cells + embedding - norms + width == 70_433_988
    critic = jax.eval_shape(form.critic(1, width).init, KEY, jnp.zeros((1, *shape)))
    last = 16 * width  # there the last shortcut has no weights, and there is a projection
    assert count(critic) - last * (last + 1) + 1000 * last == 87_982_370


def test_attention_begins_as_nothing_and_stands_at_one_size():
    x = jax.random.normal(KEY, (2, 3, 5, 16))
    y, params = jax.jit(SelfAttention().init_with_output)(KEY, x)
    np.testing.assert_array_equal(y, x)
    form = BigGAN(attention=200)
    spaces = {(32, 32): 2, (17, 64): 2, (128,): 1, (9,): 1, (5, 8): None, (4,): None, (): None}
    assert {space: form.attends(space) for space in spaces} == spaces
    assert BigGAN(attention=0).attends((64, 64)) is None
    params["params"]["gate"] = jnp.ones(())
    w = {name: np.asarray(part["kernel"]) for name, part in params["params"].items() if name != "gate"}
    assert {name: k.shape for name, k in w.items()} == {
        "query": (16, 2),
        "key": (16, 2),
        "value": (16, 8),
        "out": (8, 16),
    }

    def pooled(x):
        wide = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
        return wide.reshape(2, 2, 2, 3, 2, -1).max((2, 4)).reshape(2, 6, -1)

    scores = np.asarray(x).reshape(2, 15, 16) @ w["query"] @ pooled(x @ w["key"]).swapaxes(1, 2)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    wanted = x + (weights @ pooled(x @ w["value"]) @ w["out"]).reshape(x.shape)
    np.testing.assert_allclose(SelfAttention().apply(params, x), wanted, rtol=1e-3, atol=1e-4)


def test_every_block_has_noise_of_its_own():
    image = {"image": Image(9, 6, 1, features=4)}
    model = GAN(modalities=image, noise=4, own=2, width=8, networks=BigGAN(growth=2, chunk=3))
    params, stats = jax.jit(model.init)(KEY)
    variables = {"params": params, **stats}
    noise = model.drawn(KEY, 2)
    assert {name: z.shape for name, z in noise.items()} == {
        "": (2, 4), "image": (2, 2), "image/0": (2, 3), "image/1": (2, 3)
    }  # fmt: skip
    made = jax.jit(lambda noise: model.made(params["generator"], noise, nothing(model)))
    before = made(noise)["image"]
    for name in noise:
        other = made(noise | {name: -noise[name]})["image"]
        assert np.abs(np.asarray(other - before)).max() > 1e-5, name
    assert model.sample(variables, KEY, 1)["image"].shape == (1, 9, 6, 1)


def nothing(model):
    """Of which nothing is given."""
    values = {name: jnp.zeros((2, *m.shape), m.dtype) for name, m in model.modalities.items()}
    return Batch(values, {name: jnp.zeros(2, bool) for name in values})
