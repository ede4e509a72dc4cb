"""What the doctor says: a finding, and how many of them become few lines."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing the doctor found. An error stops a run or spoils its result; a warning is to be looked at."""

    file: str
    severity: str
    reason: str
    cure: str

    def line(self) -> str:
        return f"{self.file}: {self.reason}; {self.cure}"


def gathered(findings: Iterable[Finding], *, most: int = 5) -> list[tuple[Finding, int]]:
    """Each error, then warnings; of more than `most` that differ in numbers alone the first, and how many follow it."""
    kept, alike = [], defaultdict(list)
    for finding in findings:
        if finding.severity == "error":
            kept.append((finding, 0))
        else:
            alike[re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "0", finding.reason)].append(finding)
    for same in alike.values():
        kept += [(one, 0) for one in same] if len(same) <= most else [(same[0], len(same) - 1)]
    return kept


def summary(findings: Iterable[Finding], *, most: int = 5) -> list[str]:
    """The lines to print."""
    return [
        f"{finding.severity}: {finding.line()}" + (f" (and {more} more like it)" if more else "")
        for finding, more in gathered(findings, most=most)
    ]
