"""How much of everything: numbers only. Callers read a scale and pass its numbers down as plain values."""

from dataclasses import dataclass, replace

from ssl_utils.errors import CourseError


@dataclass(frozen=True)
class Scale:
    """One size of the course. `grid` names the resolution at which every dataset states spacing and ROI."""

    name: str
    grid: str  # "coarse" (fits a laptop) or "fine" (the published resolution)
    # volumes of the generated phantom: unlabelled, labelled pool, inner validation, test
    phantom_sizes: tuple[int, int, int, int]
    max_unlabeled: int | None  # at most so many volumes are used for pretraining
    max_validation: int | None
    max_test: int | None
    # network
    patch_size: int
    hidden_size: int
    mlp_dim: int
    num_layers: int
    num_heads: int
    feature_size: int
    # pretraining
    pretrain_steps: int
    pretrain_batch_size: int
    pretrain_lr: float
    # fine-tuning
    finetune_steps: int
    finetune_batch_size: int
    finetune_lr: float
    # the experiment
    num_labeled: tuple[int, ...]
    draws: int
    seeds: int
    overlap: float  # of neighbouring sliding windows


_SMOKE = Scale(
    name="smoke",
    grid="coarse",
    phantom_sizes=(6, 24, 2, 3),
    max_unlabeled=8,
    max_validation=2,
    max_test=3,
    patch_size=8,
    hidden_size=48,
    mlp_dim=96,
    num_layers=3,
    num_heads=3,
    feature_size=4,
    pretrain_steps=20,
    pretrain_batch_size=2,
    pretrain_lr=1e-3,
    finetune_steps=10,
    finetune_batch_size=1,
    finetune_lr=4e-3,
    num_labeled=(6, 12, 24),
    draws=1,
    seeds=1,
    overlap=0.25,
)
_LAPTOP = replace(
    _SMOKE,
    name="laptop",
    phantom_sizes=(60, 24, 6, 20),
    max_unlabeled=None,
    max_validation=8,
    max_test=None,
    hidden_size=128,
    mlp_dim=512,
    num_layers=6,
    num_heads=4,
    feature_size=8,
    pretrain_steps=700,
    pretrain_batch_size=8,
    finetune_steps=200,
    finetune_batch_size=2,
)
_WORKSTATION = replace(
    _LAPTOP,
    name="workstation",
    phantom_sizes=(200, 24, 10, 60),
    max_validation=None,
    pretrain_steps=10_000,
    finetune_steps=1500,
    finetune_batch_size=4,
    draws=3,
    seeds=3,
    overlap=0.5,
)
_PAPER = replace(
    _WORKSTATION,
    name="paper",
    grid="fine",
    patch_size=16,
    hidden_size=768,
    mlp_dim=3072,
    num_layers=12,
    num_heads=12,
    feature_size=16,
    pretrain_steps=22_500,
    pretrain_lr=1e-4,
    finetune_steps=30_000,
    finetune_lr=1e-4,
    draws=5,
)

SCALES = {scale.name: scale for scale in (_SMOKE, _LAPTOP, _WORKSTATION, _PAPER)}


def get(name: str) -> Scale:
    """The scale of that name.

    Raises:
        CourseError: no such scale.
    """
    if name not in SCALES:
        raise CourseError(f"scale={name!r}: no such scale; choose one of {', '.join(SCALES)}")
    return SCALES[name]
