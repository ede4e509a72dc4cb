"""Datalists that follow from a folder by the `Layout` and the `Rule` of its dataset."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from ssl_utils.data.cases import SIDES, Case, Datalist, by_patient, in_turn
from ssl_utils.data.dataset import Dataset, Layout, Rule
from ssl_utils.data.formats.names import stem, volumes_in
from ssl_utils.data.lists.own_folder import as_listed
from ssl_utils.data.lists.patients import patients_of
from ssl_utils.data.lists.sequences import exchanged
from ssl_utils.errors import CourseError


def datalist(dataset: Dataset, root: Path) -> Datalist:
    """The cases of a named dataset's folder in the splits of its first rule.

    Raises:
        CourseError: files that do not fit the layout, or too few cases for the rule.
    """
    name, rule = next(iter(dataset.rules.items()))
    cases = scan(root, dataset.layout) if dataset.layout else _listed(root, dataset)
    return Datalist(
        name=name,
        description=rule.about,
        licence=dataset.licence,
        reference=dataset.source,
        channels=dataset.channels,
        labels=dataset.labels,
        regions=dataset.regions or {},
        **split(cases, rule, root),
    )


def _listed(root: Path, dataset: Dataset) -> list[Case]:
    listed = as_listed(root)
    if exchanged(listed.channels, dataset.channels):
        why = f"names the channels {', '.join(listed.channels)}, and {dataset.name} has {', '.join(dataset.channels)}"
        raise CourseError(
            f"{root / 'dataset.json'}: {why}; use its own folder as --dataset folder, or correct the list"
        )
    return listed.all_cases()


def scan(root: Path, layout: Layout) -> list[Case]:
    """All cases of a folder, in the order of paths; files that fit no pattern are left out.

    Raises:
        CourseError: no image, a missing channel, a case twice, or a label without an image.
    """
    images: dict[str, dict[str, Path]] = defaultdict(dict)
    labels: dict[str, Path] = {}
    patient: dict[str, str | None] = {}
    site: dict[str, str] = {}
    for path, is_label, groups in _matches(root, layout):
        case, key = groups["case"], groups["case"] if is_label else groups.get("channel", "")
        files = labels if is_label else images[case]
        if (first := files.setdefault(key, path)) != path:
            raise CourseError(f"{path}: is the same file of {case} as {first}; move one of the two elsewhere")
        if not is_label:
            patient[case], site[case] = groups.get("patient"), groups.get("site") or ""
    if not images:
        raise CourseError(
            f"{root}: has no image like {layout.example}; arrange the files as in the dataset's own archive"
        )
    if lost := sorted({*labels} - {*images}):
        raise CourseError(f"{labels[lost[0]]}: is a label without an image; add the image, or move the label elsewhere")
    paths = {case: _in_channels(case, files, layout) for case, files in images.items()}
    patients = patients_of([(case, str(files[0].relative_to(root)), patient[case]) for case, files in paths.items()])
    return [
        Case(case, files if len(files) > 1 else files[0], labels.get(case), who, site[case])
        for (case, files), who in zip(paths.items(), patients, strict=True)
    ]


def _matches(root: Path, layout: Layout) -> Iterator[tuple[Path, bool, dict[str, str]]]:
    for path in volumes_in(root, deep=True):
        name = path.relative_to(root).with_name(stem(path)).as_posix()
        if label := re.fullmatch(layout.label, name) if layout.label else None:
            yield path, True, label.groupdict()
        elif image := re.fullmatch(layout.image, name):
            yield path, False, image.groupdict()


def _in_channels(case: str, files: dict[str, Path], layout: Layout) -> tuple[Path, ...]:
    if missing := [channel for channel in layout.channels if channel not in files]:
        folder = next(iter(files.values())).parent
        raise CourseError(f"{folder}: has no {missing[0]} of {case}; add the file, or move the case elsewhere")
    return tuple(files[channel] for channel in layout.channels or files)


def split(cases: Sequence[Case], rule: Rule, root: Path) -> dict[str, tuple[Case, ...]]:
    """Split -> cases by the rule. Images without a label, where others have one, are unlabeled; those of patients that
    are held out are not used.

    Raises:
        CourseError: another number of cases than the rule is for, or too few patients.
    """
    labelled = [case for case in cases if case.label] or list(cases)
    splits: dict[str, list[Case]] = defaultdict(list)
    if rule.positions:
        if len(labelled) != (count := sum(map(len, rule.positions.values()))):
            why = f"lists {len(labelled)} labelled cases, and the published split is of {count}"
            raise CourseError(f"{root / 'dataset.json'}: {why}; complete the copy, or choose another list")
        splits |= {name: [labelled[number] for number in numbers] for name, numbers in rule.positions.items()}
    else:
        for case in labelled:
            path = case.files[0][1].relative_to(root).as_posix()
            splits[next((name for name, there in rule.fixed.items() if re.search(there, path)), "training")].append(
                case
            )
        _draw(splits, rule, root)
    held_out = {case.patient for name, members in splits.items() if name != "training" for case in members}
    others = [case for case in cases if case.label is None and case.patient not in held_out]
    splits["unlabeled"] = others if labelled[0].label else []
    return {name: tuple(splits[name]) for name in SIDES}


def _draw(splits: dict[str, list[Case]], rule: Rule, root: Path) -> None:
    """Fill the empty splits with whole patients of training, whose rest is put in order."""
    left, position = by_patient(splits["training"], seed=0), {case: i for i, case in enumerate(splits["training"])}
    missing = {name: max(1, round(share * len(left))) for name, share in rule.drawn.items() if not splits[name]}
    if len(left) <= sum(missing.values()):
        why = f"cases of {len(left)} patients are there, {sum(missing.values()) + 1} are needed"
        raise CourseError(f"{root}: {why} for training, {' and '.join(missing) or 'no other split'}; complete the copy")
    for name, count in missing.items():
        splits[name] = sorted((case for group in left[:count] for case in group), key=position.get)
        left = left[count:]
    rest = sorted((case for group in left for case in group), key=position.get)
    splits["training"] = rest if rule.in_order else [*in_turn(rest, seed=0)]
