"""Speed against the published implementations, measured here.

python -m benchmarks                       # all of them, about 20 minutes on 2 cores; prints, changes nothing
python -m benchmarks mae_step_1728 crops   # only rows whose name holds one of these words
python -m benchmarks --record              # and keeps them in json_files/reference_benchmarks.json
python -m benchmarks gpu                   # one GPU, under ten minutes: benchmarks/gpu.py
"""

import argparse
import sys
from collections.abc import Callable

from ssl_utils.experiments.runs import PROJECT
from ssl_utils.files import read_json, write_json

REFERENCE = PROJECT / "json_files" / "reference_benchmarks.json"


def rows() -> dict[str, Callable[[], dict | list[dict]]]:
    """What is measured under each name; the large sizes once, for a step of theirs takes a minute there."""
    from benchmarks import bundles, crops, inflation, lesions, levers, mednext, pairs, pretraining, segmentation

    return {
        "crops_per_second": lambda: crops.crops_per_second(repeats=3),
        "mae_step_1728": lambda: pretraining.mae(
            "mae_step_1728", pretraining.BASE, side=192, patch=16, batch=1, repeats=3
        ),
        "mae_step_1728_laptop": lambda: pretraining.mae(
            "mae_step_1728_laptop", pretraining.SMALL, side=96, patch=8, batch=2, repeats=7
        ),
        "pretraining_step_restoration": lambda: pretraining.restoration(216, repeats=3),
        "pretraining_step_restoration_512": lambda: pretraining.restoration(512, repeats=2),
        "pretraining_step_restoration_1728": lambda: pretraining.restoration(1728, repeats=1),
        "pretraining_step_simmim": lambda: pretraining.simmim(216, repeats=3),
        "pretraining_step_simmim_512": lambda: pretraining.simmim(512, repeats=2),
        "pretraining_step_simmim_1728": lambda: pretraining.simmim(1728, repeats=1),
        "crop_pairs_per_second": lambda: pairs.pairs_per_second(repeats=3),
        "pretraining_step_patch_clusters": lambda: pairs.step(repeats=5),
        "sinkhorn": lambda: pairs.assignment(repeats=9),
        "windows_per_second": lambda: inflation.windows_per_second(repeats=5),
        "inflated_step": lambda: inflation.inflated_step(repeats=7),
        "window_prediction": lambda: inflation.volume_prediction(repeats=3),
        "finetuning_step": lambda: segmentation.finetuning_step(repeats=5),
        "mednext_step": lambda: mednext.step(repeats=5),
        "bundle_prediction": lambda: bundles.bundle_prediction(repeats=5),
        "sliding_window": lambda: segmentation.sliding_window(repeats=3),
        "lesionwise_score": lambda: lesions.lesionwise_score(repeats=3),
        "matrix_products": lambda: levers.matrix_products(repeats=9),
        "lever_bf16": lambda: levers.bf16(repeats=9),
        "lever_plain_attention": lambda: levers.plain_attention(repeats=9),
        "lever_tiled_attention": lambda: levers.tiled_attention(repeats=5),
        "lever_patch_embedding": lambda: levers.patch_embedding(repeats=3),
        "lever_head": lambda: levers.head(repeats=9),
        "lever_channels_last": lambda: levers.channels_last(repeats=9),
        "lever_freed_memory": lambda: levers.freed_memory(repeats=3),
        "lever_fused_adamw": lambda: levers.fused_adamw(repeats=5),
        "lever_checkpointing": lambda: mednext.checkpointing(repeats=3),
        "lever_straight_axes": lambda: levers.straight_axes(repeats=9),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="measure only what has one of these in its name; or: gpu")
    parser.add_argument("--record", action="store_true", help="keep the rows in json_files/reference_benchmarks.json")
    given = parser.parse_args()
    if given.words == ["gpu"]:
        from benchmarks import gpu

        sys.exit(gpu.main(record=given.record))
    chosen = {n: work for n, work in rows().items() if not given.words or any(word in n for word in given.words)}
    if not chosen:
        parser.error(f"nothing has {' or '.join(given.words)} in its name; there are {', '.join(rows())}, gpu")
    for work in chosen.values():
        found = work()
        if given.record:
            keep(found if isinstance(found, list) else [found])


def keep(found: list[dict]) -> None:
    """Put rows in the place of earlier ones of the same name and kind of device."""
    before = read_json(REFERENCE) if REFERENCE.exists() else []
    new = {(row["name"], row["device"].split(",")[0]) for row in found}
    write_json(REFERENCE, [row for row in before if (row["name"], row["device"].split(",")[0]) not in new] + found)


if __name__ == "__main__":
    main()
