"""Channels, labels and regions of a datalist: checked."""

from pathlib import Path
from typing import Any

from ssl_utils.data.cases import IGNORE
from ssl_utils.data.lists import keys
from ssl_utils.errors import CourseError


def labels(path: Path, labels: Any) -> dict[int, str]:
    """value -> name with the background, and nnU-Net's `ignore`; its name -> value is inverted.

    Raises CourseError, as the functions below, naming the list and what to correct.
    """
    try:
        pairs = [(key, name) if isinstance(name, str) else (name, key) for key, name in labels.items()]
        names = {_whole(value): str(name).strip() for value, name in pairs}
    except (AttributeError, TypeError, ValueError):
        raise CourseError(f'{path}: labels must look like {{"0": "background", "1": "liver"}}; correct them') from None
    if len(names) < len(pairs) or any(not 0 <= value <= 255 for value in names):
        raise CourseError(f"{path}: label values must be different whole numbers in 0 to 255; correct labels")
    names = {0: "background"} | names if names else {}
    for name in names.values():  # scores are kept by name
        if [*names.values()].count(name) > 1:
            raise CourseError(f"{path}: two labels are called {name!r}; give each value a name of its own")
    ignored = [value for value, name in names.items() if name.lower() == IGNORE]
    if ignored and ignored != [max(names)]:  # as in nnU-Net
        why = f"ignore is {', '.join(map(str, ignored))}, not one value above all others"
        raise CourseError(f"{path}: {why}; renumber the labels, or give it another name")
    return dict(sorted(names.items()))


def _whole(value: Any) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError
    return int(value)


def channels(path: Path, channels: Any) -> tuple[str, ...]:
    """The names of the channels in their order, from a list or from nnU-Net's number -> name."""
    names = keys.in_order(channels)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CourseError(f'{path}: channels must be a list of names such as ["CT"]; correct it')
    return tuple(names)


def regions(path: Path, regions: Any, labels: dict[int, str]) -> dict[str, tuple[int, ...]]:
    """region -> label values that it unites, all of them in `labels`."""
    try:
        if any(isinstance(values, str) for values in regions.values()):  # "12" is not 1 and 2
            raise ValueError
        parsed = {str(name): tuple(map(_whole, values)) for name, values in regions.items()}
    except (AttributeError, TypeError, ValueError):
        raise CourseError(f'{path}: regions must look like {{"WT": [1, 2, 4]}}; correct them') from None
    for name, values in parsed.items():
        if name.lower() in ("background", IGNORE):
            raise CourseError(f"{path}: a region is called {name}, the name of no structure; give it another")
        if not values or 0 in values or not set(values) <= set(labels):
            why = f"region {name} unites {list(values)}, not all of them labels"
            raise CourseError(f"{path}: {why}; correct it or labels")
    return parsed
