"""Examine files, a dataset, a cohort before anything is trained on them."""

from ssl_utils.data.doctor.examine import examine, examine_datalist, examine_dataset, examine_folder
from ssl_utils.data.doctor.findings import Finding, Report, gathered, refuse_other_file
from ssl_utils.data.doctor.on_grid import on_grid

VERSION = 5  # to be raised when other things are found, so that kept reports are no longer used

__all__ = ["VERSION", "Finding", "Report", "examine", "examine_datalist", "examine_dataset", "examine_folder"]
__all__ += ["gathered", "on_grid", "refuse_other_file"]
