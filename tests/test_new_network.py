"""A contributor's way: the toy network of CONTRIBUTING.md, put into a copy of the project as the text says, fits in."""

import re

import pytest

from tests.contributor import Copy, register, write


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    copy = Copy(tmp_path_factory.mktemp("contributor"))
    write(copy, "ssl_utils/networks/plain.py")
    write(copy, "tests/test_plain.py")
    register(copy, "ssl_utils/networks/__init__.py", "NETWORKS", "NETWORKS = {  # name -> entry\n", "\n}\n")
    return copy


@pytest.mark.long
@pytest.mark.timeout(900)
def test_its_own_test_and_those_of_every_network_pass(copy):
    files = ["tests/test_plain.py", "tests/test_structure.py", "tests/test_networks.py"]
    said = copy("-m", "pytest", "-p", "no:cacheprovider", *files, "-k", "plain or structure")
    (passed,) = re.findall(r"^(\d+) passed", said, re.MULTILINE)
    assert " failed" not in said and int(passed) > 30, "the tests of test_networks.py follow the registry"
    assert copy("-m", "ruff", "check", "ssl_utils/networks", "tests/test_plain.py").strip() == "All checks passed!"


def test_the_command_line_knows_it(copy):
    said = copy("-m", "ssl_utils", "finetune", "random", "--network=nope", good=False).strip()
    assert said.startswith("error: network='nope': unknown; choose one of unetr, unet, ") and said.endswith(", plain")
