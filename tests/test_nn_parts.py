"""Decoding in parts: the same values and gradients as all at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.nn import conv, polymnist
from mmgen_jax.nn.parts import MANY

DECODERS = [
    conv.ConvDecoder((6, 5, 2), features=4),
    polymnist.ConvDecoder((8, 8, 1)),
    polymnist.ResNetDecoder((4, 4, 1), features=4),
]


@pytest.mark.parametrize(
    "decoder", DECODERS, ids=lambda d: f"{type(d).__module__.rpartition('.')[2]}-{type(d).__name__}"
)
def test_parts_change_no_value_and_no_gradient(decoder):
    rows = MANY + 3  # one part is not full
    z = jax.random.normal(jax.random.key(0), (rows, 3))
    params = decoder.lazy_init(jax.random.key(1), z[:1])
    assert jax.tree.structure(params) == jax.tree.structure(decoder.lazy_init(jax.random.key(1), z))

    def loss(method):
        return lambda p, z: jnp.square(decoder.apply(p, z, method=method)).mean()

    found, expected = (jax.jit(jax.value_and_grad(loss(m), argnums=(0, 1)))(params, z) for m in ("__call__", "whole"))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    jaxpr = str(jax.make_jaxpr(lambda z: decoder.apply(params, z))(z))
    assert "scan" in jaxpr  # on the CPU of this test
