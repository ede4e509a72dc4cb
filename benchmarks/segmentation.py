"""Fine-tuning steps, and the prediction of a whole CT, against MONAI's UNETR and inferer at their defaults.

python -m benchmarks.segmentation ours WEIGHTS CT.nii.gz OUT.npy       # one prediction, its seconds and memory
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks import nets
from torch import nn

from benchmarks.crops import write_ct
from benchmarks.race import furthest, in_child, peak_gigabytes, race, row, seconds, stepper
from ssl_utils.data import datasets, volumes
from ssl_utils.data.cache import Prepared, prepare
from ssl_utils.data.crops import Crops
from ssl_utils.data.datalists import Case
from ssl_utils.data.transforms import preprocess
from ssl_utils.networks import checkpoints
from ssl_utils.networks.unetr import UNETR
from ssl_utils.segmentation import inference
from ssl_utils.segmentation.finetune import SegmentationTask, class_shares
from ssl_utils.segmentation.metrics import dice
from ssl_utils.training.devices import device

PHANTOM = datasets.get("phantom")
GRID = PHANTOM.grids["fine"]  # 1.5 x 1.5 x 2 mm, crops of 96^3
BASE = {"hidden_size": 768, "mlp_dim": 3072, "num_heads": 12, "feature_size": 16}  # MONAI's own defaults
SMALL = {"hidden_size": 384, "mlp_dim": 1536, "num_heads": 6, "feature_size": 16}  # so that it learns here in minutes
OVERLAP = 0.25  # MONAI's default


def networks(sizes: dict) -> tuple[UNETR, nn.Module]:
    """Ours and MONAI's with the same weights."""
    ours = UNETR(in_channels=1, out_channels=PHANTOM.out_channels, img_size=GRID.roi, patch_size=16, **sizes)
    theirs = nets.UNETR(1, PHANTOM.out_channels, GRID.roi, **sizes)
    theirs.load_state_dict(ours.state_dict(), strict=False)
    return ours.to(device()), theirs.to(device())


def task_of(network: UNETR, shares: np.ndarray, steps: int = 100) -> SegmentationTask:
    return SegmentationTask(
        network=network,
        values=sorted(PHANTOM.labels),
        regions=None,
        shares=shares,
        held_out=[],
        roi=GRID.roi,
        overlap=OVERLAP,
        lr=2e-3,
        steps=steps,
    )


def labelled(batch: int) -> dict[str, torch.Tensor]:
    shape = (batch, 1, *GRID.roi)
    labels = torch.randint(0, PHANTOM.out_channels, shape, device=device())
    return {"image": torch.randn(shape, device=device()), "label": labels}


def own_step(network: UNETR, crops: dict[str, torch.Tensor]):
    """UNETR on 96^3 crops, 14 classes."""
    task = task_of(network, np.full(PHANTOM.out_channels, 1 / PHANTOM.out_channels))
    return stepper(task, lambda: task.training_step(crops, 0))


def finetuning_step(*, repeats: int, batch: int = 1) -> dict:
    torch.manual_seed(0)
    ours, theirs = networks(BASE)
    crops = labelled(batch)
    own = own_step(ours, crops)
    theirs.load_state_dict(ours.state_dict(), strict=False)  # with the bias that the task has set
    with torch.no_grad():
        apart = furthest(ours(crops["image"]), theirs(crops["image"]))
    loss, chosen = DiceCELoss(to_onehot_y=True, softmax=True), torch.optim.AdamW(theirs.parameters(), lr=1e-4)

    def step() -> None:
        chosen.zero_grad()
        loss(theirs(crops["image"]), crops["label"]).backward()
        chosen.step()

    equality = f"logits within {apart:.0e} of their largest, float32"
    return race("finetuning_step", own, step, equality=equality, repeats=repeats)


def taught(case: Prepared, steps: int) -> UNETR:
    """A network that knows this one case, so that its predictions are anatomy and not ties."""
    torch.manual_seed(0)
    network, _ = networks(SMALL)
    values = sorted(PHANTOM.labels)
    task, batch = task_of(network, class_shares([case.label], values, None), steps).to(device()), {}
    step = stepper(task, lambda: task.training_step(batch, 0))
    crops = Crops([case], roi=GRID.roi, seed=0, balanced=True)
    for i in range(steps):
        batch.update({key: value[None].to(device()) for key, value in crops[i].items()})
        step()
    return network


def sliding_window(*, repeats: int, steps: int = 60) -> list[dict]:
    """Windows alone, then the way from a file to a label map on the voxels of the file, each with a process of its own
    for memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, label = write_ct(folder)
        case = Case(id="ct", image=image, label=label, patient="ct")
        (cached,) = prepare([case], dataset=PHANTOM, grid=GRID, root=folder / "cache")
        ours = taught(cached, steps)
        _, theirs = networks(SMALL)
        theirs.load_state_dict(ours.state_dict(), strict=False)
        return [_windows(ours, theirs, cached, repeats), _to_file(ours, folder, image, label)]


def _windows(ours: UNETR, theirs: nn.Module, case: Prepared, repeats: int) -> dict:
    standardised = case.standardised(case.image)
    batch, found = torch.from_numpy(standardised)[None].to(device()), {}

    def own() -> None:
        found["ours"] = inference.predict_logits(ours, standardised, roi=GRID.roi, overlap=OVERLAP)

    def their(mode: str = "constant") -> None:
        with torch.no_grad():
            found["theirs"] = sliding_window_inference(batch, GRID.roi, 4, theirs.eval(), mode=mode)[0]

    own(), their("gaussian")  # windows blended alike; MONAI's default, which is timed, is to count them all the same
    one, two = (_mean_dice(found[who].argmax(0).cpu().numpy(), case.label) for who in ("ours", "theirs"))
    equality = f"blended alike, mean Dice {one:.4f} and {two:.4f}, apart by {abs(one - two):.0e}"
    return race("sliding_window", own, their, equality=equality, repeats=repeats, unit="seconds a CT")


def _mean_dice(found: np.ndarray, label: np.ndarray) -> float:
    return float(np.nanmean([dice(found == k, label == k) for k in PHANTOM.labels if k]))


def _to_file(network: UNETR, folder: Path, image: Path, label: Path) -> dict:
    weights = folder / "weights.safetensors"
    checkpoints.save_model(weights, network, metadata={})
    told = {
        who: json.loads(in_child("benchmarks.segmentation", who, weights, image, folder / f"{who}.npy"))
        for who in ("ours", "theirs")
    }
    truth = volumes.read_label(label, values=PHANTOM.labels).array[0]
    scores = [_mean_dice(np.load(folder / f"{who}.npy"), truth) for who in ("ours", "theirs")]
    ours, theirs = told["ours"], told["theirs"]
    equality = (
        f"mean Dice {scores[0]:.4f} and {scores[1]:.4f}, each by its own preprocessing; memory "
        f"{ours['gigabytes']:.1f} and {theirs['gigabytes']:.1f} GB of the whole process"
    )
    return row(
        "prediction_to_file",
        ours=ours["seconds"],
        theirs=theirs["seconds"],
        unit="seconds a CT",
        repeats=1,
        ratio=theirs["seconds"] / ours["seconds"],
        equality=equality,
    )


def _ours(weights: Path, path: Path) -> np.ndarray:
    network, _ = networks(SMALL)
    network.load_state_dict(checkpoints.read_checkpoint(weights))
    image = volumes.read_image(path, channels=1)
    done = preprocess(image, None, grid=GRID, intensity=PHANTOM.intensity)
    mean, std = done.moments()
    logits = inference.predict_logits(network, (done.image - mean) / std, roi=GRID.roi, overlap=OVERLAP)
    return inference.to_original(
        logits, affine=done.affine, target_affine=image.affine, target_shape=image.shape, regions=False
    )


def _theirs(weights: Path, path: Path) -> np.ndarray:
    """MONAI's chain of transforms, its inferer, and the inverse of the chain for the logits."""
    from monai import transforms as t
    from monai.data import decollate_batch, list_data_collate

    _, network = networks(SMALL)
    network.load_state_dict(checkpoints.read_checkpoint(weights), strict=False)
    chain = t.Compose(
        [
            t.LoadImaged("image"),
            t.EnsureChannelFirstd("image"),
            t.Orientationd("image", axcodes="RAS", labels=None),
            t.Spacingd("image", pixdim=GRID.spacing, mode="bilinear"),
            t.ScaleIntensityRanged("image", PHANTOM.intensity.low, PHANTOM.intensity.high, 0, 1, clip=True),
            t.CropForegroundd("image", source_key="image"),
            t.NormalizeIntensityd("image"),
        ]
    )
    undo = t.Compose(
        [
            t.Invertd("pred", transform=chain, orig_keys="image", nearest_interp=False, to_tensor=True),
            t.AsDiscreted("pred", argmax=True),
        ]
    )
    batch = list_data_collate([chain({"image": str(path)})])
    with torch.no_grad():
        batch["pred"] = sliding_window_inference(batch["image"].to(device()), GRID.roi, 4, network.eval())
    return undo(decollate_batch(batch)[0])["pred"][0].numpy().astype(np.uint8)


if __name__ == "__main__":
    who, weights, path, out = sys.argv[1:]
    predict, found = {"ours": _ours, "theirs": _theirs}[who], {}
    took = seconds(lambda: found.update(label=predict(Path(weights), Path(path))))
    np.save(out, found["label"])
    print(json.dumps({"seconds": took, "gigabytes": peak_gigabytes()}))
