"""The dry run of an exported container: what its Dockerfile says, in a fresh environment instead of an image.

    python -m ssl_utils export RUN CUBE --format mlcube
    python -m benchmarks.container CUBE DATA PREDICTIONS

Installs about 2 GB. DATA has a folder for each case, `<ID>/<ID>-<channel>.nii.gz`.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """(instruction, its text) of a Dockerfile, without comments, continued lines joined."""
    lines = [line for line in dockerfile.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in joined if line.strip()]


def dry_run(cube: Path, data: Path, predictions: Path) -> dict[str, float]:
    """Install and run the container for a CPU; seconds of each step. Raises CalledProcessError when a step fails."""
    seconds = {}
    with tempfile.TemporaryDirectory() as name:
        work, built = Path(name) / "workspace", Path(name) / "environment"
        shutil.copytree(cube / "project", work)
        venv.create(built, with_pip=True)
        path = f"{built / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "DEVICE": "cpu"}
        environment.pop("PYTHONPATH", None)

        def run(step: str, command: list[str]) -> None:
            started = time.perf_counter()
            subprocess.run(command, cwd=work, env=environment, check=True)
            seconds[step] = round(time.perf_counter() - started, 1)

        steps = instructions((cube / "project" / "Dockerfile").read_text(encoding="utf-8"))
        for number, command in enumerate(text for kind, text in steps if kind == "RUN"):
            run(f"RUN {number + 1}", ["sh", "-c", command])
        run("no ssl_utils", ["python", "-c", "import importlib.util as i; assert not i.find_spec('ssl_utils')"])
        entry = json.loads(next(text for kind, text in steps if kind == "ENTRYPOINT"))
        entry = [word.replace("/workspace", str(work)) for word in entry]
        given = [f"--data_path={data.resolve()}", f"--output_path={predictions.resolve()}"]
        parameters = (cube / "mlcube" / "workspace" / "parameters.yaml").resolve()
        run("infer", [*entry, "infer", *given, f"--parameters_file={parameters}"])
        run("check", [*entry, "check", *given])
    return seconds


if __name__ == "__main__":
    print(dry_run(*map(Path, sys.argv[1:4])))
