"""nnU-Net beside this package: one split of the phantom, one thread, seconds of the processor.

python -m benchmarks.nnunet_peer FOLDER nnunet 5     # epochs of 5 steps; in the environment of `make nnunet`
python -m benchmarks.nnunet_peer FOLDER unetr 550    # steps, which take about as long

Seconds are those of the processor in training alone: on a busy machine those of the clock say nothing. Every call ends
in a row of json_files/reference_nnunet.json, in the place of an earlier one of that name.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pandas as pd

from benchmarks.race import hardware
from ssl_utils.data import datalists, volumes
from ssl_utils.data.cases import Case
from ssl_utils.data.lists import peers
from ssl_utils.experiments import Finetuning, Setup, scales, setup
from ssl_utils.experiments.building import build_network
from ssl_utils.experiments.finetuning import evaluate, train
from ssl_utils.experiments.runs import PROJECT, commit
from ssl_utils.files import read_json, write_json
from ssl_utils.segmentation import metrics

REFERENCE = PROJECT / "json_files" / "reference_nnunet.json"
NAME, PLAN, LABELED = "Dataset501_phantom", "3d_fullres", 6


def command(folder: Path, name: str, *words: str, epochs: int = 0) -> None:
    """One of nnU-Net's own commands on one thread; its training is that of `nnunet_brief`."""
    places = {f"nnUNet_{kind}": str(folder / kind) for kind in ("raw", "preprocessed", "results")}
    # the augmentation of a training in the process that is timed; planning wants at least one
    workers = {"nnUNet_n_proc_DA": "0" if name == "train" else "1", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1"}
    own = [Path(sys.executable).parent / f"nnUNetv2_{name}"]
    program = [sys.executable, "-m", "benchmarks.nnunet_brief"] if name == "train" else own
    environment = os.environ | places | workers | {"BRIEF_EPOCHS": str(epochs)}
    with (folder / "log.txt").open("a") as log:
        subprocess.run([*program, *words], env=environment, cwd=PROJECT, check=True, stdout=log, stderr=log)


def planned(where: Setup, folder: Path) -> None:
    """nnU-Net's fingerprint and plan at the spacing of the scale; all else is its own choice."""
    subset = datalists.label_subset(where.datalist.training, LABELED, 0)
    peers.write_nnunet(replace(where.datalist, training=subset), folder / "raw" / NAME)
    command(folder, "extract_fingerprint", "-d", "501", "-np", "1")
    command(folder, "plan_experiment", "-d", "501", "-overwrite_target_spacing", *map(str, where.grid.spacing))


def theirs(where: Setup, folder: Path, epochs: int) -> dict:
    """nnU-Net by its own plan, and its prediction of the test set, scored here."""
    if not (folder / "raw").exists():
        planned(where, folder)
        command(folder, "preprocess", "-d", "501", "-c", PLAN, "-np", "1")
    source, predicted = folder / "raw" / NAME / "imagesTs", folder / "predicted"
    spent = folder / "results" / NAME / f"nnUNetTrainer__nnUNetPlans__{PLAN}" / "fold_0" / "spent.json"
    if not spent.exists() or read_json(spent)["steps"] != 5 * epochs:
        shutil.rmtree(predicted, ignore_errors=True)
        command(folder, "train", "501", PLAN, "0", "-device", "cpu", epochs=epochs)
    options = ["-d", "501", "-c", PLAN, "-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1", "--continue_prediction"]
    command(folder, "predict", "-i", str(source), "-o", str(predicted), *options)
    table = pd.concat(
        metrics.evaluate([case], dataset=where.dataset, predict=lambda image, case=case: read(where, predicted, case))
        for case in where.datalist.test
    )
    return read_json(spent) | {"dice": dice(table)}


def read(where: Setup, folder: Path, case: Case) -> dict:
    label = volumes.read_label(folder / f"{case.id}.nii.gz", values=where.dataset.names)
    return metrics.masks(label.array[0], metrics.structures(where.dataset), None)


def ours(where: Setup, folder: Path, steps: int, **changes) -> dict:
    """A fine-tuning of this package as `finetune` makes it, with its seconds of the processor."""
    run = Finetuning(num_labeled=LABELED, budget=steps / where.scale.finetune_steps, **changes)
    network, _ = build_network(where, run)
    cases = where.prepared(datalists.label_subset(where.datalist.training, LABELED, 0))
    held_out, started = where.prepared(where.datalist.validation), time.process_time()
    module, _ = train(where, run, network, cases=cases, held_out=held_out, folder=folder / "ours" / run.name)
    seconds = round(time.process_time() - started, 1)
    network.load_state_dict(module.best["weights"])
    return {"seconds": seconds, "steps": steps, "dice": dice(evaluate(where, network, where.datalist.test))}


def dice(table: pd.DataFrame) -> float:
    return round(float(table.groupby("case")["dice"].mean().mean()), 4)


ARMS = {"nnunet": theirs, "unetr": ours, "resenc_unet": partial(ours, network="resenc_unet")}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nnunet_peer", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where nnU-Net's folders and all results lie")
    parser.add_argument("arm", choices=ARMS)
    parser.add_argument("amount", type=int, help="epochs of 5 steps of nnU-Net, or steps of ours")
    given = parser.parse_args()
    where = setup(dataset="phantom", scale=scales.get("laptop"))
    row = {"name": given.arm, "labeled": LABELED, **ARMS[given.arm](where, given.folder.resolve(), given.amount)}
    row |= {"device": hardware(), "commit": commit(), "date": datetime.now(UTC).date().isoformat()}
    before = read_json(REFERENCE) if REFERENCE.exists() else []
    write_json(REFERENCE, [other for other in before if other["name"] != given.arm] + [row])


if __name__ == "__main__":
    main()
