"""A contributor's way: the toy network of CONTRIBUTING.md, put into a copy of the project as the text says, fits in."""

import pytest

from tests.contributor import Copy, register, write


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    copy = Copy(tmp_path_factory.mktemp("contributor"))
    write(copy, "ssl_utils/networks/plain.py")
    write(copy, "tests/test_plain.py")
    register(copy, "ssl_utils/networks/__init__.py", "NETWORKS", "NETWORKS = {  # name -> where it is\n", "\n}\n")
    return copy


@pytest.mark.long
@pytest.mark.timeout(900)
def test_its_own_test_and_those_of_every_network_pass(copy):
    own = ["tests/test_plain.py", "tests/test_structure.py"]
    said = copy(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", *own, "tests/test_networks.py", "-k", "plain or structure"
    )
    assert " failed" not in said and " passed" in said
    assert copy("-m", "ruff", "check", "ssl_utils/networks", "tests/test_plain.py").strip() == "All checks passed!"


def test_the_command_line_knows_it(copy):
    assert "unetr, unet, mednext, plain" in copy("-m", "ssl_utils", "options").replace("\n", " ")
