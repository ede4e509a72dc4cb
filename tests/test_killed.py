"""A course that is killed again and again ends with the numbers of one that was left alone.

Eight moments here; `python -m benchmarks.kill` takes twenty.
"""

import random

import pytest

from benchmarks.kill import HOW, Course, kill_again_and_again, outcome

MOMENTS = 8
pytestmark = pytest.mark.course


@pytest.mark.timeout(2400)
def test_a_course_killed_at_eight_moments_ends_with_the_same_numbers(tmp_path, blobs, blobs_course):
    killed = Course(tmp_path / "killed", ("--dataset", "folder", "--data", str(blobs)))
    struck = kill_again_and_again(killed, MOMENTS, random.Random(0), most=5)
    assert len(struck) >= 6, f"only {len(struck)} kills before the course was done"
    assert set(struck) == set(HOW), "in every way"
    assert outcome(killed.root / "runs" / "folder_my_blobs" / "smoke") == outcome(blobs_course.run)
