"""Quantisers against the numbers of a reference implementation, values, gradients and learning without gradients.

Every size and setting is read from the file; `--golden DIR` takes other files of the same format.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.tokens.fsq import FSQ
from mmgen_jax.tokens.quantizer import unit, usage
from mmgen_jax.tokens.residual import Residual
from mmgen_jax.tokens.vq import VQ


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def assert_close(actual, expected, name=""):
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9, err_msg=name)


def passed(quantizer, params, stats, z, cot):
    """The gradient of sum(codes * cot) by z."""
    return jax.grad(lambda z: jnp.sum(quantizer(params, stats, z).codes * cot))(z)


def check_fsq(file, meta):
    for name, case in meta["cases"].items():
        quantizer = FSQ(tuple(case["levels"]), symmetric=case["preserve_symmetry"])
        z = jnp.asarray(file[f"{name}/z"])
        q = quantizer({}, {}, z)
        assert quantizer.size == case["codebook_size"] and quantizer.width == z.shape[-1]
        assert_close(q.codes, file[f"{name}/codes"], name)
        np.testing.assert_array_equal(q.indices[..., 0], file[f"{name}/indices"], err_msg=name)
        assert_close(passed(quantizer, {}, {}, z, file[f"{name}/cot"]), file[f"{name}/dz"], name)
        assert_close(quantizer.codes({}, {}, q.indices), q.codes, name)
        probes = jnp.asarray(file[f"{name}/probe_indices"])[:, None]
        assert_close(quantizer.codes({}, {}, probes), file[f"{name}/probe_codes"], name)
        digits = probes // np.cumprod([1, *case["levels"][:-1]])[None] % np.array(case["levels"])[None]
        np.testing.assert_array_equal(digits, file[f"{name}/probe_level_indices"])


class Codebooks:
    """The vectors of a file, and quantisers with its settings and codebook."""

    def __init__(self, file, meta):
        self.file, s = file, meta["settings"]
        self.settings = {"size": s["codebook_size"], "width": s["dim"], "beta": s["commitment_weight"]}
        self.settings |= {"decay": s["decay"], "dead": s["threshold_ema_dead_code"]}
        self.z, self.second, self.codebook = (jnp.asarray(file[key]) for key in ("z", "z_second", "codebook"))
        self.all = np.ones(self.z.shape[:-1], bool)

    def ema(self, codebook=None):
        """The statistics before the first step."""
        codebook = self.codebook if codebook is None else codebook
        return {"count": jnp.ones(len(codebook)), "codebook": codebook, "sum": codebook}

    def check(self, name, quantizer, params, stats, z, used=None):
        """Codes and numbers where they are used, the mean error there, and both gradients by z."""
        used, file = self.all if used is None else used, self.file
        q = quantizer(params, stats, z)
        assert_close(jnp.where(used[..., None], q.codes, 0), file[f"{name}/quantized"], name)
        np.testing.assert_array_equal(jnp.where(used, q.indices[..., 0], -1), file[f"{name}/indices"], err_msg=name)
        cot = np.where(used[..., None], file["cot"], 0)
        assert_close(passed(quantizer, params, stats, z, cot), file[f"{name}/dz_ste"], name)

        def error(params, z):
            return jnp.sum(jnp.where(used, quantizer(params, stats, z).error, 0)) / used.sum()

        (by_params, by_z) = jax.grad(error, argnums=(0, 1))(params, z)
        return q, error(params, z), by_z, by_params

    def fixed(self, name, used=None, z=None, stats=None, **fields):
        """A codebook that no gradient learns; the statistics after the step."""
        quantizer, stats = VQ(**self.settings, **fields), self.ema() if stats is None else stats
        z, used = self.z if z is None else z, self.all if used is None else used
        q, error, by_z, _ = self.check(name, quantizer, {}, stats, z, used)
        assert_close(error, self.file[f"{name}/loss"], name)
        assert_close(by_z, self.file[f"{name}/dz_loss"], name)
        if f"{name}/cluster_size" in self.file:
            stats = quantizer.update({}, stats, z, q.indices, used, jax.random.key(0))
            names = {"count": "cluster_size", "sum": "embed_avg", "codebook": "codebook_after"}
            for ours, theirs in names.items():
                assert_close(stats[ours], self.file[f"{name}/{theirs}"], f"{name}: {theirs}")
        return stats


def check_vq(file, meta):
    books = Codebooks(file, meta)
    plain = VQ(**books.settings)
    q = plain({}, books.ema(), books.z)
    assert_close(q.codes, file["eval/quantized"])
    np.testing.assert_array_equal(q.indices[..., 0], file["eval/indices"])
    books.fixed("ste")
    books.fixed("rotation", rotation=True)
    books.fixed("ema2", z=books.second, stats=books.fixed("ema1"))
    books.fixed("ema1_masked", used=file["mask"])
    books.fixed("cosine", cosine=True)
    books.fixed("cosine_ema1", cosine=True, stats=books.ema(unit(books.codebook)))
    check_learned(books)
    check_residual(books)


def check_learned(books):
    """Of the two terms the reference has one, beta times; the original loss has both."""
    file, beta = books.file, books.settings["beta"]
    params, quantizer = {"codebook": books.codebook}, VQ(**books.settings, learned=True)
    q, error, by_z, by_params = books.check("learnable", quantizer, params, {}, books.z)
    assert_close(error * beta / (1 + beta), file["learnable/loss"])
    assert_close(by_z, file["learnable/dz_loss"])
    assert_close(beta * by_params["codebook"], file["learnable/dcodebook_loss"])
    assert_close(error, file["vqvae/loss"])
    assert_close(by_z, file["vqvae/dz"])
    assert_close(by_params["codebook"], file["vqvae/dcodebook"])
    assert_close(file["vqvae/codebook_loss"] + beta * file["vqvae/commitment_loss"], error)
    found = usage(q.indices[..., 0], books.all, len(books.codebook))
    assert_close(found["perplexity"], file["vqvae/perplexity"])
    assert_close(found["use"], file["vqvae/usage"])


def check_residual(books):
    file, quantizer = books.file, Residual(VQ(**books.settings), len(books.file["residual/codebooks"]))
    stats = {f"stage_{s}": books.ema(jnp.asarray(c)) for s, c in enumerate(file["residual/codebooks"])}
    params = dict.fromkeys(stats, {})
    q = quantizer(params, stats, books.z)
    assert_close(q.codes, file["residual/quantized"])
    assert_close(quantizer.codes(params, stats, q.indices), file["residual/quantized"])
    np.testing.assert_array_equal(q.indices, file["residual/indices"])
    assert_close(q.error.mean(), file["residual/loss"].sum())
    # The reference lets the gradient through once in every stage, we let it through once.
    by_z = passed(quantizer, params, stats, books.z, file["cot"])
    assert_close(quantizer.stages * by_z, file["residual/dz_ste"])


CHECKS = {"fsq": check_fsq, "vq": check_vq}


def reads(path):
    return path.stem in CHECKS


def test_reference_numbers(golden_tokens):
    with np.load(golden_tokens) as file:
        arrays = dict(file)
    CHECKS[golden_tokens.stem](arrays, json.loads(str(arrays.pop("meta"))))
