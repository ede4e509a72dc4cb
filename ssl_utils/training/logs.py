"""Training curves for other programs: TensorBoard always, Weights & Biases when SSL_WANDB=1 is set."""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from ssl_utils.errors import CourseError
from ssl_utils.files import read_json, writing


class Logs:
    """TensorBoard's event files in the run folder, and a run at W&B.

    A resumed training writes them anew from the points of its checkpoint, so that every point is there once; W&B keeps
    the interrupted run beside the one that resumes it. Events are written by the training thread: SummaryWriter uses a
    thread of its own, which dies on a full disk while the training waits for it. Raises CourseError when the disk is
    full or W&B cannot be reached.
    """

    def __init__(self, folder: Path, *, headline: str, points: list[tuple[int, dict[str, float]]]) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        self.wandb = wandb_run(folder, headline) if os.environ.get("SSL_WANDB", "") not in ("", "0") else None
        self.folder = folder / "tensorboard"
        shutil.rmtree(self.folder, ignore_errors=True)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)  # a network disk may keep a file that is open
            self.board = EventsWriter(str(self.folder / "events"))
        for step, values in points:
            self.write(step, values)

    def write(self, step: int, values: dict[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        with writing(self.folder):
            for name, value in values.items():
                self.board.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
            self.board.flush()
        if self.wandb is not None:
            self.wandb.log(values, step=step)

    def close(self, *, failed: bool) -> None:
        with suppress(CourseError if failed else ()), writing(self.folder):  # report the first error alone
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish(exit_code=int(failed))


def wandb_run(folder: Path, headline: str):
    """A new run at Weights & Biases (in `folder` with WANDB_MODE=offline) with the settings of config.json. Raises
    CourseError when wandb is not installed, or has no key."""
    try:
        import wandb

        settings = read_json(folder / "config.json")["settings"]
        return wandb.init(project="ssl-utils", name=headline, dir=folder, config=settings)
    except ImportError:
        raise CourseError("wandb: is not installed; pip install -e '.[wandb]', or leave it out") from None
    except wandb.Error as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise CourseError(f"wandb: {reason}; run `wandb login`, or set WANDB_MODE=offline") from None
