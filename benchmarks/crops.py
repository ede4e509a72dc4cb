"""Random crops a second from a whole CT, through the loader of training, against the chain of MONAI's notebook."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from monai import transforms as t
from monai.data import Dataset
from torch.utils.data import DataLoader

from benchmarks.race import race, seconds
from ssl_utils.data import datasets, phantom, volumes
from ssl_utils.data.cache import prepare
from ssl_utils.data.crops import Consecutive, Crops
from ssl_utils.data.datalists import Case

SHAPE, SPACING = (512, 512, 300), 1.0  # voxels, mm
CROPS = 64  # of ours that are timed together; theirs are the 2 of one volume, as in the notebook


def write_ct(folder: Path) -> tuple[Path, Path]:
    """A CT of 512 x 512 x 300 voxels, int16 .nii.gz, and its labels: a phantom with air around it."""
    image, label, affine = phantom.make_volume(1, kind="abdomen", spacing=(SPACING,) * 3)
    room = [s - n for s, n in zip(SHAPE, image.shape, strict=True)]
    lead = [max(r // 2, 0) for r in room]
    pads = [(a, max(r - a, 0)) for a, r in zip(lead, room, strict=True)]
    box = tuple(slice(0, s) for s in SHAPE)
    affine = affine @ np.array([[1, 0, 0, -lead[0]], [0, 1, 0, -lead[1]], [0, 0, 1, -lead[2]], [0, 0, 0, 1.0]])
    paths = folder / "ct.nii.gz", folder / "label.nii.gz"
    for path, array, air in zip(paths, (image, label), (-1024, 0), strict=True):
        volumes.write_nifti(path, np.pad(array, pads, constant_values=air)[box], affine)
    return paths


def crops_per_second(*, repeats: int) -> dict:
    dataset = datasets.get("phantom")
    grid = replace(dataset.grids["fine"], spacing=(2.0, 2.0, 2.0))  # the notebook's
    with tempfile.TemporaryDirectory() as name:
        image, _ = write_ct(Path(name))
        made, case = [], Case(id="ct", image=image, label=None, patient="ct")
        once = seconds(lambda: made.extend(prepare([case], dataset=dataset, grid=grid, root=Path(name, "cache"))))
        fixed = [
            t.LoadImaged("image"),
            t.EnsureChannelFirstd("image"),
            t.Spacingd("image", pixdim=grid.spacing, mode="bilinear"),
            t.ScaleIntensityRanged("image", dataset.intensity.low, dataset.intensity.high, 0, 1, clip=True),
            t.CropForegroundd("image", source_key="image"),
            t.SpatialPadd("image", spatial_size=grid.roi),
        ]
        two = t.RandSpatialCropSamplesd("image", roi_size=grid.roi, random_size=False, num_samples=2)
        chain = Dataset([{"image": str(image)}], t.Compose([*fixed, two]))
        rival = DataLoader(chain, collate_fn=lambda found: found[0])
        own = DataLoader(Crops(made, roi=grid.roi, seed=0), batch_size=2, sampler=Consecutive(CROPS))
        theirs = t.Compose(fixed)({"image": str(image)})["image"].numpy()
        equality = (
            f"preprocessed volumes {theirs.shape[1:]} and {made[0].image.shape[1:]}, mean {theirs.mean():.3f} and "
            f"{made[0].image.mean(dtype=np.float64):.3f}"
        )
        found = race(
            "crops_per_second",
            lambda: list(own),
            lambda: list(rival),
            made=(CROPS, 2),
            equality=equality,
            repeats=repeats,
            unit="crops a second",
        )
        volume = (made[0].folder / "image.npy").stat().st_size
        return found | {"prepare_seconds": round(once, 1), "cache_mb": round(volume / 1e6, 2)}
