"""Chapter 12: the block that it shows computes what MedNeXt computes, and its codings are those of the datasets."""

import ast
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_utils.data import datasets
from ssl_utils.networks import build

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "12_brain_tumours.ipynb"


def cell(name: str) -> str:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return next("".join(one["source"]) for one in cells if one["id"] == name)


@pytest.mark.parametrize("kernel", [3, 5])
def test_the_block_shown_is_that_of_the_network(kernel):
    sizes = {"in_channels": 4, "out_channels": 3, "img_size": [16, 16, 16], "feature_size": 4, "levels": 2}
    network = build({"network": "mednext", **sizes, "kernel_size": kernel})
    theirs, shown = network.down[0][1][0], {"nn": nn}
    exec(cell("block-code"), shown)
    ours = shown["Block"](4, kernel)
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, 4, 8, 9, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(image), theirs(image), atol=1e-5, rtol=1e-4)


def test_the_codings_shown_are_those_of_the_datasets():
    tree = ast.parse(cell("regions"))
    codings = next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    named = dict(zip(codings, ("brats21", "brats", "msd_brain"), strict=True))
    assert codings == {name: datasets.get(dataset).regions for name, dataset in named.items()}
