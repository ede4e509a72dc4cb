"""Steps of pretraining against the published networks, at the size of ViT-B with patches of 16 voxels.

Ours is what `pretrain` runs: corruption or masks drawn in the step, the loss, backward, the optimiser, in the precision
this machine trains in. Theirs is the published network and loss in float32 on crops that are corrupted already.
"""

import torch
from monai.losses import ContrastiveLoss
from monai.networks import nets
from monai.networks.blocks import SubpixelUpsample
from torch import Tensor, nn

from benchmarks.race import furthest, near_limit, race, stepper
from ssl_utils.networks.vit import ViT
from ssl_utils.pretext.mae import MAETask
from ssl_utils.pretext.restoration import RestorationTask
from ssl_utils.pretext.simmim import SimMIMTask
from ssl_utils.training.devices import device

SIDES = {216: 96, 512: 128, 1728: 192}  # tokens of a cube -> its side in voxels
BASE = {"hidden_size": 768, "mlp_dim": 3072, "num_layers": 12, "num_heads": 12}
SMALL = {"hidden_size": 128, "mlp_dim": 512, "num_layers": 6, "num_heads": 4}  # of scale laptop


def pretraining_step(task, images: Tensor):
    return stepper(task, lambda: task.losses(images, task.generator(0))["loss"])


class SimMIM3D(nn.Module):
    """SimMIM3D's network, from its facts: MONAI's ViT whose masked sums of patch and position become one vector, and a
    head of one 3^3 convolution to 16^3 features, pixel shuffle and an average over 16^3 voxels."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.encoder = nets.ViT(1, (side,) * 3, (16,) * 3, **BASE)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, BASE["hidden_size"]))
        self.head = SubpixelUpsample(3, in_channels=BASE["hidden_size"], out_channels=1, scale_factor=16)

    def tokens(self, images: Tensor, mask: Tensor) -> Tensor:
        tokens = torch.where(mask[..., None], self.mask_token, self.encoder.patch_embedding(images))
        for block in self.encoder.blocks:
            tokens = block(tokens)
        return self.encoder.norm(tokens)  # (B, N, E)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        n = images.shape[2] // 16
        return self.head(self.tokens(images, mask).transpose(1, 2).unflatten(2, (n, n, n)))  # (B, 1, D, H, W)


def simmim(tokens: int, *, repeats: int, batch: int = 1) -> dict:
    side, where = SIDES[tokens], device()
    task = SimMIMTask(encoder=ViT(in_channels=1, img_size=side, **BASE), lr=1e-4, steps=100).to(where)
    other = SimMIM3D(side).to(where)
    other.encoder.load_state_dict(task.encoder.state_dict(), strict=False)
    images = torch.randn(batch, 1, side, side, side, device=where)
    mask = task.mask(images, task.generator(0))
    hidden, nothing = task.voxel_mask(mask, 1), torch.zeros_like(mask)
    with torch.no_grad():
        apart = furthest(task.encoder(images)[0], other.tokens(images, nothing))
    chosen = torch.optim.AdamW(other.parameters(), lr=5e-4, weight_decay=0.005)

    def step() -> None:
        off = ((images - other(images, mask)).abs() * hidden).sum()
        loss = off / (hidden.sum() + 1e-5)
        chosen.zero_grad()
        loss.backward()
        chosen.step()

    equality = f"tokens of unmasked crops within {apart:.0e} of their largest, float32"
    own = pretraining_step(task, images)
    found = race(_name("simmim", tokens), own, step, equality=equality, repeats=repeats)
    return found | near_limit(own, found["ours"], crops=batch)


def restoration(tokens: int, *, repeats: int, batch: int = 2) -> dict:
    """Two views of each of `batch` crops, L1 and the contrast of flattened reconstructions, as in MONAI's notebook."""
    side, where = SIDES[tokens], device()
    task = RestorationTask(
        encoder=ViT(in_channels=1, img_size=side, **BASE), lr=1e-4, steps=100, contrast="published"
    ).to(where)
    other = nets.ViTAutoEnc(1, (side,) * 3, (16,) * 3, proj_type="conv", hidden_size=768, mlp_dim=3072).to(where)
    other.load_state_dict(task.encoder.state_dict() | task.head.state_dict(), strict=False)
    images = torch.rand(batch, 1, side, side, side, device=where)
    views = [task.views(images, task.generator(n))[0] for n in (0, 1)]
    contrast, l1 = ContrastiveLoss(temperature=0.05), nn.L1Loss()
    chosen = torch.optim.Adam(other.parameters(), lr=1e-4)
    with torch.no_grad():
        apart = furthest(task(views[0])[0], other(views[0])[0])

    def step() -> None:
        restored = [other(view)[0] for view in views]
        off = l1(restored[0], images)
        loss = off + contrast(*(one.flatten(1) for one in restored)) * off
        chosen.zero_grad()
        loss.backward()
        chosen.step()

    equality = f"restored crops within {apart:.0e} of their largest, float32"
    own = pretraining_step(task, images)
    found = race(_name("restoration", tokens), own, step, equality=equality, repeats=repeats)
    return found | near_limit(own, found["ours"], crops=batch)


def mae(name: str, sizes: dict, *, side: int, patch: int, batch: int, repeats: int) -> dict:
    """MAE at a mask ratio of .75 against our own route over all tokens."""
    where = device()
    encoders = [ViT(in_channels=1, img_size=side, patch_size=patch, **sizes) for _ in range(2)]
    encoders[1].load_state_dict(encoders[0].state_dict())
    tasks = [
        kind(encoder=encoder, lr=1e-4, steps=100, mask_ratio=0.75).to(where)
        for kind, encoder in zip((MAETask, SimMIMTask), encoders, strict=True)
    ]
    images = torch.randn(batch, 1, side, side, side, device=where)
    masks = [task.mask(images, task.generator(0)) for task in tasks]
    equality = f"same encoder, same hidden tokens: {bool((masks[0] == masks[1]).all())}"
    return race(name, *(pretraining_step(task, images) for task in tasks), equality=equality, repeats=repeats)


def _name(task: str, tokens: int) -> str:
    return f"pretraining_step_{task}" + (f"_{tokens}" if tokens != 216 else "")
