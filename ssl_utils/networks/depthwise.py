"""Depthwise convolutions whose gradients are themselves computed as convolutions.

On a CPU PyTorch computes the gradients of a depthwise 3D convolution 2 to 6 times slower than the convolution, and they
were 70 % of a training step of MedNeXt. Both are convolutions again: that of the image is one with the kernel reversed,
and that of the kernel one of the image with the gradient as its kernel.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Depthwise(torch.autograd.Function):
    """x (B, C, D, H, W) with one odd kernel (k, k, k) per channel, stride 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv3d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        margin, of_x, of_weight, of_bias = weight.shape[-1] // 2, None, None, None
        if ctx.needs_input_grad[0]:
            of_x = F.conv3d(gradient, weight.flip(2, 3, 4), padding=margin, groups=len(weight))
        if ctx.needs_input_grad[1]:  # every crop and channel is a group: 1 x (B C) images, (B C) x 1 kernels
            images, kernels = x.flatten(0, 1)[None], gradient.flatten(0, 1)[:, None]
            of_weight = F.conv3d(images, kernels, padding=margin, groups=images.shape[1])
            of_weight = of_weight.view(len(x), *weight.shape).sum(0)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3, 4))
        return of_x, of_weight, of_bias


class Depthwise(nn.Module):
    """`nn.Conv3d` of as many groups as channels, stride 1 and an odd kernel, with its weights and its results."""

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, x: Tensor) -> Tensor:  # (B, C, D, H, W)
        if torch.is_grad_enabled() and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            return _Depthwise.apply(x, self.weight, self.bias)
        return F.conv3d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2, groups=len(self.weight))
