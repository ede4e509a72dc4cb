"""Examine files, a dataset, a cohort before anything is trained on them."""

from ssl_utils.data.doctor.examine import Report, examine, examine_datalist, report, report_datalist, table

__all__ = ["Report", "examine", "examine_datalist", "report", "report_datalist", "table"]
