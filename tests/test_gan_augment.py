"""Augmentation of what critics see: stored numbers, and that it changes what it should, alike."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from vae_cases import random_batch

from mmgen_jax.gan import ADA, DCGAN, GAN, DiffAugment
from mmgen_jax.gan.augment import Draws, brightness, changed, contrast, cutout, saturation, translation
from mmgen_jax.modalities import Image
from mmgen_jax.types import TrainState


def check_diffaugment(file):
    x = jnp.asarray(file["x"].transpose(0, 2, 3, 1))
    u = {name: jnp.asarray(file[f"u_{name}"].reshape(-1)) for name in ("brightness", "saturation", "contrast")}
    shift = tuple(jnp.asarray(file[f"shift_{axis}"]) for axis in ("rows", "cols"))
    centre = tuple(jnp.asarray(file[f"cutout_{axis}"]) for axis in ("row", "col"))
    arguments = {
        name: (function, u[name]) for name, function in zip(u, (brightness, saturation, contrast), strict=True)
    }
    arguments |= {"translation": (translation, shift), "cutout": (cutout, centre)}
    arguments["all"] = (changed, Draws(*u.values(), shift, centre))
    for name, (function, how) in arguments.items():
        found = jax.vmap(function)(x, how)
        np.testing.assert_allclose(found.transpose(0, 3, 1, 2), file[name], rtol=1e-5, atol=1e-6, err_msg=name)


def check_ada(file):
    batch, interval, kimg, target, p0 = (float(x) for x in file["ada/settings"])
    ada = ADA(target, int(interval), kimg)
    state = ada.start().replace(p=jnp.float32(p0))
    step = jax.jit(functools.partial(ada.after, batch=int(batch)))
    for logits, p in zip(file["ada/logits"], file["ada/p"], strict=True):
        for part in np.asarray(logits).reshape(int(interval), -1):
            state = step(state, part)
        np.testing.assert_allclose(state.p, p, rtol=1e-5, atol=1e-7)


CHECKS = {"diffaugment": check_diffaugment, "stylegan": check_ada}


def reads(path):
    return path.stem in CHECKS


def test_golden(golden_gan):
    with np.load(golden_gan) as file:
        CHECKS[golden_gan.stem](dict(file))


def test_a_clip_is_changed_alike_in_all_frames_and_a_sound_along_time_alone():
    augment = jax.jit(DiffAugment(("clip", "sound")))
    rng = np.random.default_rng(0)
    picture = rng.random((5, 1, 8, 6, 3)).astype(np.float32)
    sound = np.broadcast_to(rng.random((5, 1, 4)), (5, 16, 4)).astype(np.float32)
    example = {"clip": np.repeat(picture, 3, axis=1), "sound": sound, "label": np.eye(5, dtype=np.float32)}
    made = augment(jax.random.key(0), example)
    np.testing.assert_array_equal(made["label"], example["label"])
    np.testing.assert_allclose(made["clip"], np.repeat(made["clip"][:, :1], 3, axis=1), rtol=1e-5, atol=1e-6)
    assert np.abs(made["clip"] - example["clip"]).max(axis=(1, 2, 3, 4)).min() > 0.05
    there = np.abs(made["sound"]).max(-1) > 0  # a frame is there as a whole, or not at all
    for row, kept in zip(np.asarray(made["sound"]), there, strict=True):
        assert 0 < kept.sum() < 16
        np.testing.assert_allclose(row[kept], np.broadcast_to(row[kept][:1], row[kept].shape), rtol=1e-4, atol=1e-5)


def test_the_same_key_changes_alike_and_the_share_says_how_many():
    augment, x = jax.jit(DiffAugment(("image",))), {"image": np.full((200, 4, 4, 1), 0.5, np.float32)}
    one, two = (augment(jax.random.key(3), x)["image"] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    same = augment(jax.random.key(3), x, 0.25)["image"] == x["image"]
    assert same.all(axis=(1, 2, 3)).mean() == pytest.approx(0.75, abs=0.1)
    np.testing.assert_array_equal(augment(jax.random.key(3), x, 0.0)["image"], x["image"])


def test_a_step_of_the_game_shows_critics_what_is_changed_and_counts_how_sure_they_are():
    image = {"image": Image(8, 8, 1)}
    model = GAN(modalities=image, noise=4, own=2, width=8, networks=DCGAN(), penalties=())
    augmented = dataclasses.replace(model, augment=DiffAugment(("image",)), ada=ADA(interval=1, kimg=0.001))
    tx, batch, found = optax.sgd(1e-2), random_batch(image, 4), []
    for m in (model, augmented):
        state = jax.jit(functools.partial(TrainState.create, m, tx))(jax.random.key(0))
        found.append(jax.jit(functools.partial(m.step, tx))(state, batch, jax.random.key(1))[0])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, *(state.params for state in found))  # with p = 0 nothing is changed
    assert float(found[1].stats["ada"].p) in (0.0, 4.0)  # by 4 examples of 1: up or, at 0, not down
    with pytest.raises(ValueError, match="augment names 'sound', but must name some of"):
        dataclasses.replace(augmented, augment=DiffAugment(("sound",)))
    with pytest.raises(ValueError, match="ada is .*, but must be None without augment"):
        dataclasses.replace(augmented, augment=None)


def test_p_rises_while_the_critic_is_sure_and_falls_to_zero():
    ada, sure = ADA(interval=2, kimg=0.064), jnp.ones(8)
    state = ada.start()
    for _ in range(4):
        state = ada.after(state, sure, 8)
    assert float(state.p) == pytest.approx(2 * 8 * 2 / 64)
    for _ in range(10):
        state = ada.after(state, -sure, 8)
    assert float(state.p) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ADA(target=1.0), r"target is 1.0, but must be in \(-1, 1\)"),
        (lambda: ADA(interval=0), "interval is 0, but must be at least 1"),
        (lambda: ADA(kimg=0), "kimg is 0, but must be above 0"),
        (lambda: DiffAugment(("x",))(jax.random.key(0), {"x": jnp.zeros((2, 3))}), "must be a sound, picture or clip"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
