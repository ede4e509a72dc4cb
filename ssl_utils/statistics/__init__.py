"""Statistics of fine-tuning runs: means with intervals, paired gains, labels saved."""

from ssl_utils.statistics.cells import CELL, RUN, case_means, class_means, is_control
from ssl_utils.statistics.summaries import collapsed, gains, paired, run_means, structures, summary

__all__ = ["CELL", "RUN", "case_means", "class_means", "collapsed", "gains", "is_control", "paired", "run_means"]
__all__ += ["structures", "summary"]
