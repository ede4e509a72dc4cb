"""What a process keeps for itself."""

import platform
import subprocess
import sys

from course.progress import Memory

RESIDENT = """
import numpy as np, psutil
from ssl_utils.training.processes import give_back_memory, keep_freed_memory
keep_freed_memory()
blocks = [np.ones(1_000_000) for _ in range(50)]  # 400 MB
last = np.ones(1_000)  # lies above them and stays
del blocks
before = psutil.Process().memory_info().rss
give_back_memory()
print(before - psutil.Process().memory_info().rss)
"""
FORKS = """
import os, sys
block = bytearray(100_000_000)
for turn in range(3):
    os.fork()
os.write(1, b"ready\\n")
sys.stdin.read()
"""
COUNT = """
import resource, numpy as np
from ssl_utils.training.processes import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(10_000_000)  # 80 MB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
keep_freed_memory() if {kept} else None
np.ones(10_000_000)
print(faults())
"""


def test_freed_memory_is_kept():
    """Without it the kernel hands out the same pages 20 times; with it once."""
    told = [
        int(subprocess.run([sys.executable, "-c", COUNT.format(kept=kept)], capture_output=True, text=True).stdout)
        for kept in (False, True)
    ]
    if platform.libc_ver()[0] == "glibc":
        assert told[1] < 200 and told[0] > 20 * 80e6 / 2**21  # of 2 MB at most
    assert told[1] <= told[0] + 200  # elsewhere it does nothing, and no harm


def test_kept_memory_is_given_back_when_the_work_is_done():
    told = int(subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True).stdout)
    if platform.libc_ver()[0] == "glibc":
        assert told > 350e6


def test_what_forks_share_is_counted_once():
    streams, others = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}, Memory()
    others.look()  # earlier tests may have left processes, such as a JupyterLab
    with subprocess.Popen([sys.executable, "-c", FORKS], **streams) as process:
        assert [process.stdout.readline() for _ in range(8)] == [b"ready\n"] * 8
        memory = Memory()
        memory.look()
        process.stdin.close()
    assert memory.largest > 1e8
    together = memory.together - others.together
    assert together < (4e8 if platform.system() == "Linux" else 2e9), "not eight times as much"
