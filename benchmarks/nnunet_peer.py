"""nnU-Net beside this package: one split of the phantom, one thread, about as many seconds of the processor.

python -m benchmarks.nnunet_peer FOLDER nnunet 5     # epochs of 5 steps; in the environment of `make nnunet`
python -m benchmarks.nnunet_peer FOLDER unetr 600    # steps

Seconds are those of the processor in training alone: on a busy machine those of the clock say nothing. Every call ends
in a row of json_files/reference_nnunet.json, in the place of an earlier one of that name.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from benchmarks.race import hardware
from ssl_utils.data import datalists, volumes
from ssl_utils.data.cases import Case
from ssl_utils.data.lists import peers
from ssl_utils.experiments import Finetuning, Pretraining, Setup, exports, pretrain, scales, setup
from ssl_utils.experiments.building import build_network
from ssl_utils.experiments.exports.nnunet_weights import CONFIGURATION
from ssl_utils.experiments.finetuning import evaluate, train
from ssl_utils.experiments.runs import PROJECT, commit
from ssl_utils.files import read_json, write_json
from ssl_utils.segmentation import metrics

REFERENCE = PROJECT / "json_files" / "reference_nnunet.json"
NAME, LABELED = "Dataset501_phantom", 6
PRETRAINING = Pretraining.of("simmim", network="resenc_unet", scope="network", steps=100)


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


def add_configuration(folder: Path, exported: Path) -> None:
    """The exported configuration in nnU-Net's plan, as its README says."""
    plans = folder / "preprocessed" / NAME / "nnUNetPlans.json"
    content = read_json(plans)
    content["configurations"] |= read_json(exported / "configuration.json")
    write_json(plans, content)


def theirs(where: Setup, folder: Path, epochs: int, configuration: str, init: bool) -> dict:
    """nnU-Net trained from its own start or from the exported weights, and scored; its folder holds the last arm."""
    exported = folder / "exported"
    if not (folder / "raw").exists():
        planned(where, folder)
    if configuration == CONFIGURATION and not exported.exists():
        exports.FORMATS["nnunet"](pretrain(where, PRETRAINING), exported)
        add_configuration(folder, exported)
    if not (folder / "preprocessed" / NAME / f"nnUNetPlans_{configuration}").exists():
        command(folder, "preprocess", "-d", "501", "-c", configuration, "-np", "1")
    arm = folder / "results" / NAME / f"nnUNetTrainer__nnUNetPlans__{configuration}" / "fold_0"
    words = ["501", configuration, "0", "-device", "cpu"]
    words += ["-pretrained_weights", str(exported / "checkpoint.pth")] if init else []
    command(folder, "train", *words, epochs=epochs)
    files = folder / "raw" / NAME / "imagesTs", folder / "predicted"
    places = ["-i", str(files[0]), "-o", str(files[1]), "-d", "501", "-c", configuration, "-f", "0"]
    command(folder, "predict", *places, "-device", "cpu", "-npp", "1", "-nps", "1")
    table = pd.concat(
        metrics.evaluate([case], dataset=where.dataset, predict=lambda image, case=case: read(where, files[1], case))
        for case in where.datalist.test
    )
    return read_json(arm / "spent.json") | {"dice": dice(table)}


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


ARMS = {
    "nnunet": (theirs, {"configuration": "3d_fullres", "init": False}),
    "nnunet_resenc": (theirs, {"configuration": CONFIGURATION, "init": False}),
    "nnunet_resenc_pretrained": (theirs, {"configuration": CONFIGURATION, "init": True}),
    "unetr": (ours, {}),
    "resenc_unet": (ours, {"network": "resenc_unet"}),
    "resenc_unet_pretrained": (ours, {"init": PRETRAINING.name}),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nnunet_peer", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where nnU-Net's folders and all results lie")
    parser.add_argument("arm", choices=ARMS)
    parser.add_argument("amount", type=int, help="epochs of 5 steps of nnU-Net, or steps of ours")
    given = parser.parse_args()
    work, options = ARMS[given.arm]
    where = setup(dataset="phantom", scale=scales.get("laptop"))
    row = {"name": given.arm, "labeled": LABELED, **work(where, given.folder.resolve(), given.amount, **options)}
    row |= {"device": hardware(), "commit": commit(), "date": datetime.now(UTC).date().isoformat()}
    before = read_json(REFERENCE) if REFERENCE.exists() else []
    write_json(REFERENCE, [other for other in before if other["name"] != given.arm] + [row])


if __name__ == "__main__":
    main()
