"""A MONAI Bundle: `python -m monai.bundle run` gives the label maps of `predict`, without this package.

Specification: MONAI documentation, "MONAI Bundle Specification"; metadata by its schema of 2024-07-25.
"""

import hashlib
import inspect
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ssl_utils.data import dataset, transforms
from ssl_utils.data.lists import sequences
from ssl_utils.experiments.exports import ssl_steps, twins
from ssl_utils.experiments.exports.bundle_config import inference, metadata
from ssl_utils.experiments.exports.finished_run import FinishedRun, opened
from ssl_utils.files import atomic, sha256, write_json, write_text
from ssl_utils.segmentation import inference as windows, metrics
from ssl_utils.training import devices

CARRIED = (  # what `ssl_steps` imports from the package, and what that calls
    dataset.Intensity,
    transforms.Preprocessed,
    transforms.low_pass,
    transforms.rescale_brain,
    transforms.rescale_nonzero,
    windows.probabilities,
    windows.decide,
    windows.to_original,
    windows._straight,
    windows._oblique,
    metrics.label_map,
    metrics._value,
    metrics.regions_of,
    devices.device,
    devices.precision,
    devices.autocast,
)
IMPORTS = """\
from dataclasses import dataclass

from scipy.ndimage import gaussian_filter
from torch.nn import functional as F
"""
PACKAGES = ("nibabel", "scipy", "pytorch-ignite", "fire", "einops")
README = """\
# {title}

A MONAI Bundle. It gives the label maps of `python -m ssl_utils predict`, and needs MONAI, not ssl_utils:

```bash
pip install "monai=={monai}" {packages}
python -m monai.bundle run --config_file BUNDLE/configs/inference.json --dataset_dir IMAGES --output_dir PREDICTIONS
```

`IMAGES` is a folder of NIfTI files. {files} The network is `models/{weights}`: {kind}. `ssl_steps_*.py` holds the steps
that MONAI's transforms lack. Licence: see `LICENSE`.

The card of the run follows; what it calls `model.safetensors` stayed with it.

{card}"""


def export(run: Path, folder: Path, *, licence: str | None = None) -> Path:
    """Write a finished run as a bundle into the new folder. Errors as `finished_run.opened` and `twins.twin`."""
    finished = opened(run, folder, licence=licence)
    with atomic(folder) as temporary:
        write_bundle(finished, temporary)
    return folder


def write_bundle(run: FinishedRun, folder: Path, **overrides: Any) -> None:
    """Write the files of a bundle; `overrides` replace entries of inference.json."""
    made = twins.twin(run.network)
    weights = "model.pt" if made.target else "model.ts"
    (folder / "models").mkdir(parents=True)
    if made.target:
        torch.save(made.network.state_dict(), folder / "models" / weights)
    else:
        torch.jit.save(made.network, folder / "models" / weights)
    required = {name: version(name) for name in PACKAGES}
    # a name of its own: one process may run several bundles, and imports a module once
    steps = f"ssl_steps_{hashlib.sha256(f'{folder.resolve()} {sha256(run.model)}'.encode()).hexdigest()[:8]}"
    config = inference(run.setup, target=made.target, endings=endings(run.setup.dataset.channels), steps=steps)
    write_json(folder / "configs" / "inference.json", config | overrides)
    write_json(folder / "configs" / "metadata.json", metadata(run, required))
    write_text(folder / f"{steps}.py", standalone())
    write_text(folder / "LICENSE", run.terms())
    write_text(folder / "docs" / "README.md", _readme(run, made, weights, required))


def standalone() -> str:
    """The source of `ssl_steps` with what it imports from the package below it."""
    own = [line for line in inspect.getsource(ssl_steps).splitlines() if not line.startswith("from ssl_utils")]
    own.insert(own.index("import numpy as np"), IMPORTS)
    number = f"FAINTEST = np.float32({float(transforms.FAINTEST)!r})"
    return (
        "\n\n\n".join(["\n".join(own).strip(), number, *(inspect.getsource(part).strip() for part in CARRIED)]) + "\n"
    )


def endings(channels: tuple[str, ...]) -> list[list[str]]:
    """For each channel the last words of its files' names: its number, and the spellings of an MRI sequence."""
    known = [sequences.SPELLINGS.get(sequences.sequence(channel) or "", ()) for channel in channels]
    named = len(channels) > 1 and all(known) and len({*known}) == len(known)
    return [[f"{number:04d}", *(words if named else ())] for number, words in enumerate(known)]


def _readme(run: FinishedRun, made: twins.Twin, weights: str, required: dict[str, str]) -> str:
    several = [" or ".join(f"`_{word}`" for word in words) for words in endings(run.setup.dataset.channels)]
    files = f"The names of a case's files end in {', '.join(several)}, or it is one 4D file." * (len(several) > 1)
    return README.format(
        title=f"Segmentation bundle: {run.name}",
        monai=version("monai"),
        packages=" ".join(f'"{name}=={number}"' for name, number in required.items()),
        files=files,
        weights=weights,
        kind=f"`monai.networks.nets.{made.target['_target_']}`" if made.target else "TorchScript",
        card=run.card(),
    )
