"""How much anatomy do the clusters of chapter 07 give away, by intensity, by position, and by learnt features?

    python -m benchmarks.cluster_anatomy hippocampus --weights dinov2.safetensors      # about 10 minutes on one core

At scale laptop, 48 clusters are fitted to the voxels of some volumes of the pool and compared with the labels of the
middle crops of some validation cases (never test cases), and with the clusters by position alone. `mae` is an encoder
that this dataset's pool has trained for half the steps of the scale; `dino` is the 2D network in the file. Prints a
line per clustering, and writes the rows of the dataset into json_files/reference_cluster_anatomy.json.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

from ssl_utils import experiments
from ssl_utils.data.cache import Prepared
from ssl_utils.data.crops import Crops, crop_at
from ssl_utils.experiments import Pretraining, runs, scales
from ssl_utils.files import read_json, sha256, write_json
from ssl_utils.pretext import cluster_maps
from ssl_utils.pretext.slice_features import STRIDE, UPSAMPLING, SliceFeatures, WindowFeatures
from ssl_utils.pretext.voxel_clusters import SAMPLE, describe

REFERENCE = runs.PROJECT / "json_files" / "reference_cluster_anatomy.json"
CLUSTERS, POOL, CASES, SEED = 48, 16, 6, 0
COLUMNS = {"value": slice(None, -3), "position": slice(-3, None), "value and position": slice(None)}


class Anatomy:
    """A dataset: volumes to fit to, the middle crops of validation cases, and their labels."""

    def __init__(self, dataset: str) -> None:
        self.setup = experiments.setup(dataset=dataset, scale=scales.get("laptop"))
        self.roi, self.channels = self.setup.grid.roi, len(self.setup.dataset.channels)
        self.pool = self.setup.prepared(self.setup.pool[:POOL])
        self.held_out = self.setup.prepared(self.setup.datalist.validation[:CASES])
        self.crops = [crop_at(case, self.corner(case), self.roi) for case in self.held_out]
        self.labels = torch.cat([crop["label"].flatten() for crop in self.crops])

    def corner(self, case: Prepared) -> list[int]:
        return [(n - r) // 2 for n, r in zip(case.image.shape[1:], self.roi, strict=True)]

    def by_intensity(self, columns: slice) -> torch.Tensor:
        """Clusters of the crops by these columns of `describe`, as chapter 07 computes them."""
        generator, rows = torch.Generator().manual_seed(SEED), []
        crops = Crops(self.pool, roi=self.roi, seed=SEED)
        for i in range(len(self.pool)):
            points = describe(crops[i]["image"][None], crops[i]["bounds"][None]).flatten(0, -2)
            rows.append(points[torch.randperm(len(points), generator=generator)[:SAMPLE]])
        centres = cluster_maps.kmeans(torch.cat(rows)[:, columns], CLUSTERS, generator=generator.manual_seed(SEED))
        points = [describe(crop["image"][None], crop["bounds"][None]).flatten(0, -2)[:, columns] for crop in self.crops]
        return cluster_maps.nearest(torch.cat(points), centres)

    def by_features(self, features: SliceFeatures | WindowFeatures, upsampling: str) -> torch.Tensor:
        """Clusters of the crops by learnt features, which see the slices of the crop in full."""
        centres = cluster_maps.fit(features, self.pool, CLUSTERS, upsampling=upsampling, seed=SEED)
        parts = []
        for case in self.held_out:
            x, y, z = (slice(a, a + n) for a, n in zip(self.corner(case), self.roi, strict=True))
            slab = cluster_maps.volume_of(case)[..., z]
            parts.append(cluster_maps.cluster_map(features, slab, centres, upsampling=upsampling)[x, y].flatten())
        return torch.cat(parts).cpu()


def rows_of(anatomy: Anatomy, weights: str) -> list[dict]:
    position, rows = anatomy.by_intensity(COLUMNS["position"]), []
    run = Pretraining.of("mae", steps=anatomy.setup.scale.pretrain_steps // 2)
    encoder = experiments.pretrain(anatomy.setup, run) / "encoder.safetensors"
    clusterings = {name: lambda columns=columns: anatomy.by_intensity(columns) for name, columns in COLUMNS.items()}
    for name, features in {"mae": (WindowFeatures, encoder), "dino": (SliceFeatures, weights)}.items():
        learnt = features[0](features[1], anatomy.channels)
        for way in UPSAMPLING:
            clusterings[f"{name}, {way}"] = lambda learnt=learnt, way=way: anatomy.by_features(learnt, way)
    inside = anatomy.labels > 0
    for name, clustering in clusterings.items():
        began = time.perf_counter()
        clusters = clustering()
        row = {"clusters by": name, "seconds": round(time.perf_counter() - began, 1)}
        scopes = {
            "all voxels": cluster_maps.agreement(clusters, anatomy.labels),
            "without background": cluster_maps.agreement(clusters[inside], anatomy.labels[inside]),
            "position": cluster_maps.agreement(clusters, position),
        }
        rows.append(row | {where: {k: round(v, 4) for k, v in scores.items()} for where, scores in scopes.items()})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--weights", required=True, help="file of a 2D DINO network")
    chosen, commit = parser.parse_args(), runs.commit()
    anatomy = Anatomy(chosen.dataset)
    record = read_json(REFERENCE) if REFERENCE.exists() else {}
    record[chosen.dataset] = {
        "command": f"python -m benchmarks.cluster_anatomy {chosen.dataset} --weights {Path(chosen.weights).name}",
        "weights": {"file": Path(chosen.weights).name, "sha256": sha256(chosen.weights)},
        "clusters": CLUSTERS,
        "pool": len(anatomy.pool),
        "cases": [case.id for case in anatomy.held_out],
        "stride": STRIDE,
        "seed": SEED,
        "commit": commit,
        "rows": rows_of(anatomy, chosen.weights),
    }
    write_json(REFERENCE, record)


if __name__ == "__main__":
    sys.exit(main())
