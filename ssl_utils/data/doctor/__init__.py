"""Examine files, a dataset, a cohort before anything is trained on them."""

from ssl_utils.data.doctor.examine import examine, examine_datalist, unread
from ssl_utils.data.doctor.findings import refuse_other_file
from ssl_utils.data.doctor.on_grid import on_grid

__all__ = ["examine", "examine_datalist", "on_grid", "refuse_other_file", "unread"]
