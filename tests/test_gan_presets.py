"""Games at published sizes: how many parameters their networks have, worked out without making any."""

import jax
import jax.numpy as jnp
import pytest

from mmgen_jax.gan import presets
from mmgen_jax.gan.networks import Noisy

KEY = jax.random.key(0)


def sizes(model):
    """Of the generator's network and of the critic's, with one output, as papers count."""
    (name, modality), code = next(iter(model.modalities.items())), jnp.zeros((1, model.noise + model.own))
    form, shape = model.architectures[name], modality.shape
    noise = [jnp.zeros((1, *n)) for n in (form.noise(shape) if isinstance(form, Noisy) else ())]
    generator, critic = form.generator(shape, modality.features), form.critic(1, modality.features)
    made = jax.eval_shape(generator.init, KEY, code, *noise), jax.eval_shape(critic.init, KEY, jnp.zeros((4, *shape)))
    return tuple(sum(x.size for x in jax.tree.leaves(params)) for params in made)


def test_stylegan2():
    assert sizes(presets.stylegan2()) == (24_767_458, 24_001_089)


def test_r3gan():
    """For FFHQ-256 23.1 and 23.0 million (configuration E of the paper's table)."""
    assert [round(n / 1e6, 1) for n in sizes(presets.r3gan(256))] == [23.1, 23.0]


def test_sngan():
    """Published code has 4,276,739 and 1,053,825: norms follow no code there, and only two shortcuts have weights."""
    generator, critic = sizes(presets.sngan())
    assert generator - 7 * 2 * 128 * 256 == 4_276_739
    assert critic - 2 * (128 * 128 + 128) == 1_053_825


def test_biggan():
    """As in `test_gan_biggan.py`, at 128; at 32 both are as wide as published, 256 at all sizes."""
    noise, norms = 128 - 20, 2 * sum(a + b for a, b in ((16, 16), (16, 8), (8, 4), (4, 2), (2, 1))) * 96
    generator, critic = sizes(presets.biggan())
    assert generator - noise * 16 * 16 * 96 + 1000 * 128 - norms + 96 == 70_433_988
    assert critic - 16 * 96 * (16 * 96 + 1) + 1000 * 16 * 96 == 87_982_370
    assert 4e6 < sizes(presets.biggan(32))[1] < sizes(presets.biggan(32))[0] < 1e7


def test_wavegan():
    """Kernels of 25 taps between 16 d, 8 d, ..., d = 64 and one channel, and a linear layer at 16 places; biases."""
    widths, places = [1, 64, 128, 256, 512, 1024], 16 * 1024
    kernels = sum(25 * a * b for a, b in zip(widths, widths[1:], strict=False))
    generator, critic = sizes(presets.wavegan())
    assert generator == kernels + sum(widths[:-1]) + 101 * places
    assert critic == kernels + sum(widths[1:]) + places + 1


def test_the_critic_of_patches():
    """pix2pix's, with the source's three channels beside the target's: 2.77 million: kernels 4 x 4, biases, norms."""
    widths = [6, 64, 128, 256, 512, 1]
    wanted = sum(16 * a * b + b for a, b in zip(widths, widths[1:], strict=False)) + 2 * sum(widths[2:5])
    critic = jax.eval_shape(presets.pix2pix().init, KEY)[0]["critic"]
    assert sum(x.size for x in jax.tree.leaves(critic)) == wanted == 2_769_601


@pytest.mark.parametrize("name", ["cyclegan", "spade"])
def test_every_translation_is_a_game(name):
    model = getattr(presets, name)()
    params, _ = jax.eval_shape(model.init, KEY)
    assert set(params["generator"]) == set(params["critic"]) == set(model.makes)


@pytest.mark.parametrize("name", ["dcgan", "sngan", "biggan", "stylegan2", "r3gan", "wavegan", "mocogan"])
def test_every_preset_is_a_game(name):
    model = getattr(presets, name)()
    params, _ = jax.eval_shape(model.init, KEY)
    assert set(params) == {"generator", "critic"}
    assert model == getattr(presets, name)() and len(model.modalities) == 1


@pytest.mark.parametrize("name", ["biggan", "stylegan2", "r3gan"])
def test_sides_that_were_not_published(name):
    with pytest.raises(ValueError, match="side is 48, but must be one of \\[32, 64, "):
        getattr(presets, name)(48)
