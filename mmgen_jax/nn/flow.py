"""The masked autoregressive flow (Papamakarios et al. 2017, arXiv:1705.07057).

An invertible map between a code z and a variable u that is easy to draw, made of blocks

    u_i = (z_i - mu_i(z_<i)) exp(-a_i(z_<i)),    log |det du/dz| = -sum_i a_i      (1)
    z_i = mu_i(z_<i) + u_i exp(a_i(z_<i)),       i = 0, ..., D - 1                 (2)

each followed by a reversal of the order of the dimensions, so that the next block sees the last ones first. mu and a
of all dimensions come from one ReLU network that is autoregressive by masks (MADE, Germain et al. 2015,
arXiv:1502.03509): input and output i have degree i, hidden unit j has degree j mod (D - 1), and

    a hidden unit sees what has at most its degree, an output the units of a lower degree      (3)

Densities are one pass of (1); draws are D passes of (2).
"""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mmgen_jax.types import Array, Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedFlow:
    """A stack of blocks (1). Parameters: `layer_<i>`, each a kernel [blocks, in, out] and a bias [blocks, out].

    Attributes:
      dim: D, the number of dimensions. With one, mu and a are constants: the flow is an affine map.
      hidden: units of a hidden layer.
      layers: hidden layers of a block.
      blocks: how many blocks.
      bound: the most that |a| may be, by a = bound tanh(a' / bound) where the network says a'. Without one, as
        published, a few codes unlike the others can overflow, and the training with them.

    Raises:
      ValueError: a size or the bound is not positive.
    """

    dim: int
    hidden: int = 128
    layers: int = 1
    blocks: int = 2
    bound: float | None = None

    def __post_init__(self) -> None:
        for field in ("dim", "hidden", "layers", "blocks"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}, but must be at least 1")
        if self.bound is not None and self.bound <= 0:
            raise ValueError(f"bound is {self.bound}, but must be positive or None")

    def masks(self) -> tuple[np.ndarray, ...]:
        """Rule (3): for each layer bool [in, out], True where an output may see an input. The last has 2 D outputs."""
        inner = np.arange(self.hidden) % max(self.dim - 1, 1)
        degrees = (np.arange(self.dim), *[inner] * self.layers)
        outputs = np.tile(np.arange(self.dim), 2)  # mu, then a
        hidden = [below[:, None] <= above[None] for below, above in itertools.pairwise(degrees)]
        return (*hidden, inner[:, None] < outputs[None])

    def init(self, key: Key) -> Params:
        """Fresh parameters. The last layer is zero, so every block starts as the mere reversal."""
        params, he_normal = {}, jax.nn.initializers.he_normal(batch_axis=0)
        for i, mask in enumerate(self.masks()):
            shape = (self.blocks, *mask.shape)
            initial = he_normal if i < self.layers else jax.nn.initializers.zeros
            kernel = initial(jax.random.fold_in(key, i), shape, jnp.float32)
            params[f"layer_{i}"] = {"kernel": kernel, "bias": jnp.zeros((self.blocks, shape[-1]), jnp.float32)}
        return params

    def forward(self, params: Params, z: Array) -> tuple[Array, Array]:
        """z [..., D] -> u [..., D] and log |det du/dz| [...]."""

        def block(carry: tuple[Array, Array], params: Params) -> tuple[tuple[Array, Array], None]:
            z, log_det = carry
            mu, a = self._shift_and_scale(params, z)
            return (jnp.flip((z - mu) * jnp.exp(-a)), log_det - a.sum()), None

        def one(z: Array) -> tuple[Array, Array]:
            return lax.scan(block, (z, jnp.zeros((), z.dtype)), params)[0]

        return jnp.vectorize(one, signature="(d)->(d),()")(z)

    def inverse(self, params: Params, u: Array) -> tuple[Array, Array]:
        """u [..., D] -> z [..., D] and log |det dz/du| [...], one dimension after the other."""

        def block(carry: tuple[Array, Array], params: Params) -> tuple[tuple[Array, Array], None]:
            u, log_det = jnp.flip(carry[0]), carry[1]

            def found(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
                z, log_det = carry
                mu, a = self._shift_and_scale(params, z)
                # Only what is right is set: were one not yet found infinite, a mask of zero would not hide it.
                return z.at[i].set(mu[i] + u[i] * jnp.exp(a[i])), log_det + a[i]

            return lax.fori_loop(0, self.dim, found, (jnp.zeros_like(u), log_det)), None

        def one(u: Array) -> tuple[Array, Array]:
            return lax.scan(block, (u, jnp.zeros((), u.dtype)), params, reverse=True)[0]

        return jnp.vectorize(one, signature="(d)->(d),()")(u)

    def _shift_and_scale(self, params: Params, z: Array) -> tuple[Array, Array]:
        """mu and a, [D] each, of one code [D] under the parameters of one block."""
        for i, mask in enumerate(self.masks()):
            layer = params[f"layer_{i}"]
            z = (jax.nn.relu(z) if i else z) @ (layer["kernel"] * mask) + layer["bias"]
        mu, a = jnp.split(z, 2)
        return mu, a if self.bound is None else self.bound * jnp.tanh(a / self.bound)
