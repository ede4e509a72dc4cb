"""Examine files, a dataset, a cohort before anything is trained on them."""

from ssl_utils.data.doctor.examine import examine, examine_datalist

__all__ = ["examine", "examine_datalist"]
