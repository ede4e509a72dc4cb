"""A container for MedPerf and MLCube, as challenges such as BraTS run it: names and label coding are theirs.

MedPerf documentation, "Create containers"; the bundle inside does the work, `mlcube_entry` is what is called.
"""

import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ssl_utils.data.dataset import BRATS_REGIONS, Dataset
from ssl_utils.data.lists import sequences
from ssl_utils.errors import CourseError
from ssl_utils.experiments.exports.bundle import PACKAGES, write_bundle
from ssl_utils.experiments.exports.finished_run import opened
from ssl_utils.files import atomic, write_json, write_text
from ssl_utils.segmentation.metrics import regions_of

ENTRY = Path(__file__).with_name("mlcube_entry.py")
IMAGE = "ssl-utils-segmentation:0.1.0"
PINNED = ("monai", "numpy", "PyYAML", *PACKAGES)
BRATS_NAME = r".*\d{5}-\d{3}"
BRATS_IDS = " An ID ends in five digits, - and three digits, as in BraTS: `check` reports any other."
DOCKERFILE = """\
# CPU: docker build -t {image} .
# GPU: docker build -t {image} --build-arg DEVICE=gpu .
FROM python:{python}-slim
ARG DEVICE=cpu
WORKDIR /workspace
RUN if [ "$DEVICE" = cpu ]; \\
    then pip install --no-cache-dir torch=={torch} --index-url https://download.pytorch.org/whl/cpu; \\
    else pip install --no-cache-dir torch=={torch}; fi
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
ENTRYPOINT ["python", "/workspace/mlcube.py"]
"""
MLCUBE = """\
name: {name}
description: Segmentation of 3D images
authors:
  - {{name: see bundle/docs/README.md}}
platform:
  accelerator_count: 1
docker:
  image: {image}
  build_context: "../project"
  build_file: Dockerfile
tasks:
  infer:
    parameters:
      inputs: {{data_path: data/, parameters_file: parameters.yaml}}
      outputs: {{output_path: {{type: directory, default: predictions}}}}
"""
CONTAINER = """\
container_type: DockerImage
image: {image}
tasks:
  infer:
    input_volumes:
      data_path: {{mount_path: /mlcommons/volumes/data, type: directory}}
      parameters_file: {{mount_path: /mlcommons/volumes/parameters/parameters_file.yaml, type: file}}
    output_volumes:
      output_path: {{mount_path: /mlcommons/volumes/predictions, type: directory}}
"""
PARAMETERS = """\
# Entries of project/bundle/configs/inference.json to replace; {} leaves all as they are. For example: {overlap: 0.5}
{}
"""
README = """\
# A container for MedPerf and MLCube: {name}

In: a folder with `<ID>/<ID>-<channel>.nii.gz` for each case, channels {channels}.{ids} Out: `<ID>.nii.gz`, values
{values}.

```bash
docker build -t {image} project                 # --build-arg DEVICE=gpu for a GPU
mlcube run --mlcube mlcube --task infer         # MedPerf reads container_config.yaml, or mlcube/mlcube.yaml
python project/mlcube.py infer --data_path DATA --parameters_file mlcube/workspace/parameters.yaml --output_path OUT
python project/mlcube.py check --data_path DATA --output_path OUT    # names, geometry, voxels
```

The last two run without Docker where `project/requirements.txt` and torch {torch} are installed.

Licence: see `project/bundle/LICENSE`.
"""


def export(run: Path, folder: Path, *, licence: str | None = None) -> Path:
    """Write a finished run as the folder of a container.

    Raises:
        CourseError: as `finished_run.opened` and `twins.twin`; channels have no names of their own; or the labels of
            a tumour are not those of BraTS.
    """
    finished = opened(run, folder, licence=licence)
    dataset = finished.setup.dataset
    names, coding = endings(dataset.channels), coding_of(dataset)
    values = sorted({coding.get(value, value) for value in dataset.labels})
    numbers = {name: version(name) for name in ("torch", *PINNED)}
    about = {"name": json.dumps(finished.name), "image": IMAGE, "python": "3.11"}
    about |= {"torch": numbers["torch"].split("+")[0], "channels": [words[0] for words in names], "values": values}
    with atomic(folder) as temporary:
        project = temporary / "project"
        write_bundle(finished, project / "bundle", endings=names, coding={str(k): v for k, v in coding.items()})
        pattern = BRATS_NAME if is_brats(dataset.channels) else ".+"
        about["ids"] = BRATS_IDS * is_brats(dataset.channels)
        write_json(project / "interface.json", {"endings": names, "values": values, "names": pattern})
        write_text(project / "mlcube.py", ENTRY.read_text(encoding="utf-8"))
        write_text(project / "requirements.txt", "".join(f"{name}=={numbers[name]}\n" for name in PINNED))
        write_text(project / "Dockerfile", DOCKERFILE.format(**about))
        write_text(temporary / "mlcube" / "mlcube.yaml", MLCUBE.format(**about))
        write_text(temporary / "mlcube" / "workspace" / "parameters.yaml", PARAMETERS)
        write_text(temporary / "container_config.yaml", CONTAINER.format(**about))
        write_text(temporary / "README.md", README.format(**about))
    return folder


def is_brats(channels: Sequence[str]) -> bool:
    """Whether the channels are the four sequences of BraTS, in any order and spelling."""
    return {*map(sequences.sequence, channels)} == {*sequences.SPELLINGS}


def endings(channels: Sequence[str]) -> list[list[str]]:
    """For each channel the last words of its files' names. Raises CourseError when two have one."""
    if is_brats(channels):
        return [list(sequences.SPELLINGS[sequences.sequence(channel)]) for channel in channels]
    words = [re.sub(r"[^a-z0-9]", "", channel.lower()) for channel in channels]
    if "" in words or len({*words}) < len(words):
        why = "are recognised by the names of files, and these have no names of their own"
        raise CourseError(f"channels {', '.join(channels)}: {why}; rename them in dataset.json, and train again")
    return [[word] for word in words]


def coding_of(dataset: Dataset) -> dict[int, int]:
    """Label value -> that of BraTS since 2023, where they differ; by the regions TC, WT and ET it belongs to.

    Empty for images that are not those of BraTS. Raises CourseError when a value fits none, or two fit the same one.
    """
    if not is_brats(dataset.channels):
        return {}
    theirs = {frozenset(regions_of(value, BRATS_REGIONS)): value for value in (1, 2, 3)}
    fitting = {
        value: theirs.get(frozenset(regions_of(value, dataset.regions or {}))) for value in dataset.labels if value
    }
    if None in fitting.values() or sorted(fitting.values()) != [1, 2, 3]:
        why = "do not fit those of the challenge, whose regions are TC {1, 3}, WT {1, 2, 3} and ET {3}"
        raise CourseError(f"label values {_text(dataset.labels)}: {why}; train with these regions, or export a bundle")
    return {value: other for value, other in fitting.items() if value != other}


def _text(labels: Mapping[int, Any]) -> str:
    return ", ".join(map(str, labels))
