"""FLOPs counted from the jaxpr: XLA's own `cost_analysis` counts the body of a loop once, however often it runs.

    matrix product    2 x elements of the result x length of what is summed over
    convolution       2 x elements of the result x elements of the kernel / its output channels,
                      divided by the dilation of the input, whose zeros need no multiplication

Everything else is left out, as is usual for model FLOPs: with PaLM's definition of MFU (Chowdhery et al. 2022,
arXiv:2204.02311, appendix B) matrix products alone are counted, none that rematerialisation does again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

# Dense peak in TFLOP/s by what is multiplied and the first of these names that the device's has in it. Of NVIDIA it is
# that of the SXM boards, and float32 is multiplied as TF32, which is what JAX does unless told otherwise.
PEAKS = {
    "H100": {"bfloat16": 989.4, "float32": 494.7},
    "H200": {"bfloat16": 989.4, "float32": 494.7},
    "A100": {"bfloat16": 312.0, "float32": 156.0},
    "TPU v4": {"bfloat16": 275.0},
    "TPU v5 lite": {"bfloat16": 197.0},
    "TPU v5e": {"bfloat16": 197.0},
    "TPU v5": {"bfloat16": 459.0},
    "TPU v6 lite": {"bfloat16": 918.0},
    "TPU v6e": {"bfloat16": 918.0},
}


def peak(device_kind: str, dtype: str) -> float | None:
    """FLOP/s of one device; None if it is not known."""
    found = next((peaks for name, peaks in PEAKS.items() if name in device_kind), {})
    return 1e12 * found[dtype] if dtype in found else None


def flops(jaxpr: Any) -> int:
    """FLOPs of a jaxpr: scans as often as they run, the dearest branch of a `cond`, one turn of a `while_loop`."""
    return sum(of_equation(equation) for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns)


def of_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * equation.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        channels = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
        each = kernel.size // channels
        return 2 * equation.outvars[0].aval.size * each // math.prod(params["lhs_dilation"])
    inner = [flops(jaxpr) for jaxpr in inside(params)]
    if name == "cond":
        return max(inner)
    return sum(inner) * (params["length"] if name == "scan" else 1)


def inside(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among the parameters of an equation."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(part, "jaxpr", part), "eqns"):
                yield part
