"""A real Slurm of one node for the tests: Debian's daemons on the loopback address, without systemd or cgroups.

    python -m tests.slurm.one_node start FOLDER      # as root; other users must be able to reach FOLDER
    python -m tests.slurm.one_node stop FOLDER

Time limits are enforced; memory and GPUs are only counted, and more of them are claimed than there are.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "munged")
SETTINGS = Path("/etc/slurm")  # job steps look here and nowhere else: they lose SLURM_CONF on the way
CONF = """\
ClusterName=lesson
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={control_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
MinJobAge=3600
KillWait=2
ReturnToService=2
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
GresTypes=gpu
NodeName={node} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=64000 Gres=gpu:2 State=UNKNOWN
PartitionName=lesson Nodes={node} Default=YES DefaultTime=10 MaxTime=1440 State=UP
"""
GRES = "NodeName={node} Name=gpu File=/dev/null\nNodeName={node} Name=gpu File=/dev/zero\n"


def obstacle() -> str | None:
    """Why no Slurm can be started here, and what to do about it; installs the packages where a CI runs as root."""
    if os.geteuid():
        return "Slurm's daemons are started by root; run this test as root in a container"
    if (SETTINGS / "slurm.conf").exists():
        return f"{SETTINGS / 'slurm.conf'} is there: this machine has a Slurm of its own, or a test was killed"
    if all(map(shutil.which, PROGRAMS)):
        return None
    if not (os.environ.get("CI") and shutil.which("apt-get")):
        return f"Slurm is not installed; as root: apt-get install -y --no-install-recommends {' '.join(PACKAGES)}"
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", *words], env=quiet, capture_output=True, text=True)
        if done.returncode:
            return f"apt-get {words[0]} failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}"
    return None


class OneNode:
    """The daemons below one folder; each is known by the process id that it wrote there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def start(self) -> None:
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        numbers = {
            "node": socket.gethostname().split(".")[0],
            "folder": self.folder,
            "cpus": max(4, os.cpu_count() or 1),
            "control_port": free_port(),
            "node_port": free_port(),
        }
        SETTINGS.mkdir(exist_ok=True)
        (SETTINGS / "slurm.conf").write_text(CONF.format(**numbers))
        (SETTINGS / "gres.conf").write_text(GRES.format(**numbers))
        self._start_munge()
        self.start_controller()
        call("slurmd")
        wait_for(lambda: said("sinfo", "-h", "-o", "%t") == "idle", "no idle node", logs=self.folder)

    def _start_munge(self) -> None:
        """munged wants a key that only its user can read, in folders that no other user can write."""
        home, key = self.folder / "munge", self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        for path in (home, key):
            shutil.chown(path, "munge", "munge")
        self.folder.chmod(0o755)  # munge's user must be able to pass
        files = {"key-file": key, "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{name}={home / where}" for name, where in files.items()]
        call("setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged", "--force", *options)

    def start_controller(self) -> None:
        call("slurmctld")
        wait_for(lambda: said("scontrol", "ping").count("UP"), "slurmctld does not answer", logs=self.folder)

    def kill_controller(self) -> None:
        """It writes what it knows and ends. (Killed without that, it forgets jobs of its last 5 s, starts them a second
        time and takes the node out of service: a matter of Slurm and its administrator.)"""
        process = psutil.Process(int((self.folder / "slurmctld.pid").read_text()))
        process.terminate()
        process.wait(30)

    def stop(self) -> None:
        for job in said("squeue", "-h", "-o", "%A").split():
            said("scancel", "--signal=KILL", job)
            said("scancel", job)
        for name in ("slurmd.pid", "slurmctld.pid", "munge/pid"):
            with suppress(OSError, ValueError, psutil.Error):
                process = psutil.Process(int((self.folder / name).read_text()))
                process.terminate()
                process.wait(10)
        for name in ("slurm.conf", "gres.conf"):
            (SETTINGS / name).unlink(missing_ok=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call(*words: str) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)


def said(*words: str) -> str:
    """What a command of Slurm prints; nothing while the controller is away."""
    with suppress(subprocess.TimeoutExpired):
        return subprocess.run(words, capture_output=True, text=True, timeout=20).stdout.strip()
    return ""


def wait_for(condition, otherwise: str, *, seconds: float = 60, logs: Path | None = None) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            told = [line for path in (logs or Path()).glob("*.log") for line in path.read_text().splitlines()[-5:]]
            raise TimeoutError("\n".join([f"{otherwise} after {seconds:.0f} seconds", *told]))
        time.sleep(0.1)


if __name__ == "__main__":
    if sys.argv[1] == "start" and (reason := obstacle()):
        sys.exit(reason)
    getattr(OneNode(Path(sys.argv[2])), {"start": "start", "stop": "stop"}[sys.argv[1]])()
