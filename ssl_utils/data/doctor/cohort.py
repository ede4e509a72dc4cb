"""What only shows when cases are compared: one that is unlike the others, and two that share what they must not."""

from collections.abc import Sequence

import numpy as np

from ssl_utils.data.datalists import POOL
from ssl_utils.data.doctor import fingerprints
from ssl_utils.data.doctor.casebook import Facts
from ssl_utils.data.doctor.findings import Finding

FEWEST = 6  # cases below which there is no "usual"
LOOK = "look at the picture, and leave it out if it does not belong here"


def compare(cases: Sequence[Facts], labels: dict[int, str], *, leak: str = "warning") -> list[Finding]:
    """All findings of this kind; `leak` is the severity of voxels that two sides share."""
    images = [case for case in cases if case.shape]
    return [
        *_spacing(images),
        *_intensity(images),
        *_organs(cases, labels),
        *_foreground(cases),
        *_never(cases, labels),
        *_shared(images, leak),
    ]


def _unusual(values: Sequence[float], factor: float) -> list[int]:
    """Indices of positive values more than `factor` from the median, and far outside the spread of the others."""
    if len(values) < FEWEST or min(values) <= 0:
        return []
    logs = np.log(values)
    off = np.abs(logs - np.median(logs))
    spread = 1.4826 * float(np.median(off))  # a deviation that outliers do not move
    return [int(i) for i in np.flatnonzero((off > np.log(factor)) & (off > 6 * spread))]


def _spacing(cases: list[Facts]) -> list[Finding]:
    odd = {index for axis in range(3) for index in _unusual([case.spacing[axis] for case in cases], 2)}
    usual = np.median([case.spacing for case in cases], axis=0) if odd else ()
    found = []
    for index in sorted(odd):
        reason = f"its spacing is {_mm(cases[index].spacing)} mm where {_mm(usual)} mm is usual"
        found.append(Finding(cases[index].name, "warning", reason, "check the header; " + LOOK))
    return found


def _intensity(cases: list[Facts]) -> list[Finding]:
    found = []
    scanned = [case for case in cases if case.kind == "image" and case.high]
    for channel in range(min((len(case.high) for case in scanned), default=0)):
        spans = [case.high[channel] - case.low[channel] for case in scanned]
        usual, of = float(np.median(spans)), f"channel {channel}: " if len(scanned[0].high) > 1 else ""
        for case, span in zip(scanned, spans, strict=True):
            if len(spans) >= FEWEST and usual > 0 and span > 0 and not 0.05 < span / usual < 20:
                reason = f"{of}its intensities span {span:.4g} (1st to 99th percentile) where {usual:.4g} is usual"
                found.append(Finding(case.name, "warning", reason, "scale each volume by its own percentiles"))
    for case in scanned:
        for low, high, most in zip(case.low, case.high, case.most, strict=True):
            if high > low and most - low > 50 * (high - low):
                reason = f"its largest value is {most:.4g} where 99 % of the voxels are below {high:.4g}"
                found.append(Finding(case.name, "warning", reason, "scale by percentiles, not by the maximum"))
    return found


def _organs(cases: Sequence[Facts], labels: dict[int, str]) -> list[Finding]:
    """A structure of ten times the usual volume, or a tenth."""
    found = []
    for value in sorted({value for case in cases for value in case.millilitres or {}}):
        having = [case for case in cases if (case.millilitres or {}).get(value)]
        sizes = [case.millilitres[value] for case in having]
        for index in _unusual(sizes, 5):
            reason = (
                f"its {labels.get(value, f'label {value}')} measures {sizes[index]:.3g} ml "
                f"where {np.median(sizes):.3g} ml is usual"
            )
            found.append(Finding(having[index].name, "warning", reason, LOOK))
    return found


def _foreground(cases: Sequence[Facts]) -> list[Finding]:
    labelled = [case for case in cases if case.foreground]
    return [
        Finding(
            case.name,
            "warning",
            f"only {case.foreground:.1e} of its voxels are labelled",
            "crop the volume around the structure, or train with balanced crops only",
        )
        for case in labelled
        if case.foreground < 1e-5
    ]


def _never(cases: Sequence[Facts], labels: dict[int, str]) -> list[Finding]:
    """A value that the list names and no label holds."""
    read = [case.millilitres for case in cases if case.millilitres is not None]
    return [
        Finding("labels", "warning", f"value {value} ({name}) occurs in no label", "correct the list or the labels")
        for value, name in labels.items()
        if read and value and not any(value in held for held in read)
    ]


def _shared(cases: list[Facts], leak: str) -> list[Finding]:
    """Equal voxels anywhere in two volumes; or, where there are none, the same picture."""
    found = []
    common = fingerprints.shared([case.sketch for case in cases])
    for (one, two), count in sorted(common.items()):
        a, b = cases[one], cases[two]
        if _apart(a, b):
            share = 100 * count / min(len(a.sketch), len(b.sketch))
            reason = f"shares voxels with {_told(a)}{_of(b)}: {share:.0f} % of the blocks compared are equal"
            cure = "keep both on one side, or one of them"
            found.append(Finding(b.name, leak if a.side else "warning", reason, cure))
    shown = [(index, case.thumbnail) for index, case in enumerate(cases) if case.thumbnail is not None]
    for (one, two), likeness in fingerprints.alike([thumbnail for _, thumbnail in shown]).items():
        pair = shown[one][0], shown[two][0]
        a, b = cases[pair[0]], cases[pair[1]]
        if pair not in common and _apart(a, b):
            reason = f"looks like {_told(a)}{_of(b)} (correlation {likeness:.3f})"
            found.append(Finding(b.name, "warning", reason, "look at both: if they are one scan, keep one"))
    return found


def _apart(a: Facts, b: Facts) -> bool:
    """On two sides, or named without sides; not whole copies, which are found by their digest."""
    if a.digest and a.digest == b.digest:
        return False
    places = [("pool" if case.side in POOL else case.side) for case in (a, b)]
    return places[0] != places[1] or not places[0]


def _told(case: Facts) -> str:
    return f"{case.name} ({case.side})" if case.side else case.name


def _of(case: Facts) -> str:
    return f" though it is in {case.side}" if case.side else ""


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{size:.3g}" for size in spacing)
