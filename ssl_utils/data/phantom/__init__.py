"""The phantoms: synthetic CT of a trunk with its organs, and MRI of a brain with a tumour, drawn by a program."""

from ssl_utils.data.phantom.brain import make_brain
from ssl_utils.data.phantom.brain_set import write_brains
from ssl_utils.data.phantom.writing import make_volume, plan, write_dataset

__all__ = ["make_brain", "make_volume", "plan", "write_brains", "write_dataset"]
