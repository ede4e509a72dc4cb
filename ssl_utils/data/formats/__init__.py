"""Files of volumes: what a name says, which reader is responsible, one strict reader a format."""

from ssl_utils.data.formats.reading import (
    NIFTI,
    collected,
    header,
    is_series,
    open_volume,
    parts,
    stem,
    strangers,
    suffix,
    volumes_in,
)

__all__ = [
    "NIFTI",
    "collected",
    "header",
    "is_series",
    "open_volume",
    "parts",
    "stem",
    "strangers",
    "suffix",
    "volumes_in",
]
