"""`make lab` answers this machine alone, and only with its token, also where a person's own settings are careless."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.long

PROJECT = Path(__file__).resolve().parents[1]
ENDING = 30  # seconds in which a server that was asked to end does so


def command() -> str:
    words = ["make", "-n", "lab", f"PYTHON={sys.executable}"]
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}  # make test
    return subprocess.run(words, cwd=PROJECT, env=alone, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def lab(tmp_path):
    """The process and what it says of itself in its runtime folder; settings in the home open it to the network."""
    for kind in ("config", "data", "runtime"):
        (tmp_path / kind).mkdir()
    careless = "c.ServerApp.ip = '0.0.0.0'\nc.ServerApp.allow_remote_access = True\n"
    (tmp_path / "config" / "jupyter_server_config.py").write_text(careless)
    own = {f"JUPYTER_{kind.upper()}_DIR": str(tmp_path / kind) for kind in ("config", "data", "runtime")}
    kept = {name: value for name, value in os.environ.items() if name != "JUPYTER_TOKEN"}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            f"exec {command()} --no-browser --port=0", shell=True, cwd=tmp_path, env=kept | own, stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + 120
        while not (found := list((tmp_path / "runtime").glob("jpserver-*.json"))):
            assert server.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.2)
        yield psutil.Process(server.pid), json.loads(found[0].read_text())
    finally:
        server.terminate()
        try:
            server.wait(ENDING)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def answer(address: str, token: str | None = None) -> int:
    headers = {"Authorization": f"token {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as found:
            return found.status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_command_names_this_machine_and_no_token():
    words = command().split()
    assert "--ip=127.0.0.1" in words
    assert not [word for word in words if "token" in word or "password" in word], "a word of it is read by everybody"


def test_jupyterlab_listens_to_this_machine_alone_and_asks_for_its_token(lab):
    process, said = lab
    end, listening = time.monotonic() + 60, set()
    while not listening and time.monotonic() < end:  # it writes down where it will listen before it does
        listening = {found.laddr for found in process.net_connections("inet") if found.status == psutil.CONN_LISTEN}
        time.sleep(0.1)
    assert {address.ip for address in listening} == {"127.0.0.1"}
    port = said["port"] or next(address.port for address in listening)
    address = f"http://127.0.0.1:{port}/api/contents"
    assert len(said["token"]) >= 40
    assert [answer(address), answer(address, "0" * 48), answer(address, said["token"])] == [403, 403, 200]
