"""Data-parallel training (Lightning's DDP): several processes train one network, each on its share of every batch.

The result is that of one process with the whole batch: crops, masks and corruptions are drawn for the whole batch, and
a loss that compares crops compares those of all processes.
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
from ssl_utils.training.optimisers import DEFAULT

TESTING = timedelta(days=7)  # how long the other processes may wait for the first one, which evaluates
_TORCHRUN = environments.TorchElasticEnvironment


class Team:
    """The processes of a training: `devices` on each of `num_nodes` machines, one GPU each where there are GPUs.

    Slurm (srun) or torchrun starts them, else (on one machine) Lightning, which runs the command again.
    """

    def __init__(self, devices: int = 1, num_nodes: int = 1) -> None:
        self.devices, self.num_nodes, self.size = devices, num_nodes, devices * num_nodes
        self.group = None

    @cached_property
    def cluster(self) -> environments.ClusterEnvironment:
        """What started the processes. (Lightning by itself takes every Slurm job for one started by srun.)"""
        if "SLURM_STEP_NUM_TASKS" in os.environ and self.started > 1:
            return environments.SLURMEnvironment(auto_requeue=False)
        return _TORCHRUN() if _TORCHRUN.detect() else environments.LightningEnvironment()

    @property
    def started(self) -> int:
        """How many processes srun or torchrun has started."""
        counted = "WORLD_SIZE" if _TORCHRUN.detect() else "SLURM_STEP_NUM_TASKS"
        return int(os.environ.get(counted) or 1)

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return self.cluster.node_rank() * self.devices + self.cluster.local_rank() if self.size > 1 else 0

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and prints."""
        return self.rank == 0

    def check(self, batch_size: int) -> None:
        """Raises CourseError when the batch cannot be shared equally, or the machine or the job is of another size."""
        options, by_srun = f"devices={self.devices}, num_nodes={self.num_nodes}", "SLURM_STEP_NUM_TASKS" in os.environ
        if min(self.devices, self.num_nodes) < 1:
            raise CourseError(f"{options}: must be at least 1; leave both out for one process")
        if batch_size % self.size:
            fits = ", ".join(str(n) for n in range(1, batch_size + 1) if batch_size % n == 0)
            raise CourseError(
                f"{options}: cannot share a batch of {batch_size} equally; choose {fits} processes in all"
            )
        if self.started not in (1, self.size) or (self.num_nodes > 1 and self.started == 1):
            fix = f"use srun --nodes={self.num_nodes} --ntasks-per-node={self.devices}"
            reason = f"need {self.size} processes, {self.started} started"
            raise CourseError(f"{options}: {reason}; {fix}, or other --devices and --num-nodes")
        if by_srun and self.started > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
            fix = f"add --ntasks-per-node={self.devices}"
            raise CourseError(f"{options}: srun was started without --ntasks-per-node; {fix}")
        visible = torch.cuda.device_count()
        if self.devices > 1 and torch.cuda.is_available() and visible < self.devices:
            fix = f"use fewer devices, or in Slurm --gpus-per-node={self.devices} (not --gpus-per-task)"
            raise CourseError(f"{options}: this process sees {visible} GPUs; {fix}")

    def for_trainer(self, module: "SharedStep") -> dict[str, Any]:
        """Arguments of Lightning's Trainer."""
        if self.size == 1:
            return {"devices": 1}
        strategy = DDPStrategy(cluster_environment=self.cluster, find_unused_parameters=module.freezes)
        sizes = {"devices": self.devices, "num_nodes": self.num_nodes}
        return {**sizes, "strategy": strategy, "use_distributed_sampler": False}

    @contextmanager
    def training(self, trainer: L.Trainer) -> Iterator[None]:
        """Around the training: after an error, end the processes that Lightning has started."""
        try:
            yield
        except BaseException:
            if hasattr(trainer.strategy.launcher, "kill"):
                trainer.strategy.launcher.kill(signal.SIGKILL)
            raise
        if self.size > 1:  # for `wait`: on the CPU, whatever device trained
            self.group = dist.new_group(backend="gloo", timeout=TESTING)

    def wait(self, folder: Path) -> Path:
        """The folder, once all processes have called this: by then the first one has written all files."""
        try:
            if self.size > 1:
                dist.barrier(self.group)
        except RuntimeError:
            raise SystemExit(1) from None  # the first process has ended and printed the reason
        return folder


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


def everyone(rows: Tensor) -> Tensor:
    """Rows of all processes, in the order of a single process. Gradients flow back to the process of the row, summed
    over processes; DDP then averages them, so a loss that all processes compute on all rows has the gradient of one."""
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(rows.contiguous()))


def of_all_processes(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A loss that compares rows of two views, in training the rows of all processes, which gives more negatives."""

    @wraps(loss)
    def with_all_rows(first: Tensor, second: Tensor, **options) -> Tensor:
        shared = first.requires_grad and _together()
        return loss(*map(everyone, (first, second)), **options) if shared else loss(first, second, **options)

    return with_all_rows


class SharedStep(L.LightningModule):
    """A module whose training step may be shared by a team. Validation is not shared: every process does all of it."""

    freezes = False  # whether some parameters take no part in some steps
    optimizer = DEFAULT  # in the registry

    @property
    def processes(self) -> int:
        """How many share the step."""
        return dist.get_world_size() if self.training and _together() else 1

    def own(self, rows: Tensor) -> Tensor:
        """The rows of this process, from rows for all crops of the step."""
        return rows.chunk(self.processes)[dist.get_rank()] if self.processes > 1 else rows

    def gathered(self, rows: Tensor) -> Tensor:
        """Rows of all crops of the step: `everyone`, in training."""
        return everyone(rows) if self.processes > 1 else rows

    def over_step(self, mean: Tensor, weight: Callable[[], Tensor]) -> Tensor:
        """A mean over this process's crops, scaled so that the average of all processes is the mean over the step.

        `weight` is what the mean was divided by, such as the number of voxels, which differs between processes.
        """
        if self.processes == 1:
            return mean
        own = weight().detach()
        total = own.clone()
        dist.all_reduce(total)
        return mean * own * self.processes / total
