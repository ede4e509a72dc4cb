"""Patch clusters against the parts of RadioSSL, rebuilt from their description: pairs of crops, Sinkhorn, a step.

Theirs writes 16 pairs of each volume to disk before the training, which then reads them; ours cuts pairs in every step
from the cached volume. Both at 1 mm along the body and 4/3 mm in plane, 64 x 64 x 32 voxels.
"""

import random
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import torch
from scipy.ndimage import zoom
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks import crops
from benchmarks.race import furthest, race, seconds, stepper
from ssl_utils.data import datasets
from ssl_utils.data.cache import prepare
from ssl_utils.data.crop_pairs import Pairs, iou, overlapping_boxes
from ssl_utils.data.crops import Consecutive
from ssl_utils.data.datalists import Case
from ssl_utils.data.dataset import Grid
from ssl_utils.networks.unet import UNet
from ssl_utils.pretext.patch_clusters import PatchClustersTask, sinkhorn
from ssl_utils.training.devices import device

ROI, SIZES = (64, 64, 32), ((128, 128, 32), (96, 96, 32), (64, 64, 32))
PAIRS = 16  # of a volume


def random_box(shape: tuple[int, ...]) -> np.ndarray:
    sides = np.array(random.choice(SIZES))
    low = np.array([random.randint(0, n - s) for n, s in zip(shape, sides, strict=True)])
    return np.stack([low, low + sides])


def written_pairs(image: Path, folder: Path) -> list[Path]:
    """The published preparation of one CT: read, clip, scale, draw until two boxes overlap by .3, resize, write."""
    volume = np.clip(nibabel.load(image).get_fdata(dtype=np.float32), -1000, 1000)
    volume = zoom((volume - volume.min()) / np.ptp(volume), (0.75, 0.75, 1), order=1)
    paths = []
    for i in range(PAIRS):
        boxes = np.stack([random_box(volume.shape) for _ in range(2)])
        while iou(boxes) < 0.3:
            boxes = np.stack([random_box(volume.shape) for _ in range(2)])
        cuts = [volume[tuple(map(slice, low, high))] for low, high in boxes]
        paths.append(folder / f"ct_global_{i}.npy")
        np.save(paths[-1], np.stack([zoom(cut, np.divide(ROI, cut.shape), order=1) for cut in cuts]))
    return paths


def pairs_per_second(*, repeats: int) -> dict:
    """Pairs that are ready for training, a second; `read_per_second`: theirs once they are on disk."""
    random.seed(0)
    grid = Grid((4 / 3, 4 / 3, 1.0), ROI)
    with tempfile.TemporaryDirectory() as name:
        image, _ = crops.write_ct(Path(name))
        case, made = Case(id="ct", image=image, label=None, patient="ct"), []
        dataset = datasets.get("phantom")
        once = seconds(lambda: made.extend(prepare([case], dataset=dataset, grid=grid, root=Path(name, "cache"))))
        own = DataLoader(Pairs(made, roi=ROI, seed=0), batch_size=4, sampler=Consecutive(4 * PAIRS))
        paths = written_pairs(image, Path(name))
        found = race(
            "crop_pairs_per_second",
            lambda: list(own),
            lambda: written_pairs(image, Path(name)),
            made=(4 * PAIRS, PAIRS),
            equality=f"pairs of {np.load(paths[0]).shape[1:]} and {tuple(next(iter(own))['image'].shape[2:])} voxels",
            repeats=repeats,
            unit="pairs a second",
        )
        read = PAIRS / seconds(lambda: [np.load(path) for path in paths])
        return found | {"prepare_seconds": round(once, 1), "read_per_second": round(read, 1)}


def published_sinkhorn(scores: Tensor) -> Tensor:
    """SwAV's, on the exponentials, as RadioSSL has it (R, K); transposed once."""
    q = (scores / 0.05).exp().T  # (K, R)
    q /= q.sum()
    for _ in range(3):
        q /= q.sum(1, keepdim=True)
        q /= q.shape[0]
        q /= q.sum(0, keepdim=True)
        q /= q.shape[1]
    return (q * q.shape[1]).T


def assignment(*, repeats: int, rows: int = 8192, clusters: int = 50) -> dict:
    """The rows of a published step: 16 pairs of 8 x 8 x 4 tokens, of both crops."""
    scores = F.normalize(torch.randn(rows, 64), dim=1) @ F.normalize(torch.randn(64, clusters), dim=0)
    scores = scores.to(device())
    apart = furthest(sinkhorn(scores), published_sinkhorn(scores))
    equality = f"assignments within {apart:.0e} of the largest, float32"
    ways = [lambda way=way: [way(scores) for _ in range(10)] for way in (sinkhorn, published_sinkhorn)]
    return race("sinkhorn", *ways, equality=equality, repeats=repeats, unit="seconds for ten")


class Published(nn.Module):
    """The loss of RadioSSL on the same encoder: for each pair, slices of truncated indices, resized to the grid by the
    nearest neighbour; the mean over clusters, too."""

    def __init__(self, task: PatchClustersTask) -> None:
        super().__init__()
        self.encoder, self.project = task.encoder, nn.Linear(task.encoder.hidden_size, 64)
        self.prototypes = nn.Linear(64, task.clusters, bias=False)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Predictions and targets of one crop of each pair, (B, K, d, h, w) each."""
        z = self.project(self.encoder(images)[0])  # (B, N, 64)
        with torch.no_grad():
            cosines = F.normalize(z, dim=-1) @ F.normalize(self.prototypes.weight, dim=1).T
            targets = published_sinkhorn(cosines.flatten(0, 1)).view(cosines.shape)
        found = self.prototypes(z).softmax(-1), targets
        return [one.transpose(1, 2).unflatten(2, self.encoder.grid) for one in found]

    def cut(self, maps: Tensor, box: Tensor, shared: Tensor) -> Tensor:
        size, grid = box[:, 1] - box[:, 0], self.encoder.grid
        cells = ((shared - box[:, :1]) / size[:, None] * torch.tensor(grid, device=box.device)).int().tolist()
        cuts = [one[(slice(None), *map(slice, *ends))][None] for one, ends in zip(maps, cells, strict=True)]
        return torch.cat([F.interpolate(one, size=grid) for one in cuts])

    def forward(self, views: tuple[Tensor, Tensor], boxes: Tensor) -> Tensor:
        shared = torch.stack([boxes[:, :, 0].amax(1), boxes[:, :, 1].amin(1)], 1)  # (B, 2, 3)
        both = [[self.cut(m, boxes[:, i], shared) for m in self.maps(view)] for i, view in enumerate(views)]
        (p1, q1), (p2, q2) = both
        return -((q1 * (p2 + 1e-8).log()).mean() + (q2 * (p1 + 1e-8).log()).mean()) / 2


def step(*, repeats: int, side: tuple[int, int, int] = ROI, batch: int = 4) -> dict:
    """A step of four pairs on the course's U-Net encoder, whose cells are 8 voxels wide as in the published one."""
    where, sizes = device(), {"in_channels": 1, "img_size": side, "feature_size": 16, "levels": 4}
    tasks = [PatchClustersTask(encoder=UNet.new_encoder(**sizes), lr=1e-3, steps=100).to(where) for _ in range(2)]
    tasks[1].encoder.load_state_dict(tasks[0].encoder.state_dict())
    other, views = Published(tasks[1]).to(where), torch.randn(2, batch, 1, *side, device=where)
    rng, shape = np.random.default_rng(0), np.array((192, 192, 96))
    drawn = np.stack([overlapping_boxes(shape, side, rng) for _ in range(batch)]) / shape
    boxes = torch.from_numpy(drawn).float().to(where)
    with torch.no_grad():
        apart = furthest(*(task.encoder(views[0])[0] for task in tasks))
    chosen = torch.optim.SGD(other.parameters(), lr=2e-3, momentum=0.9, weight_decay=1e-4)

    def theirs() -> None:
        loss = other(tuple(views), boxes)
        chosen.zero_grad()
        loss.backward()
        chosen.step()

    ours = stepper(
        tasks[0], lambda: tasks[0].losses(views[0], tasks[0].generator(0), partner=views[1], boxes=boxes)["loss"]
    )
    return race("pretraining_step_patch_clusters", ours, theirs, equality=f"tokens within {apart:.0e}", repeats=repeats)
