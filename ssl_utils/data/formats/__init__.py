"""Files of volumes: their names, and one strict reader per format."""

from ssl_utils.data.formats.names import NIFTI, collected, stem, suffix

__all__ = ["NIFTI", "collected", "stem", "suffix"]
