"""The numbers of a diffusion model at every scale. `paper` is that of BraTS-UGRIP: Med-DDPM, 57.56 M parameters.

Its loss was the absolute error and its rate constant; here the loss is squared and the rate falls, as everywhere.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Sizes and settings.

    Attributes:
        channels: of the levels of the U-Net.
        blocks: residual blocks of a level.
        attention: whether the last level has self-attention.
        patch: voxels along each axis that become channels before the first convolution (Hoogeboom et al. 2023,
            arXiv:2301.11093); 1: none.
        clean: whether the U-Net gives the clean image in place of the noise (`diffusion.Denoiser`).
        timesteps: noise levels T.
        steps, batch_size, lr: of the training.
        ema: decay of the moving average of the weights, from step `ema_from` on, every `ema_every` steps.
        adapt_steps, adapt_lr: of LoRA, which has few parameters and stands a higher rate.
        sampling_steps: of DDIM; a divisor of `timesteps`.
    """

    channels: tuple[int, ...]
    blocks: int
    attention: bool
    patch: int
    clean: bool
    timesteps: int
    steps: int
    batch_size: int
    lr: float
    ema: float
    ema_from: int
    ema_every: int
    adapt_steps: int
    adapt_lr: float
    sampling_steps: int


NAMES = ("smoke", "laptop", "workstation", "paper")
NUMBERS = {  # one value per name
    "channels": ((8, 16), (32, 64), (32, 64, 128), (64, 64, 128, 192, 256)),
    "blocks": (1, 1, 1, 2),
    "attention": (True, True, True, False),
    "patch": (4, 2, 1, 1),
    "clean": (True, True, True, False),
    "timesteps": (50, 250, 250, 250),
    "steps": (6, 600, 10_000, 50_000),
    "batch_size": (2, 2, 4, 1),
    "lr": (2e-3, 5e-3, 5e-4, 1e-5),
    "ema": (0.5, 0.98, 0.995, 0.995),
    "ema_from": (0, 100, 500, 2000),
    "ema_every": (1, 1, 1, 10),
    "adapt_steps": (3, 60, 1000, 5000),
    "adapt_lr": (5e-3, 5e-3, 1e-3, 1e-4),
    "sampling_steps": (5, 25, 50, 250),
}
RECIPES = {name: Recipe(**{key: values[i] for key, values in NUMBERS.items()}) for i, name in enumerate(NAMES)}
