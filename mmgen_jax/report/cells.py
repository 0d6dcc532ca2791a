"""One example of one modality as HTML that needs nothing from outside: pictures and sounds are data URIs."""

from __future__ import annotations

import base64
import html

import numpy as np

from mmgen_jax.report.plots import waveform
from mmgen_jax.types import Modality

PICTURES = {"png": "image/png", "gif": "image/gif", "jpg": "image/jpeg"}


def cell(name: str, modality: Modality, x: np.ndarray) -> str:
    """x [*shape] of the modality called `name`: what its `render` gives, as HTML. All text is escaped."""
    rendering = modality.render(x)
    data, suffix = rendering.data, rendering.suffix
    if suffix in PICTURES:
        return f'<img class="picture" alt="{html.escape(name)}" src="{uri(PICTURES[suffix], data)}">'
    if suffix == "wav":
        return (
            f'<div class="sound">{waveform(data)}'
            f'<audio controls preload="none" src="{uri("audio/wav", data)}"></audio></div>'
        )
    if suffix == "txt":
        kind = "text" if modality.shape else "class"
        return f'<span class="{kind}">{html.escape(data.decode())}</span>'
    return (
        f'<a download="{html.escape(f"{name}.{suffix}")}" href="{uri("application/octet-stream", data)}">{suffix}</a>'
    )


def uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
