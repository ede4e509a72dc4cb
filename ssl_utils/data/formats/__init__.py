"""Files of volumes: what a name says, which reader is responsible, one strict reader a format."""

from ssl_utils.data.formats.names import NIFTI, collected, stem, suffix

__all__ = ["NIFTI", "collected", "stem", "suffix"]
