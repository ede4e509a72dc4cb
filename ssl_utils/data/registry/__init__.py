"""The named datasets, one file per family. Adding one means adding an entry to `DATASETS` of a file."""

from dataclasses import replace

from ssl_utils.data.dataset import Dataset
from ssl_utils.data.registry import brats, ct, decathlon, mri, recorded

REGISTRY = {d.name: d for family in (recorded, ct, brats, mri, decathlon) for d in family.DATASETS}


def _with_list(known: Dataset, name: str) -> Dataset:
    """A dataset whose only list is this one, and whose runs are kept under its name."""
    rules = {name: known.rules[name]} if name in known.rules else {}
    return replace(known, name=name, lists=() if rules else (name,), rules=rules)


FURTHER = {  # further lists of a dataset, published ones above all, are chosen as datasets of their own
    name: _with_list(known, name)
    for known in REGISTRY.values()
    for name in (*known.lists, *known.rules)
    if name not in REGISTRY
}
