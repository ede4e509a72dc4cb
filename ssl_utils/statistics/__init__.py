"""Figures from runs: means with intervals, paired gains, labels saved."""

from ssl_utils.statistics.summaries import (
    CELL,
    RUN,
    case_means,
    class_means,
    collapsed,
    gains,
    is_control,
    paired,
    run_means,
    structures,
    summary,
    win_rate,
)

__all__ = [
    "CELL",
    "RUN",
    "case_means",
    "class_means",
    "collapsed",
    "gains",
    "is_control",
    "paired",
    "run_means",
    "structures",
    "summary",
    "win_rate",
]
