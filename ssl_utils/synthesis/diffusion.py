"""Conditional diffusion in 3D: a network predicts the noise in an image, or the image in the noise, given a label map.

DDPM: Ho et al. 2020, arXiv:2006.11239; cosine schedule: Nichol and Dhariwal 2021, arXiv:2102.09672; DDIM: Song et al.
2021, arXiv:2010.02502; label maps as further channels: Med-DDPM, Dorjsembe et al. 2024, arXiv:2305.18453.
"""

from collections.abc import Sequence

import lightning as L
import torch
from einops import rearrange
from lightning.pytorch.callbacks import EMAWeightAveraging
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_utils.data.formats.stored import shape_text
from ssl_utils.errors import CourseError
from ssl_utils.networks.interface import arguments
from ssl_utils.synthesis.recipes import Recipe
from ssl_utils.training.loop import parameter_groups
from ssl_utils.training.optimisers import configured
from ssl_utils.training.parallel import SharedStep

FAINTEST = 1e-3  # of a voxel of the body, as after preprocessing
GROUPS = 8  # of the normalisation


class Denoiser(nn.Module):
    """Noisy image (B, C, D, H, W), timestep (B,) and condition (B, K, D, H, W) to the noise (B, C, D, H, W).

    D, H, W are multiples of patch * 2^(levels - 1). `clean`: the U-Net gives the clean image (Salimans and Ho 2022,
    arXiv:2202.00512), and the noise is what is left of x_t. A small network that gives the noise, or v, has to pass
    the noise of every voxel through its few channels.
    """

    def __init__(
        self,
        *,
        image_channels: int,
        conditions: int,
        channels: Sequence[int],
        blocks: int = 1,
        attention: bool = True,
        patch: int = 1,
        clean: bool = False,
        timesteps: int = 250,
    ) -> None:
        config = arguments(locals())
        super().__init__()
        self.config, self.patch, self.clean = config, patch, clean
        self.register_buffer("kept", kept_variance(timesteps), persistent=False)
        self.unet = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=(image_channels + conditions) * patch**3,
            out_channels=image_channels * patch**3,
            num_res_blocks=blocks,
            channels=channels,
            attention_levels=[attention and level == len(channels) - 1 for level in range(len(channels))],
            norm_num_groups=GROUPS,
            num_head_channels=max(channels) // 2,
        )

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        p, both = self.patch, torch.cat([noisy, condition], 1)
        both = rearrange(both, "b c (d p) (h q) (w r) -> b (c p q r) d h w", p=p, q=p, r=p)
        given = self.unet(both, timesteps)
        given = rearrange(given, "b (c p q r) d h w -> b c (d p) (h q) (w r)", p=p, q=p, r=p)
        return noise_of(noisy, given, self.kept[timesteps]) if self.clean else given


def kept_variance(timesteps: int) -> Tensor:
    """(T,): the share of the variance that is image at each timestep, by the cosine schedule."""
    with torch.device("cpu"):  # also where a network is only sketched, on the device meta
        return DDPMScheduler(timesteps, schedule="cosine").alphas_cumprod


def new_denoiser(recipe: Recipe, *, image_channels: int, conditions: int, seed: int) -> Denoiser:
    """An untrained network of these sizes."""
    torch.manual_seed(seed)
    sizes = {name: getattr(recipe, name) for name in ("channels", "blocks", "attention", "patch", "clean", "timesteps")}
    return Denoiser(image_channels=image_channels, conditions=conditions, **sizes)


def noised(image: Tensor, noise: Tensor, kept: Tensor) -> Tensor:
    """q(x_t | x_0): image and noise (B, C, D, H, W) mixed, of which the share `kept` (B,) of the variance is image."""
    kept = kept.view(-1, 1, 1, 1, 1)
    return kept.sqrt() * image + (1 - kept).sqrt() * noise


def noise_of(noisy: Tensor, image: Tensor, kept: Tensor) -> Tensor:
    """The noise (B, C, D, H, W) in x_t when the clean image is this one: `noised` solved for it."""
    kept = kept.view(-1, 1, 1, 1, 1)
    return (noisy - kept.sqrt() * image) / (1 - kept).sqrt()


class DiffusionTask(SharedStep):
    """Learn to predict the noise, at timesteps and with noise drawn from (seed, step).

    The loss is the mean squared error of the noise, or that of the clean image where the U-Net gives it.

    `validation_loss` is that of the same noise at the same timesteps of every case, in every epoch and run.
    """

    def __init__(self, denoiser: nn.Module, *, timesteps: int, lr: float, steps: int, seed: int = 0) -> None:
        super().__init__()
        self.denoiser, self.lr, self.steps, self.seed = denoiser, lr, steps, seed
        self.register_buffer("kept", kept_variance(timesteps), persistent=False)

    def loss(self, batch: dict, timesteps: Tensor, generator: torch.Generator) -> Tensor:
        image = batch["image"]
        drawn = (len(image) * self.processes, *image.shape[1:])  # every process has noise of its own
        noise = self.own(torch.randn(drawn, generator=generator, device=self.device))
        kept = self.kept[timesteps]
        predicted = self.denoiser(noised(image, noise, kept), timesteps, batch["condition"]).float()
        error = F.mse_loss(predicted, noise, reduction="none").mean((1, 2, 3, 4))
        # an error e of the image is sqrt(kept / (1 - kept)) e of the noise
        return (error * (1 - kept) / kept if self.denoiser.clean else error).mean()

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(1_000_003 * self.seed + self.global_step)
        drawn = torch.randint(
            len(self.kept), (len(batch["image"]) * self.processes,), generator=generator, device=self.device
        )
        return self.loss(batch, self.own(drawn), generator)

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        generator = torch.Generator(self.device).manual_seed(int(batch["number"][0]))
        levels = torch.linspace(0.1, 0.9, 3, device=self.device) * len(self.kept)
        losses = [self.loss(batch, level.long().repeat(len(batch["image"])), generator) for level in levels]
        self.log("validation_loss", torch.stack(losses).mean(), batch_size=len(batch["image"]), sync_dist=True)

    def configure_optimizers(self) -> dict:
        groups = parameter_groups([(self.denoiser, 1.0)], lr=self.lr, weight_decay=0.0)
        return configured(self.optimizer, groups, steps=self.steps, betas=(0.9, 0.999))


class MovingAverage(EMAWeightAveraging):
    """The average is in the module at the end, also where a run that was killed after its last step goes on: Lightning
    then trains nothing, and leaves the weights of the checkpoint there."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._copy_average_to_current(pl_module)


def moving_average(recipe: Recipe) -> EMAWeightAveraging:
    """The callback that validates, and in the end keeps, an exponential moving average of the weights."""
    every, start = recipe.ema_every, recipe.ema_from
    return MovingAverage(decay=recipe.ema, update_every_n_steps=every, update_starting_at_step=start)


@torch.no_grad()
def sample(denoiser: Denoiser, condition: Tensor, *, steps: int | None, seeds: Sequence[int]) -> Tensor:
    """Images (B, C, D, H, W) in 0..1 for conditions (B, K, D, H, W), each from the noise of its seed; 0 outside the
    body.

    `steps` of DDIM, which draws nothing but the first noise; None: DDPM, with all timesteps, which draws at each, one
    volume after the other.

    Raises:
        CourseError: `steps` does not divide the number of timesteps, or the label maps do not fit the model.
    """
    check_condition(denoiser, condition)
    if steps is None and len(seeds) > 1:  # a schedule draws from one generator, and every volume has its own
        pairs = zip(condition, seeds, strict=True)
        return torch.cat([sample(denoiser, one[None], steps=None, seeds=[seed]) for one, seed in pairs])
    config, device = denoiser.config, condition.device
    schedule = _schedule(config["timesteps"], steps)
    shape, generators = (config["image_channels"], *condition.shape[2:]), [torch.Generator(device) for _ in seeds]
    first = [
        torch.randn(shape, generator=g.manual_seed(s), device=device) for g, s in zip(generators, seeds, strict=True)
    ]
    image, generator = torch.stack(first), generators[0]
    denoiser.eval()
    for timestep in schedule.timesteps.to(device):
        noise = denoiser(image, timestep.expand(len(image)), condition).float()
        image, _ = schedule.step(noise, int(timestep), image, generator=generator)
    return torch.where(condition[:, -1:] > 0, ((image + 1) / 2).clamp(FAINTEST, 1), 0.0)


def check_condition(denoiser: Denoiser, condition: Tensor) -> None:
    """Raises CourseError when label maps (B, K, D, H, W) have other channels or another size than the model needs."""
    config, shape = denoiser.config, tuple(condition.shape[2:])
    if condition.shape[1] != config["conditions"]:
        why = f"has {condition.shape[1]} channels, and the model was trained with {config['conditions']}"
        raise CourseError(f"label map: {why}; use a model of this dataset")
    factor = config["patch"] * 2 ** (len(config["channels"]) - 1)
    if any(side % factor for side in shape):
        why = f"{shape_text(shape)} voxels do not fit the grid of the model, multiples of {factor}"
        raise CourseError(f"label map: {why}; pad it, or prepare it on the grid that the model was trained on")


def _schedule(timesteps: int, steps: int | None) -> DDIMScheduler | DDPMScheduler:
    if steps is None:
        return DDPMScheduler(timesteps, schedule="cosine")
    if not 1 <= steps <= timesteps or timesteps % steps:
        raise CourseError(f"steps={steps}: does not divide the {timesteps} timesteps of the model; choose a divisor")
    schedule = DDIMScheduler(timesteps, schedule="cosine")
    schedule.set_timesteps(steps)
    # MONAI spreads the timesteps from T - 1 to 0, but takes each step as T / steps long; these steps are
    schedule.timesteps = torch.arange(timesteps - 1, -1, -(timesteps // steps))
    return schedule
