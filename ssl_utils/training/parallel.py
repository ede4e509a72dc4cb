"""Several processes that train one network together, each on its share of every batch (data-parallel, Lightning's DDP).

Together they do what one process does with the whole batch: the batch of a scale is that of all processes, its crops,
masks and corruptions are drawn for all of them, and what a loss takes from several crops it takes from those of all.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.plugins import environments
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from ssl_utils.errors import CourseError

TESTING = timedelta(days=7)  # the others wait for as long as the first one evaluates
_TORCHRUN = environments.TorchElasticEnvironment


class Team:
    """The processes of a training: `devices` on each of `num_nodes` machines, one GPU each where there are GPUs.

    They are started by Slurm (srun), by torchrun, or else, on one machine, by Lightning, which runs the command again.
    """

    def __init__(self, devices: int = 1, num_nodes: int = 1) -> None:
        self.devices, self.num_nodes, self.size = devices, num_nodes, devices * num_nodes
        self.meeting = None

    @cached_property
    def cluster(self) -> environments.ClusterEnvironment:
        """Who started the processes. (Lightning alone takes every Slurm job for one that srun has started.)"""
        if "SLURM_STEP_NUM_TASKS" in os.environ and self.started > 1:
            return environments.SLURMEnvironment(auto_requeue=False)
        return _TORCHRUN() if _TORCHRUN.detect() else environments.LightningEnvironment()

    @property
    def started(self) -> int:
        """Processes that srun or torchrun has started."""
        counted = "WORLD_SIZE" if _TORCHRUN.detect() else "SLURM_STEP_NUM_TASKS"
        return int(os.environ.get(counted) or 1)

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return self.cluster.node_rank() * self.devices + self.cluster.local_rank() if self.size > 1 else 0

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0

    def check(self, batch_size: int) -> None:
        """Raises CourseError when the batch cannot be shared, or the machine or the cluster does not fit."""
        asked, by_srun = f"devices={self.devices}, num_nodes={self.num_nodes}", "SLURM_STEP_NUM_TASKS" in os.environ
        if min(self.devices, self.num_nodes) < 1:
            raise CourseError(f"{asked}: must be at least 1; leave both out for one process")
        if batch_size % self.size:
            fits = ", ".join(str(n) for n in range(1, batch_size + 1) if batch_size % n == 0)
            raise CourseError(f"{asked}: cannot share a batch of {batch_size} equally; choose {fits} processes in all")
        if self.started not in (1, self.size) or (self.num_nodes > 1 and self.started == 1):
            cure = f"say srun --nodes={self.num_nodes} --ntasks-per-node={self.devices}"
            fault = f"need {self.size} processes, {self.started} started"
            raise CourseError(f"{asked}: {fault}; {cure}, or other --devices and --num-nodes")
        if by_srun and self.started > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
            raise CourseError(f"{asked}: srun was not told --ntasks-per-node; add --ntasks-per-node={self.devices}")
        seen = torch.cuda.device_count()
        if self.devices > 1 and torch.cuda.is_available() and seen < self.devices:
            cure = f"ask for fewer devices, or in Slurm for --gpus-per-node={self.devices} (not --gpus-per-task)"
            raise CourseError(f"{asked}: this process sees {seen} GPUs; {cure}")

    def for_trainer(self, module: "SharedStep") -> dict[str, Any]:
        """Arguments of Lightning's Trainer."""
        if self.size == 1:
            return {"devices": 1}
        strategy = DDPStrategy(cluster_environment=self.cluster, find_unused_parameters=module.freezes)
        sizes = {"devices": self.devices, "num_nodes": self.num_nodes}
        return {**sizes, "strategy": strategy, "use_distributed_sampler": False}

    @contextmanager
    def training(self, trainer: L.Trainer) -> Iterator[None]:
        """Around the training: nobody that Lightning has started outlives a fault of the one that started it."""
        try:
            yield
        except BaseException:
            if hasattr(trainer.strategy.launcher, "kill"):
                trainer.strategy.launcher.kill(signal.SIGKILL)
            raise
        if self.size > 1:  # how the others will wait: on the CPU, whatever has trained
            self.meeting = dist.new_group(backend="gloo", timeout=TESTING)

    def wait(self, folder: Path) -> Path:
        """The folder, when every process is here: the first one has written all files by then."""
        try:
            if self.size > 1:
                dist.barrier(self.meeting)
        except RuntimeError:
            raise SystemExit(1) from None  # the first one is gone, and has said why
        return folder


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


def everyone(rows: Tensor) -> Tensor:
    """Rows of all processes, in the order of one. Gradients flow back to the process of the row, summed over processes;
    DDP then takes the mean, so that a loss which all compute of all rows has the gradient it has in one process."""
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(rows.contiguous()))


def of_all_processes(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A loss that compares rows of two views, in training with the rows of all processes: more negatives."""

    @wraps(loss)
    def with_all_rows(first: Tensor, second: Tensor, **options) -> Tensor:
        shared = first.requires_grad and _together()
        return loss(*map(everyone, (first, second)), **options) if shared else loss(first, second, **options)

    return with_all_rows


class SharedStep(L.LightningModule):
    """A module whose training step may be shared by a team. In validation, and without one, every process is alone."""

    freezes = False  # whether some parameters are left out of some steps

    @property
    def processes(self) -> int:
        """How many share the step."""
        return dist.get_world_size() if self.training and _together() else 1

    def own(self, rows: Tensor) -> Tensor:
        """Of rows for all crops of the step, those of this process."""
        return rows.chunk(self.processes)[dist.get_rank()] if self.processes > 1 else rows

    def gathered(self, rows: Tensor) -> Tensor:
        """Rows of all crops of the step: `everyone`, in training."""
        return everyone(rows) if self.processes > 1 else rows

    def over_step(self, mean: Tensor, weight: Callable[[], Tensor]) -> Tensor:
        """A mean over this process's crops, scaled so that the average of all processes is the mean over the step.

        `weight` is what the mean was divided by: processes may charge for different numbers of voxels.
        """
        if self.processes == 1:
            return mean
        own = weight().detach()
        total = own.clone()
        dist.all_reduce(total)
        return mean * own * self.processes / total
