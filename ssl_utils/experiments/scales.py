"""The sizes of the course: numbers only. Callers read a scale and pass its numbers on as plain values."""

from dataclasses import dataclass

from ssl_utils.errors import CourseError


@dataclass(frozen=True)
class Scale:
    """One size of the course. `grid` names the resolution for which every dataset has a spacing and a ROI."""

    name: str
    grid: str  # "coarse" (fits a laptop) or "fine" (the published resolution)
    # data: volumes of the generated phantom (unlabelled, training, validation, test), and limits, None for no limit
    phantom_sizes: tuple[int, int, int, int]
    max_unlabeled: int | None
    max_validation: int | None
    max_test: int | None
    # network
    patch_size: int
    hidden_size: int
    mlp_dim: int
    num_layers: int
    num_heads: int
    feature_size: int
    image_skips: bool  # of UNETR
    # training
    pretrain_steps: int
    pretrain_batch_size: int
    pretrain_lr: float
    finetune_steps: int
    finetune_batch_size: int
    finetune_lr: float
    transformer_lr: float  # factor on it for an encoder that is a transformer
    # the experiment
    num_labeled: tuple[int, ...]
    subsets: int
    seeds: int
    overlap: float  # of neighbouring sliding windows


NAMES = ("smoke", "laptop", "workstation", "paper")
NUMBERS = {  # one value per name
    "grid": ("coarse", "coarse", "coarse", "fine"),
    "phantom_sizes": ((6, 24, 2, 3), (60, 24, 6, 20), (200, 24, 10, 60), (200, 24, 10, 60)),
    "max_unlabeled": (8, None, None, None),
    "max_validation": (2, 8, None, None),
    "max_test": (3, None, None, None),
    "patch_size": (8, 8, 8, 16),
    "hidden_size": (48, 128, 128, 768),
    "mlp_dim": (96, 512, 512, 3072),
    "num_layers": (3, 6, 6, 12),
    "num_heads": (3, 4, 4, 12),
    "feature_size": (4, 8, 8, 16),
    "image_skips": (True, True, True, False),
    "pretrain_steps": (4, 700, 10_000, 22_500),
    "pretrain_batch_size": (2, 8, 8, 8),
    "pretrain_lr": (1e-3, 1e-3, 1e-3, 1e-4),
    "finetune_steps": (4, 200, 1500, 30_000),
    "finetune_batch_size": (1, 2, 4, 4),
    "finetune_lr": (4e-3, 4e-3, 4e-3, 1e-4),
    "transformer_lr": (0.1, 0.1, 0.1, 1.0),
    "num_labeled": ((6, 12, 24),) * 4,
    "subsets": (1, 1, 3, 5),
    "seeds": (1, 1, 3, 3),
    "overlap": (0.25, 0.25, 0.5, 0.5),
}
SCALES = {name: Scale(name, **{key: NUMBERS[key][i] for key in NUMBERS}) for i, name in enumerate(NAMES)}


def get(name: str) -> Scale:
    """The scale of that name. Raises CourseError when there is none."""
    if name not in SCALES:
        raise CourseError(f"scale={name!r}: no such scale; choose one of {', '.join(SCALES)}")
    return SCALES[name]
