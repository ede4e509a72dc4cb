"""Names of runs: a pretext task or an init, and the options that are not at their default."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are set: None means the same as leaving an option out."""
    return {key: value for key, value in options.items() if value is not None}


def variant(name: str, options: Mapping[str, Any]) -> str:
    """The name of a run: `simmim__mask_ratio=0.3`. Of the path of a file the last part."""
    pairs = sorted((k, Path(v).name if isinstance(v, str) else v) for k, v in given(options).items())
    return "__".join([name, *(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in pairs)])


def base(name: str) -> str:
    """The task or init at the beginning of a run's name."""
    return name.split("__")[0]
