"""How many steps at which learning rate, from scratch: the training side of a dataset, no validation or test case read.

python -m benchmarks.convergence phantom                       # every trial that the record lacks; resumes
python -m benchmarks.convergence headneck --networks unet --labels 2 6 --steps 400 800

A few training cases are labelled, the others are scored on the grid. Each trial is one line in
json_files/reference_convergence.json, with its Dice at five steps and its seconds. A network has converged where twice
the steps bring less than a point.
"""

import argparse
import itertools
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ssl_utils.data import datalists
from ssl_utils.experiments import scales
from ssl_utils.experiments.building import build_network
from ssl_utils.experiments.description import Finetuning
from ssl_utils.experiments.finetuning import train
from ssl_utils.experiments.runs import PROJECT
from ssl_utils.experiments.setups import Setup, setup
from ssl_utils.files import exclusively, read_json, write_json
from ssl_utils.training.devices import precision

RECORD = PROJECT / "json_files" / "reference_convergence.json"
SCORED = 18  # at most so many training cases that were not labelled
STEPS, RATES, ENCODER = (200, 400, 800, 1600, 3200), (4e-3,), (1.0, 0.1)
NETWORKS = ("unetr", "unetr with image skips", "unet")


def trial(made: Setup, point: dict[str, Any]) -> dict[str, Any]:
    """Fine-tune from a random initialisation and score the unlabelled training cases."""
    name, _, skips = point["network"].partition(" with ")
    sizes = {"image_skips": bool(skips), "finetune_lr": point["lr"], "finetune_steps": point["steps"]}
    made = replace(made, scale=replace(made.scale, **sizes))
    run = Finetuning(network=name, **{key: point[key] for key in ("num_labeled", "subset", "seed", "encoder_lr")})
    training = made.datalist.training
    labelled = datalists.label_subset(training, run.num_labeled, run.subset)
    scored = [case for case in training if case not in labelled][-SCORED:]
    cases, held_out = made.prepared(labelled), made.prepared(scored)
    print(" ".join(f"{key}={value}" for key, value in point.items()))
    with TemporaryDirectory() as folder:
        network, _ = build_network(made, run)
        _, recorder = train(made, run, network, cases=cases, held_out=held_out, folder=Path(folder))
    dice = [round(float(row["validation_dice"]), 4) for row in recorder.rows]
    return {"scored": len(scored), "dice": dice, "seconds": round(recorder.rows[-1]["seconds"], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convergence", description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--labels", nargs="+", type=int, default=[6])
    parser.add_argument("--steps", nargs="+", type=int, default=STEPS)
    parser.add_argument("--rates", nargs="+", type=float, default=RATES)
    parser.add_argument("--encoder-rates", nargs="+", type=float, default=ENCODER, help="over the learning rate")
    parser.add_argument("--repeats", type=int, default=1, help="label subsets, each with a seed of its own")
    given = parser.parse_args()
    torch.set_num_threads(1)
    made = setup(dataset=given.dataset, scale=scales.get("laptop"))
    grid = (given.steps, range(given.repeats), given.labels, given.networks, given.rates, given.encoder_rates)
    for steps, repeat, labels, network, lr, encoder_lr in itertools.product(*grid):
        point = {"dataset": given.dataset, "network": network, "num_labeled": labels, "subset": repeat, "seed": repeat}
        point |= {"lr": lr, "encoder_lr": encoder_lr, "steps": steps}
        if any(row.items() >= (point | {"precision": precision()}).items() for row in rows()):
            continue
        row = point | {"precision": precision()} | trial(made, point)
        with exclusively(RECORD.parent, RECORD.name):
            write_json(RECORD, {"trials": [*rows(), row]})


def rows() -> list[dict[str, Any]]:
    return read_json(RECORD)["trials"] if RECORD.exists() else []


if __name__ == "__main__":
    main()
