"""A run whose model answers always the same, for the tests of the report."""

import json
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from mmgen_jax.modalities import Audio, Image, Label, Text, Video
from mmgen_jax.report.contents import Contents, collect

ATTACK = "<script>alert(1)</script>"
MODALITIES = {
    "image": Image(4, 4, 1),
    "text": Text(length=32),
    "sound": Audio(800, rate=8000),
    "clip": Video(2, 4, 4, 3),
    "label": Label(2, names=("cat & dog", "<b>")),
}


class Fake:
    """Answers everything with the same example; its texts are an attack."""

    modalities = MODALITIES

    def one(self):
        return {
            name: m.encode(ATTACK) if name == "text" else np.zeros(m.shape, m.dtype)
            for name, m in self.modalities.items()
        }

    def sample(self, variables, key, n, *, given):
        made = {name: jnp.broadcast_to(jnp.asarray(x)[None], (n, *x.shape)) for name, x in self.one().items()}
        return given.completed(made)

    def reconstruct(self, variables, batch, key):
        return batch.values


class Source:
    """Ten examples; only numbers 3 and 7 have a sound."""

    def __len__(self):
        return 10

    def __getitem__(self, i):
        example = {"image": np.full((4, 4), i * 20, np.uint8), "text": f"number {i} <i>", "label": i % 2}
        example["clip"] = np.zeros((2, 4, 4, 3), np.uint8)
        return example | ({"sound": np.zeros(800, np.int16)} if i in (3, 7) else {})


def written_run(folder: Path) -> Path:
    """What the report reads of a run directory."""
    run = folder / "a run"
    (run / "judges").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"steps": 7, "note": ATTACK}))
    rows = [{"step": s, "seconds": s / 2, "loss": 10.0 / s, "kl": None if s == 2 else 1.0} for s in range(1, 301)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "evaluation.json").write_text(
        json.dumps({"step": 300, "values": {"coherence/image->text": 0.875, "coherence/joint": 0.5, "odd/x": None}})
    )
    (run / "judges" / "image-0.json").write_text(
        json.dumps({"modality": "image", "accuracy": 0.97, "sha256": "0123456789abcdef"})
    )
    start = {"started": "today", "command": f"mmgen {ATTACK}", "versions": {"jax": "0"}, "devices": [1, "cpu"]}
    (run / "starts.jsonl").write_text(json.dumps(start) + "\n")
    return run


def collected(run, model, labels=None, beside=()) -> Contents:
    data = SimpleNamespace(source=lambda split: Source())
    experiment = SimpleNamespace(model=model, data=data, labels=labels or {}, seed=0)
    variables = {"params": {"shift": np.full((1, 3), 0.5, np.float32)}}
    state = SimpleNamespace(variables=variables, params={"w": np.zeros((3, 4))}, step=np.int32(300))
    return collect(run, experiment, state, beside)


class Tags(HTMLParser):
    """All tags with their attributes; checks that they are nested properly."""

    VOID = {"meta", "img", "br", "path", "polyline"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
