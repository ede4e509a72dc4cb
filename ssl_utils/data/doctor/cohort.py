"""Findings that need several cases: one unlike the others, and two that share voxels."""

from collections.abc import Iterator, Sequence

import numpy as np

from ssl_utils.data.datalists import POOL
from ssl_utils.data.doctor import fingerprints
from ssl_utils.data.doctor.findings import Facts, Finding

FEWEST = 6  # cases below which there is no "usual"
HARDLY = 1e-3  # share of voxels below which an image of two values is left
LOOK = "look at the picture, and leave it out if it does not belong here"


def compare(cases: Sequence[Facts], labels: dict[int, str], *, channels: Sequence[str] = ()) -> list[Finding]:
    """All such findings; `labels` and `channels` are those of the list."""
    images = [case for case in cases if case.shape]
    odd = [*_spacing(images), *_intensity(images), *_levels(images, channels), *_labels(cases, labels)]
    return [Finding(name, "warning", reason, fix) for name, reason, fix in odd] + [*_shared(images)]


def _unusual(values: Sequence[float], factor: float) -> list[int]:
    """Indices of positive values more than `factor` from the median, and far outside the spread of the others."""
    if len(values) < FEWEST or min(values) <= 0:
        return []
    logs = np.log(values)
    off = np.abs(logs - np.median(logs))
    spread = 1.4826 * float(np.median(off))  # a standard deviation that outliers do not move
    return [int(i) for i in np.flatnonzero((off > np.log(factor)) & (off > 6 * spread))]


def _spacing(cases: list[Facts]) -> Iterator[tuple[str, str, str]]:
    odd = {index for axis in range(3) for index in _unusual([case.spacing[axis] for case in cases], 2)}
    usual = np.median([case.spacing for case in cases], axis=0) if odd else ()
    for index in sorted(odd):
        own, others = (" x ".join(f"{size:.3g}" for size in sizes) for sizes in (cases[index].spacing, usual))
        yield cases[index].name, f"its spacing is {own} mm where {others} mm is usual", "check the header; " + LOOK


def _intensity(cases: list[Facts]) -> Iterator[tuple[str, str, str]]:
    """A range far from the usual one; outliers; images of which the rule for intensities leaves two values."""
    scanned = [case for case in cases if case.kind == "image" and case.high]
    for channel in range(min((len(case.high) for case in scanned), default=0)):
        spans = [case.high[channel] - case.low[channel] for case in scanned]
        usual, of = float(np.median(spans)), f"channel {channel}: " if len(scanned[0].high) > 1 else ""
        for case, span in zip(scanned, spans, strict=True):
            if len(spans) >= FEWEST and usual > 0 and span > 0 and not 0.05 < span / usual < 20:
                reason = f"{of}its intensities span {span:.4g} (1st to 99th percentile) where {usual:.4g} is usual"
                yield case.name, reason, "multiply it to the usual scale; " + LOOK
            if span > 0 and case.most[channel] - case.low[channel] > 50 * span:
                reason = f"{of}its largest value is {case.most[channel]:.4g} where 99 % of the voxels are below "
                yield case.name, f"{reason}{case.high[channel]:.4g}", "clip it, if those voxels are errors"
            if case.inside[channel] < HARDLY and case.most[channel] > case.least[channel]:
                yield case.name, *_two_values(case, channel, of)


def _two_values(case: Facts, channel: int, of: str) -> tuple[str, str]:
    low, high = case.low[channel], case.high[channel]
    if low == high:
        reason = f"{of}its 1st and 99th percentile are both {low:.4g}, so that scaled by them it is 0 or 1"
        return reason, "crop the volume to what is not background"
    reason = f"{of}the dataset's rule for intensities turns it into 0 or 1 ({low:.4g} and {high:.4g} by percentiles)"
    return reason, "check its unit (CT: HU), or leave it out"


def _levels(cases: list[Facts], channels: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """A volume that is shifted against the others; CT in which nothing is below 0 HU, as air and fat are."""
    scanned = [case for case in cases if case.kind == "image" and case.high]
    for channel in range(min((len(case.high) for case in scanned), default=0)):
        lows = np.array([case.low[channel] for case in scanned])
        usual, span = np.median(lows), np.median([case.high[channel] - case.low[channel] for case in scanned])
        is_ct = channels[channel : channel + 1] and channels[channel].lower() == "ct"
        for case, low in zip(scanned, lows, strict=True):
            if is_ct and case.least[channel] > -10:
                reason = f"is called CT and has no value below {case.least[channel]:.4g}, so not in HU"
                yield case.name, reason, "apply slope and intercept (often -1024), or name the channel otherwise"
            elif len(lows) >= FEWEST and abs(low - usual) > 3 * max(span, case.high[channel] - low) > 0:
                reason = f"its values begin at {low:.4g} (1st percentile) where {usual:.4g} is usual"
                yield case.name, reason, "check the intercept of its scan; " + LOOK


def _labels(cases: Sequence[Facts], labels: dict[int, str]) -> Iterator[tuple[str, str, str]]:
    """A structure far from its usual volume, hardly any foreground, a value that no label has."""
    read = [case.millilitres for case in cases if case.millilitres is not None]
    for value in sorted({value for volumes in read for value in volumes}):
        having = [case for case in cases if (case.millilitres or {}).get(value)]
        sizes = [case.millilitres[value] for case in having]
        for index in _unusual(sizes, 5):
            measure = f"{sizes[index]:.3g} ml where {np.median(sizes):.3g} ml is usual"
            yield having[index].name, f"its {labels.get(value, f'label {value}')} measures {measure}", LOOK
    for case in cases:
        if case.foreground and case.foreground < 1e-5:
            fix = "crop the volume around the structure"
            yield case.name, f"only {case.foreground:.1e} of its voxels are labelled", fix
    for value, name in labels.items():
        if read and value and not any(value in volumes for volumes in read):
            yield "labels", f"value {value} ({name}) occurs in no label", "correct the list or the labels"


def _shared(cases: list[Facts]) -> Iterator[Finding]:
    """Equal voxels anywhere in two volumes; or, where there are none, similar thumbnails."""
    common = fingerprints.shared([case.sketch for case in cases])
    fix = "delete one of the two, or give both one patient in dataset.json and keep them in one split"
    for (one, two), count in sorted(common.items()):
        a, b = cases[one], cases[two]
        if apart(a, b) and a.digest != b.digest:  # whole copies are errors already
            share = 100 * count / min(len(a.sketch), len(b.sketch))
            reason = f"shares voxels with {_pair(a, b)}: {share:.0f} % of the blocks compared are equal"
            yield Finding(b.name, "error" if a.side else "warning", reason, fix)
    shown = [index for index, case in enumerate(cases) if case.thumbnail is not None]
    for (one, two), (correlation, mirrored) in fingerprints.alike([cases[index].thumbnail for index in shown]).items():
        a, b = cases[shown[one]], cases[shown[two]]
        if (shown[one], shown[two]) not in common and apart(a, b) and a.digest != b.digest:
            how = f"{'mirrored, ' if mirrored else ''}correlation {correlation:.3f}"
            reason = f"looks like {_pair(a, b)} ({how})"
            yield Finding(b.name, "warning", reason, f"look at both, and if they are one scan, {fix}")


def apart(a: Facts, b: Facts) -> bool:
    """Whether two cases are in different splits, or in none."""
    splits = [("pool" if case.side in POOL else case.side) for case in (a, b)]
    return splits[0] != splits[1] or not splits[0]


def _pair(a: Facts, b: Facts) -> str:
    first = f"{a.name} ({a.side})" if a.side else a.name
    return first + (f" though it is in {b.side}" if b.side else "")
