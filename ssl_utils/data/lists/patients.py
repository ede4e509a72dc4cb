"""The patient of a case by the name of its file, for lists that do not name it."""

import re
import unicodedata
from collections.abc import Sequence

_SUBJECT = re.compile(r"(?:^|[/_])(sub-(?:[a-z]*\d[a-z0-9]*|[a-z]+(?=[/_]ses-)))", re.IGNORECASE)  # BIDS
_PUBLISHED = re.compile(  # BraTS, UPenn-GBM, ADNI, ...: a time point, a phase or a scan follows
    r"(?:^|_)(?:(brats(?:[-_][a-z]+){1,2}[-_]\d{4,5})[-_]\d{1,3}|(upenn[-_]gbm[-_]\d{5})[-_]\d\d|(\d{3}_s_\d{4})|(rhuh-\d{4})_\d"
    r"|(miriad_\d{3})_|((?:train|valid)_\d+)_[a-z]_\d|^(training\d\d)_\d\d|^(\d{5})_\d{7})(?!\d)",
    re.IGNORECASE,
)
_UID = re.compile(r"\d+(?:\.\d+){3,}")  # of DICOM
_WORD = "ses|sess|session|visit|tp|timepoint|time|scan|followup|fu|day|week|month|year|baseline|bl|run|series|copy"
_RARE = "exam|study|acq|rep|frame|phase|wk|pre|post|preop|postop|intraop|test|retest|rescan|screening"
_DATE = r"(?:19|20)\d\d[01]\d[0-3]\d(?:t?[0-2]\d[0-5]\d(?:[0-5]\d)?)?|[0-3]\d[01]\d(?:19|20)\d\d"
_AFTER = r"\d+(?:d|days?|wk?s?|weeks?|m|mo|mon|months?|y|yrs?|years?)"  # 6mo, 12months
_VISIT = re.compile(rf"(?:{_WORD}|{_RARE}|[mvw](?=\d))\d*[ab]?|d\d{{4}}|{_DATE}|{_AFTER}|\(\d+\)", re.IGNORECASE)
_YEAR_FIRST = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_.])([01]?\d)\2([0-3]?\d)(?!\d)")
_YEAR_LAST = re.compile(r"(?<!\d)([0-3]?\d)([-.])([01]?\d)\2((?:19|20)\d\d)(?!\d)")
_BEFORE_A_NUMBER = re.compile(f"{_WORD}|{_DATE}", re.IGNORECASE)
_BEFORE_FEW = re.compile(_RARE, re.IGNORECASE)  # BraTS20_test_001 is a patient, p1_exam_1 an examination
_NO_PATIENT = re.compile(r"(?:cent(?:er|re)|site|hospital|cohort|batch|fold)\d{1,2}|covid19", re.IGNORECASE)
_SIDE = re.compile("left|right|l|r", re.IGNORECASE)
_MODALITY = re.compile(r"t[12](?:w|c|ce|gd|n|f|flair)?|b\d?0+|[1-7]t|[234]d", re.IGNORECASE)  # no patient's numbers
_PLANE = "ax|axial|sag|sagittal|cor|coronal|sa|la|ed|es|native|arterial|venous|portal|delayed"  # planes and phases
_SEQUENCE = re.compile(
    rf"{_MODALITY.pattern}|t\d\d?|flair|ct\d?|cbct|pet|pt|pib|mri?\d?|mpr\d?|dwi|adc|swi|pd|{_PLANE}", re.IGNORECASE
)
_INNER = re.compile(rf"(?<=\d)(?=(?:{_WORD})[-_]?\d)|(?<=\d\d)(?=v\d\d?$)", re.IGNORECASE)  # subject1session1, 1001V2


def patients_of(cases: Sequence[tuple[str, str, str | None]]) -> list[str]:
    """One patient per (name, path, patient given by the list or None).

    A given patient is kept as it is. The others are read from their names, and names that differ only in leading zeros,
    upper case or separators (`case_7`, `Case-007`) are one patient, called as the list gives it or as it comes first.
    """
    united: dict[str, str] = {}
    for _, _, given in cases:
        if given:
            united.setdefault(_plain(given), given)
    read = [patient_of(name, path) for name, path, _ in cases]
    return [given or united.setdefault(_plain(r), r) for r, (_, _, given) in zip(read, cases, strict=True)]


def patient_of(name: str, path: str = "") -> str:
    """One patient for names that differ only in session, visit, time point, scan, date, copy, sequence, or side.

    `sub-07` of BIDS, which may be in `path` too, is the patient. All but the side count after a number only: scan_01
    and scan_02 are two patients, as site1_scan_01 and site1_scan_02 are; p7_scan_01 and p7_scan_02 are one.
    """
    if match := _SUBJECT.search(name) or _SUBJECT.search(path) or _PUBLISHED.search(name):
        return match[match.lastindex]
    if _UID.fullmatch(name):
        return name
    apart = re.sub(r"(?<=\d\d)(?=[lr]$)", "_", _INNER.sub("_", _with_short_dates(name)), flags=re.IGNORECASE)
    parts = re.split(r"[-_. ]+", apart)
    kept: list[str] = []
    numbered, digits = False, 0  # how many a number may have that belongs to a visit
    for part in parts:
        number_of_visit = len(part) <= digits and bool(
            re.fullmatch(r"\d+[ab]?", part)
        )  # the 2 of p07_visit_2, not of p07_visit2_2
        if numbered and not number_of_visit:
            digits = 99 if _BEFORE_A_NUMBER.fullmatch(part) else 2 * bool(_BEFORE_FEW.fullmatch(part))
        again = numbered and (number_of_visit or _VISIT.fullmatch(part) or _SEQUENCE.fullmatch(part))
        if not again and not _SIDE.fullmatch(part):
            kept.append(part)
            numbered |= any(map(str.isdigit, part)) and not (_MODALITY.fullmatch(part) or _NO_PATIENT.fullmatch(part))
    return "_".join(kept) if numbered and len(kept) < len(parts) else name


def _with_short_dates(name: str) -> str:
    """Dates such as 2020-1-15 and 15.01.2020 as 20200115."""
    name = _YEAR_FIRST.sub(lambda d: f"{d[1]}{d[3]:0>2}{d[4]:0>2}", name)
    return _YEAR_LAST.sub(lambda d: f"{d[4]}{d[3]:0>2}{d[1]:0>2}", name)


def why_one(patient: str, cases: Sequence[tuple[str, str]]) -> str:
    """Why cases, each a name and a path, count as one patient."""
    by_name = {patient_of(*case) for case in cases}
    if by_name == {patient}:
        return "names differ in session, scan, sequence or side"
    if {_plain(name) for name in by_name} == {_plain(patient)}:
        return "names differ in zeros, upper case or separators"
    return "as the list says"


def _plain(patient: str) -> str:
    """Without leading zeros, upper case, and separators that are not between two numbers or two words."""
    text = re.sub(r"[-_. ]+", "_", unicodedata.normalize("NFKC", patient).casefold())
    text = re.sub(r"(?<=[^\W\d_])_(?=\d)|(?<=\d)_(?=[^\W\d_])", "", text)
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)
