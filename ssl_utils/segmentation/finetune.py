"""Supervised fine-tuning: DiceCE, freezing and layer-wise learning rates, the best network by validation Dice."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss
from torch import Tensor, nn

from ssl_utils.data.cache import Prepared
from ssl_utils.networks.interface import SegmentationNetwork
from ssl_utils.segmentation.freezing import frozen_layers, train_only
from ssl_utils.segmentation.frozen import FrozenTokens
from ssl_utils.segmentation.inference import decide, predict_logits
from ssl_utils.segmentation.metrics import dice
from ssl_utils.training.loop import parameter_groups
from ssl_utils.training.optimisers import DEFAULT, configured
from ssl_utils.training.parallel import SharedStep

ALWAYS = -1  # of freeze_epochs
IGNORED = -1  # target of a voxel that nobody has annotated, in every channel


def class_shares(
    labels: Sequence[np.ndarray], values: Sequence[int], regions: Mapping[str, Sequence[int]] | None
) -> np.ndarray:
    """Share of each output channel in the voxels of the labelled volumes that have one of `values`."""
    counts = sum(np.bincount(label.ravel(), minlength=256) for label in labels)
    groups = regions.values() if regions else [[value] for value in values]
    return np.array([counts[list(group)].sum() for group in groups]) / max(counts[list(values)].sum(), 1)


@torch.no_grad()
def start_from_prior(network: SegmentationNetwork, shares: np.ndarray, *, regions: bool) -> None:
    """Set the output bias so that the untrained network predicts every class as often as it occurs (Lin et al. 2017).

    Otherwise the first hundreds of steps only learn that most voxels are background; in our trials 10 of 13 organs were
    then never predicted.
    """
    shares = torch.from_numpy(shares).float().clamp(1e-5, 1 - 1e-5)
    for bias in network.out_biases:  # one, unless there is deep supervision
        bias.copy_(shares.logit() if regions else shares.log())


def level_weights(levels: int) -> list[float]:
    """Weights of the losses of deep supervision, full resolution first: each half the one before. Their sum is 1, so
    that the loss can be compared with one without deep supervision."""
    return [2.0 ** (levels - 1 - level) / (2**levels - 1) for level in range(levels)]


class OnAnnotated(nn.Module):
    """A loss of logits (B, K, ...) and targets (B, 1 or K, ...) over the voxels whose target is not `IGNORED`.

    The loss must sum over batch and voxels, since voxels lose their places: it gets (1, K, N). Without any, it is 0.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        known = targets[:, 0] != IGNORED  # (B, D, H, W)
        if not known.any():
            return 0 * logits.sum()
        logits, targets = (values.movedim(1, 0)[:, known][None] for values in (logits, targets))
        return self.loss(logits, targets)


class SegmentationTask(SharedStep):
    """Train a segmentation network on a few labelled volumes, and keep the best by validation Dice.

    Args:
        network: any network of the registry; with deep supervision, the loss of each level has half the weight of the
            next finer one.
        values: label value of each output channel (plain labels), in channel order.
        shares: share of the voxels of each output channel (`class_shares`); sets the output bias and the class weights.
        held_out: the validation cases; the loader yields their numbers.
        regions: name -> label values of overlapping regions, one sigmoid channel each; None for plain labels.
        ignore: the label value of voxels that count neither in the loss nor in the score; None: there is none.
        freeze_epochs: epochs (from one validation to the next) with a frozen encoder; 0 never, -1 always.
        freeze: what is frozen then: `encoder`, or `network`, which is all but the output layers.
        trainable: what is trained alone, as in `freezing.train_only`, in place of `freeze`; None: all.
        layer_decay: learning rate of a part of the encoder over that of the next part inwards; the innermost part has
            `encoder_lr` times the rate of the decoder.
    """

    def __init__(
        self,
        *,
        network: SegmentationNetwork,
        values: Sequence[int],
        regions: Mapping[str, Sequence[int]] | None,
        shares: np.ndarray,
        held_out: Sequence[Prepared],
        roi: Sequence[int],
        overlap: float,
        lr: float,
        steps: int,
        ignore: int | None = None,
        freeze_epochs: int = 0,
        freeze: str = "encoder",
        trainable: str | None = None,
        layer_decay: float = 1.0,
        encoder_lr: float = 1.0,
        optimizer: str = DEFAULT,
    ) -> None:
        super().__init__()
        self.network, self.values, self.regions, self.ignore = network, list(values), regions, ignore
        self.lr, self.steps, self.roi, self.overlap, self.held_out = lr, steps, tuple(roi), overlap, list(held_out)
        self.freeze_epochs, self.layer_decay, self.encoder_lr = freeze_epochs, layer_decay, encoder_lr
        self.optimizer = optimizer
        self.freeze, self.freezes = freeze, freeze_epochs != 0
        self.trained, self.total = train_only(network, trainable) if trainable else (None, None)
        # batch=True, because a structure may be absent from a single crop. With the class weights all 13 organs of the
        # phantom were predicted in our trial, without them 8
        weight = torch.from_numpy(shares).float().clamp(min=1e-5).rsqrt()
        self.loss = DiceCELoss(
            to_onehot_y=regions is None,
            softmax=regions is None,
            sigmoid=regions is not None,
            include_background=regions is not None,
            batch=True,
            weight=None if regions else weight / weight.mean(),
        )
        if ignore is not None:
            self.loss = OnAnnotated(self.loss)
        start_from_prior(network, shares, regions=regions is not None)
        self.tokens = FrozenTokens(network.encoder)
        self.best: dict = {"dice": -1.0, "step": 0, "weights": {}}

    def targets(self, label: Tensor) -> Tensor:
        """Label values (B, 1, D, H, W) -> class indices (B, 1, ...), or region maps (B, K, ...), `IGNORED` in all of
        them where the label is `ignore`."""
        targets = self._channels_of(label)
        return targets if self.ignore is None else torch.where(label == self.ignore, IGNORED, targets)

    def _channels_of(self, label: Tensor) -> Tensor:
        if self.regions:
            return torch.cat([torch.isin(label, label.new_tensor(v)) for v in self.regions.values()], 1).float()
        if self.values == list(range(len(self.values))):
            return label
        return sum(torch.where(label == value, i, 0) for i, value in enumerate(self.values))

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        logits, targets = self.logits(batch), self.gathered(self.targets(batch["label"].long()))
        if isinstance(logits, list):
            loss = DeepSupervisionLoss(self.loss, weights=level_weights(len(logits)))
            return loss([self.gathered(level.float()) for level in logits], targets.float())
        return self.loss(self.gathered(logits.float()), targets)  # sums over the batch of all processes

    def logits(self, batch: dict) -> Tensor | list[Tensor]:
        """Of crops with a `number`, which come again, the tokens are computed once: the encoder is frozen."""
        if "number" not in batch:
            return self.network(batch["image"])
        return self.network.decode(batch["image"], *self.tokens(batch["image"], batch["number"]))

    def on_train_epoch_start(self) -> None:
        if self.trained is not None:
            for layer in frozen_layers(self.network):
                layer.eval()
            return
        frozen = self.freeze_epochs == ALWAYS or self.current_epoch < self.freeze_epochs
        decoder = [part for name, part in self.network.named_children() if not name.startswith("out")]
        parts = decoder if self.freeze == "network" else self.network.encoder_parts().values()
        for part in parts:
            part.requires_grad_(not frozen).train(not frozen)  # batch norm keeps its statistics, too

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        # every process scores every case; sync, because rounding must not differ between them
        self.log("validation_dice", self.case_dice(self.held_out[int(batch)]), batch_size=1, sync_dist=True)

    def case_dice(self, case: Prepared) -> float:
        """Mean foreground Dice of one cached case on its own grid; structures absent from both are not counted."""
        logits = predict_logits(self.network, case.standardised(case.image), roi=self.roi, overlap=self.overlap)
        decided = decide(logits, regions=self.regions is not None)
        target = self.targets(torch.from_numpy(case.label.astype(np.int64))[None, None])[0]
        known = target[0] != IGNORED
        if self.regions:
            pairs = zip(decided, target == 1, strict=True)
        else:
            pairs = ((decided == k, target[0] == k) for k in range(len(self.values)) if self.values[k] != 0)
        scores = [dice((a & known).numpy(), b.numpy()) for a, b in pairs]
        return float(np.nanmean(scores)) if not np.all(np.isnan(scores)) else 0.0

    def on_validation_epoch_end(self) -> None:
        score = float(self.trainer.callback_metrics["validation_dice"])
        if score > self.best["dice"]:
            weights = {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}
            self.best = {"dice": score, "step": self.global_step, "weights": weights}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["best"] = self.best

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.best = checkpoint["best"]

    def configure_optimizers(self) -> dict:
        groups = parameter_groups(self.layers(), lr=self.lr, weight_decay=0.01)
        return configured(self.optimizer, groups, steps=self.steps, betas=(0.9, 0.999))

    def layers(self) -> list[tuple[nn.Module, float]]:
        """(module, learning-rate factor): 1 for the decoder, `encoder_lr` for the innermost part of the encoder, times
        `layer_decay` with every part further out."""
        parts = list(self.network.encoder_parts().values())
        factors = [self.encoder_lr * self.layer_decay ** (len(parts) - 1 - i) for i in range(len(parts))]
        encoder = list(zip(parts, factors, strict=True))
        return [*encoder, *((part, 1.0) for part in self.network.decoder_parts())]
