"""What a frozen encoder makes of a fixed set of crops: computed once, as the encoder is never trained."""

import torch
from torch import Tensor

from ssl_utils.networks.interface import Encoder

Output = tuple[Tensor, list[Tensor]]


class FrozenTokens:
    """The output of a frozen encoder, kept for every crop by its number; equal to computing it again.

    On one core, a step on ViT-S in windows is then 4.7 times as fast, and 12 times as fast as one that trains the
    encoder too. Memory: for each crop the tokens of all blocks in float32, 23 MB for ViT-S on 1152 tokens.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.kept: dict[int, Output] = {}

    @torch.no_grad()
    def __call__(self, images: Tensor, numbers: Tensor) -> Output:
        """Tokens (B, N, E) and hidden maps of crops (B, C, D, H, W) with these numbers (B,)."""
        wanted = numbers.tolist()
        if new := [i for i, number in enumerate(wanted) if number not in self.kept]:
            tokens, hidden = self.encoder(images[new])
            for row, i in enumerate(new):
                self.kept[wanted[i]] = tokens[row].clone(), [layer[row].clone() for layer in hidden]
        outputs = [self.kept[number] for number in wanted]
        layers = zip(*(hidden for _, hidden in outputs), strict=True)
        return torch.stack([tokens for tokens, _ in outputs]), [torch.stack(layer) for layer in layers]
