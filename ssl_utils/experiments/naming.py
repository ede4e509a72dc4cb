"""Names of runs: a pretext task or an init, and the options that are not at their default."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")  # suffixes of files of weights


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are set: None means the same as leaving an option out."""
    return {key: value for key, value in options.items() if value is not None}


def variant(name: str, options: Mapping[str, Any]) -> str:
    """The name of a run: `simmim__mask_ratio=0.3`. A file of weights is there by its name alone."""
    return "__".join([name, *(f"{key}={_text(value)}" for key, value in sorted(given(options).items()))])


def _text(value: Any) -> str:
    if isinstance(value, str) and PurePath(value).suffix in WEIGHTS:
        return PurePath(value).stem
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def base(name: str) -> str:
    """The task or init at the beginning of a run's name."""
    return name.split("__")[0]
