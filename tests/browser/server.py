"""A JupyterLab of its own for the tests: a free port, a token, temporary folders."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
NEWS = "@jupyterlab/apputils-extension/notification.jupyterlab-settings"


@dataclass
class Lab:
    """A running server. `course` holds the copies of the chapters; `environment` is what its kernels get."""

    course: Path
    environment: dict[str, str]
    port: int
    token: str

    def url(self, notebook: str) -> str:
        """Address of a notebook of the course, such as `notebooks/00_start_here.ipynb`, in a fresh workspace."""
        return f"http://127.0.0.1:{self.port}/lab/tree/{notebook}?reset&token={self.token}"


def copy_course(course: Path) -> None:
    """Chapters at scale smoke, and the figures beside them as their relative links need it."""
    shutil.copytree(PROJECT / "figures", course / "figures")
    (course / "notebooks").mkdir()
    for chapter in PROJECT.glob("notebooks/[0-9]*.ipynb"):
        content = json.loads(chapter.read_text(encoding="utf-8"))
        (parameters,) = [cell for cell in content["cells"] if "parameters" in cell["metadata"].get("tags", [])]
        source, changed = re.subn(r'^scale = "\w+"', 'scale = "smoke"', "".join(parameters["source"]), flags=re.M)
        assert changed == 1, f"{chapter.name}: its parameters cell has no line that begins with scale ="
        parameters["source"] = source
        (course / "notebooks" / chapter.name).write_text(json.dumps(content), encoding="utf-8")


def environment(state: Path, python: str) -> dict[str, str]:
    """Nothing of the person who runs the tests: no settings, no history, no data and no runs of theirs."""
    theirs = ("SSL_HEADLESS", "SSL_VIEWER", "JPY_SESSION_NAME")
    kept = {name: value for name, value in os.environ.items() if name not in theirs}
    own = {f"JUPYTER_{kind}_DIR": str(state / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(state / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(state / "workspaces")}
    own |= {"SSL_DATA_ROOT": str(state / "data_root"), "SSL_RUNS_ROOT": str(state / "runs_root")}
    own |= {"IPYTHONDIR": str(state / "ipython"), "OMP_NUM_THREADS": "1"}
    return {**kept, **own, "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"}


def own_kernel(folder: Path, starter: str) -> Path:
    """A folder for JUPYTER_PATH in which the kernel `python3` is started by `python -m starter`."""
    argv = [sys.executable, "-m", starter, "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel := folder / "kernels" / "python3").mkdir(parents=True)
    content = {"argv": argv, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def start(
    course: Path, state: Path, log: Path, python: str = sys.executable, **more: str
) -> tuple[subprocess.Popen, Lab]:
    """JupyterLab of the environment that `python` belongs to; `more` are environment variables for its kernels."""
    news = state / "settings" / NEWS
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false", "checkForUpdates": false}')  # no pop-up in the pictures, and no request
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lab = Lab(course, environment(state, python) | more, port, secrets.token_hex(16))
    command = [
        python,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={course}",
        f"--IdentityProvider.token={lab.token}",
        "--LabApp.expose_app_in_browser=True",
    ]
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=course, env=lab.environment, stdout=stream, stderr=subprocess.STDOUT)
    wait_for(process, lab, log)
    return process, lab


def wait_for(process: subprocess.Popen, lab: Lab, log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{lab.port}/api", timeout=5).close()
            return
        except OSError:
            assert process.poll() is None, f"JupyterLab ended: {log.read_text()[-2000:]}"
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab does not answer after {seconds:.0f} s: {log.read_text()[-2000:]}")


def stop(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGTERM)  # it shuts its kernels down
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
