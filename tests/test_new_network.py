"""The toy network of CONTRIBUTING.md, put into a copy of the project, passes every test of a network."""

import re

import pytest

from tests.contributor import Copy, add_entry, block

pytestmark = pytest.mark.long
FILE, TEST = "ssl_utils/networks/plain.py", "tests/test_plain.py"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    copy = Copy(tmp_path_factory.mktemp("contributor"))
    for name in (FILE, TEST):
        (copy.folder / name).write_text(block(name), encoding="utf-8")
    add_entry(copy, "ssl_utils/networks/__init__.py", "NETWORKS")
    return copy


def test_its_own_test_and_those_of_every_network_pass(copy):
    said = copy("-m", "pytest", "-p", "no:cacheprovider", TEST, "tests/test_networks.py", "-k", "plain")
    (passed,) = re.findall(r"^(\d+) passed", said, re.MULTILINE)
    assert " failed" not in said and int(passed) > 30, "the tests of test_networks.py follow the registry"


def test_the_house_stays_in_order(copy):
    said = copy("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_structure.py", "-k", "plain or networks")
    assert " failed" not in said
    assert copy("-m", "ruff", "check", FILE, TEST).strip() == "All checks passed!"
    assert "already formatted" in copy("-m", "ruff", "format", "--check", FILE, TEST)


def test_the_command_line_knows_it(copy, blobs):
    words = ("-m", "ssl_utils", "pretrain", "mae", "--scale", "smoke", "--dataset", "folder", "--data", blobs)
    said = copy(*words, "--network", "vnet", good=False)
    assert said.startswith("error: ") and said.strip().endswith("unetr, unet, mednext, plain")
    said = copy(*words, "--network", "plain", good=False)
    assert said.strip().splitlines()[-1].startswith("error: task='mae': needs tokens, which plain does not have")


def test_the_toy_stays_short():
    assert len([line for line in block(FILE).splitlines() if line.strip()]) <= 50
