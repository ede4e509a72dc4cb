"""The phantom: synthetic CT volumes of a trunk with their labels, drawn by a program."""

from ssl_utils.data.phantom.writing import make_volume, plan, write_dataset

__all__ = ["make_volume", "plan", "write_dataset"]
