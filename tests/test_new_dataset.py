"""A contributor's way: the toy dataset of CONTRIBUTING.md, put into a copy of the project as the text says, fits in."""

import pytest

from tests.contributor import Copy, register, write


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    copy = Copy(tmp_path_factory.mktemp("contributor"))
    write(copy, "tests/test_balls.py")
    register(copy, "ssl_utils/data/registry/ct.py", "DATASETS", "DATASETS = (\n", "\n)\n")
    return copy


@pytest.mark.long
@pytest.mark.timeout(900)
def test_its_own_test_passes(copy):
    said = copy("-m", "pytest", "-p", "no:cacheprovider", "tests/test_balls.py")
    assert "1 passed" in said


def test_the_command_line_says_how_to_get_it(copy):
    said = copy("-m", "ssl_utils", "data", "balls", good=False).strip()
    assert said.splitlines()[-1].startswith("error: dataset balls: is put together by hand, once. 1) draw them; 2) put")
