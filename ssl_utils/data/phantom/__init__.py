"""The phantom: CT volumes of a trunk that a program draws, with their labels."""

from ssl_utils.data.phantom.writing import make_volume, plan, write_dataset

__all__ = ["make_volume", "plan", "write_dataset"]
