"""How a tokenizer uses its codes: the share of them that occurs, and how many there seem to be."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from mmgen_jax.evals.sampling import batches
from mmgen_jax.types import EvalData, Key, Model, Variables


@dataclasses.dataclass(frozen=True)
class Codes:
    """`codes/<name>_use` in 0 to 1 and `codes/<name>_perplexity`, exp of the entropy of the frequencies of codes.

    limit: test examples at most; there should be several times as many symbols as codes.
    """

    limit: int = 1000

    def check(self, model: Model) -> None:
        """Raises ValueError if the model makes no symbols of its modalities."""
        if not callable(getattr(model, "to_tokens", None)):
            raise ValueError(f"Codes needs a model with a method to_tokens(), which {type(model).__name__} has not")

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        """Raises ValueError as `check`."""
        self.check(model)
        to_tokens, values = jax.jit(model.to_tokens, static_argnums=1), {}
        for name in model.modalities:
            x = data.test.values[name][data.test.present[name]][: self.limit]
            if not len(x):
                continue
            tokens = batches(lambda _, rows, x=x, name=name: {"": to_tokens(variables, name, x[rows])}, len(x))[""]
            count = np.bincount(np.asarray(tokens).ravel(), minlength=model.quantizer.size)
            p = count[count > 0] / count.sum()
            values[f"codes/{name}_use"] = float(np.mean(count > 0))
            values[f"codes/{name}_perplexity"] = float(np.exp(-np.sum(p * np.log(p))))
        return values
