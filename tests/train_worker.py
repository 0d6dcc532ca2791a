"""One of several processes of a training, for test_train_distributed.py: PORT PROCESSES INDEX WORKDIR STEPS WORKERS."""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
from train_fakes import Net, Points

from mmgen_jax.config import Experiment
from mmgen_jax.train.distributed import Interrupted, join, to_host
from mmgen_jax.train.loop import fit
from mmgen_jax.train.mesh import Mesh
from mmgen_jax.train.optimizer import Optimizer


@dataclasses.dataclass(frozen=True)
class Size:
    """An evaluator that every process runs by itself, on variables and data it holds whole."""

    def __call__(self, model, variables, data, key):
        sizes = [float(np.abs(x).sum()) for x in jax.tree.leaves((variables, data.test.values))]
        return {"size": sum(sizes), "seen": float(variables["seen"])}


def experiment(steps, workers):
    sgd = Optimizer(name="sgd", learning_rate=0.01)
    # width 256: large enough that the weights are split between the processes
    model = Net(width=256)
    return Experiment(
        model=model, data=Points(), steps=steps, batch_size=24, optimizer=sgd, mesh=Mesh(data=1, fsdp=2),
        steps_per_call=4, log_every=3, save_every=6, workers=workers, evaluators=(Size(),),
    )  # fmt: skip


def main():
    port, count, index, workdir, steps, workers = sys.argv[1:]
    join(f"127.0.0.1:{port}", int(count), int(index))
    try:
        state = fit(experiment(int(steps), None if workers == "none" else int(workers)), workdir)
    except Interrupted as stopped:
        print(f"interrupted {stopped.step}", flush=True)
        return
    params = to_host(state.params)
    if jax.process_index() == 0:
        np.savez(Path(workdir) / "params.npz", dense=params["dense"]["kernel"], out=params["out"]["kernel"])


if __name__ == "__main__":
    main()
