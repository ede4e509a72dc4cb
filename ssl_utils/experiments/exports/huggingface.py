"""A folder as the Hugging Face hub expects it: safetensors, config.json, and a card. Nothing is uploaded."""

import json
import re
import shutil
from pathlib import Path

from ssl_utils.experiments.exports.finished_run import FinishedRun, opened
from ssl_utils.files import atomic, write_json, write_text
from ssl_utils.networks import checkpoints

LICENCES = {  # beginning of a licence here -> its name on the hub; all others are "other"
    "CC0": "cc0-1.0",
    "CC-BY-SA 4": "cc-by-sa-4.0",
    "CC-BY-NC-SA 4": "cc-by-nc-sa-4.0",
    "CC-BY-NC 4": "cc-by-nc-4.0",
    "CC-BY 4": "cc-by-4.0",
    "CC-BY-SA 3": "cc-by-sa-3.0",
    "CC-BY 3": "cc-by-3.0",
    "MIT": "mit",
    "Apache-2": "apache-2.0",
}
CARD = """\
---
library_name: ssl_utils
pipeline_tag: image-segmentation
tags: [medical-imaging, 3d, segmentation, {network}]
{licence}
---

```python
from pathlib import Path
from ssl_utils.experiments.prediction import load_saved
network, setup = load_saved(Path("model.safetensors"))
```

`network` takes standardised crops (B, {channels}, {roi}); `python -m ssl_utils predict model.safetensors IMAGE` takes
files.

{card}"""


def export(run: Path, folder: Path, *, licence: str | None = None) -> Path:
    """Write a finished run as a folder that loads back in three lines. Errors as `finished_run.opened`."""
    finished = opened(run, folder, licence=licence)
    meta = checkpoints.read_metadata(finished.model)
    config = {"model_type": finished.network.config["network"], **json.loads(meta["course"])}
    with atomic(folder) as temporary:
        temporary.mkdir()
        shutil.copyfile(finished.model, temporary / "model.safetensors")
        write_json(temporary / "config.json", config | {"data_licence": finished.licence})
        write_text(temporary / "README.md", _card(finished))
        write_text(temporary / "LICENSE", finished.terms())
    return folder


def _card(run: FinishedRun) -> str:
    return CARD.format(
        network=run.network.config["network"],
        licence=_licence(run.licence),
        channels=run.network.config["in_channels"],
        roi=", ".join(map(str, run.setup.grid.roi)),
        card=run.card(),
    )


def _licence(name: str) -> str:
    """The licence as the head of a card has it."""
    spelled = re.sub(r"(?<=[A-Z])-(?=\d)", " ", name)  # CC-BY-4.0
    known = next((LICENCES[start] for start in LICENCES if spelled.startswith(start) and " + " not in name), None)
    return f"license: {known}" if known else f"license: other\nlicense_name: {json.dumps(name)}\nlicense_link: LICENSE"
