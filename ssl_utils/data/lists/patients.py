"""The patient of a case by the name of its file, for lists that do not name it."""

import re

_SUBJECT = re.compile(r"(?:^|[/_])(sub-(?:[a-z]*\d[a-z0-9]*|[a-z]+(?=[/_]ses-)))", re.IGNORECASE)  # BIDS
_BRATS = re.compile(r"(brats-[a-z]+-\d{5})-\d{3}(?!\d)", re.IGNORECASE)  # its last number is a time point
_WORD = "ses|sess|session|visit|tp|timepoint|time|scan|followup|fu|day|week|month|year|baseline|bl"
_VISIT = re.compile(rf"(?:{_WORD}|[mv](?=\d))\d*|(?:19|20)\d\d[01]\d[0-3]\d", re.IGNORECASE)
_SIDE = re.compile("left|right|l|r", re.IGNORECASE)
_MODALITY = re.compile(r"t[12](?:w|c|ce|gd|n|f)?|b\d?0+|[1-7]t|[234]d", re.IGNORECASE)  # numbers, but not of a patient


def patient_of(name: str, path: str = "") -> str:
    """One patient for names that differ only in their session, visit, time point, scan, date, or left and right.

    `sub-07` of BIDS, which may be in `path` too, is the patient. Sessions and dates count after a number only:
    scan_01 and scan_02 are two patients, p7_scan_01 and p7_scan_02 are one.
    """
    if match := _SUBJECT.search(name) or _SUBJECT.search(path) or _BRATS.match(name):
        return match[1]
    parts = re.split(r"[-_. ]+", re.sub(r"(?<=\d\d)(?=[lr]$)", "_", name, flags=re.IGNORECASE))
    kept: list[str] = []
    numbered = after_visit = False
    for part in parts:
        after_visit = numbered and bool(_VISIT.fullmatch(part) or (after_visit and part.isdigit()))
        if not after_visit and not _SIDE.fullmatch(part):
            kept.append(part)
            numbered |= any(map(str.isdigit, part)) and not _MODALITY.fullmatch(part)
    return "_".join(kept) if numbered and len(kept) < len(parts) else name
