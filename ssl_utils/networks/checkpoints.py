"""Weights on disk: written atomically, read without executing code from the file."""

import argparse
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from ssl_utils.errors import CourseError, out_of_memory
from ssl_utils.files import atomic

# where training scripts put the weights inside their file
NESTS = ("state_dict", "model_state_dict", "model", "net", "network", "encoder")
# common in checkpoints and harmless: NumPy numbers, such as a best score, and the options of a command
HARMLESS = [
    argparse.Namespace,
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")),
]


def save_model(path: Path | str, model: nn.Module, *, metadata: Mapping[str, Any]) -> None:
    """Write a model's weights as safetensors, with its `config` and `grid`, where it has them, in the metadata."""
    known = {key: getattr(model, key) for key in ("config", "grid") if getattr(model, key, None) is not None}
    save_weights(path, model.state_dict(), metadata={**metadata, **known})


def save_weights(path: Path | str, weights: Mapping[str, Tensor], *, metadata: Mapping[str, Any]) -> None:
    """Write tensors by name as safetensors, atomically; metadata that is not text is written as JSON."""
    text = {key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in metadata.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with atomic(path) as temporary:
        temporary.write_bytes(_in_order(to_safetensors(tensors, metadata=text)))


def _in_order(content: bytes) -> bytes:
    """The file with its metadata sorted, which the library writes in any order, so that equal weights are equal bytes:
    fine-tunings stay valid when their encoder is trained again."""
    size = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:size])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # keeps the tensors aligned
    return len(text).to_bytes(8, "little") + text + content[size:]


def read_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """Tensors by name from safetensors, a plain PyTorch state dict, or one nested in a training checkpoint.

    Python objects are never unpickled (`weights_only`).

    Raises:
        CourseError: missing, truncated, not a checkpoint, or with code in it.
    """
    return read(path)[0]


def read_metadata(path: Path | str) -> dict[str, str]:
    """The text saved beside the weights; empty for a PyTorch file. Raises CourseError as `read_checkpoint`."""
    return read(path)[1]


def read(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """`read_checkpoint` and `read_metadata` in one pass."""
    path = Path(path)
    if not path.is_file():
        raise CourseError(f"{path}: no such file; check the path, or run the training that writes it")
    if path.stat().st_size == 0:
        raise CourseError(f"{path}: is empty; delete it and fetch or train it again")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        if out_of_memory(error):
            raise
        blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if blocked:
            reason = f"holds Python objects ({blocked[1]}), which could run code; save its state_dict alone"
        else:
            reason = "is not a readable checkpoint (truncated, or another kind of file); fetch or train it again"
        raise CourseError(f"{path}: {reason}") from None
    tensors = state_dict_in(content)
    if not tensors:
        raise CourseError(f"{path}: contains no weights; save the model's state_dict")
    return tensors, {}


def state_dict_in(content: Any) -> dict[str, Tensor]:
    """The state dict inside a checkpoint; empty when there is none."""
    while isinstance(content, Mapping):
        nest = next((key for key in NESTS if isinstance(content.get(key), Mapping)), None)
        if nest is None:
            return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        content = content[nest]
    return {}
