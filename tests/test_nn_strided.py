"""Convolutions of any kernel and stride are those of the platform, and the transposes are transposes."""

import jax
import numpy as np
import pytest

from mmgen_jax.nn.strided import strided, transposed

CASES = [  # space, kernel, strides, before
    ((16,), (25,), (4,), (10,)),
    ((13,), (5,), (3,), (1,)),
    ((7, 8), (5, 5), (2, 2), (1, 1)),
    ((6, 1), (3, 1), (2, 1), (0, 0)),
    ((3, 5, 4), (3, 3, 3), (2, 2, 2), (1, 1, 0)),
]


@pytest.mark.parametrize("space, kernel, strides, before", CASES, ids=str)
def test_they_are_what_they_are_called(space, kernel, strides, before):
    d, out = len(space), tuple(-(-n // s) for n, s in zip(space, strides, strict=True))
    x, w, y = (
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate([(2, *space, 3), (*kernel, 3, 4), (2, *out, 4)])
    )
    after = [s * (m - 1) + k - n - b for n, s, b, m, k in zip(space, strides, before, out, kernel, strict=True)]
    letters = "DHW"[3 - d :]
    layout = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    padding = list(zip(before, after, strict=True))
    wanted = jax.lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=layout)
    found = jax.jit(lambda x, w: strided(x, w, strides, before))(x, w)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    back = jax.jit(lambda y, w: transposed(y, w.swapaxes(-1, -2), strides, before, space))(y, w)
    # <A x, y> = <x, A' y>, which is what a transpose is.
    np.testing.assert_allclose((found * y).sum(), (x * back).sum(), rtol=1e-3)
    (pulled,) = jax.vjp(lambda x: strided(x, w, strides, before), x)[1](y)
    np.testing.assert_allclose(back, pulled, rtol=1e-4, atol=1e-4)
