"""UpKern (Roy et al. 2023): start a network of large kernels from one that was trained with small kernels."""

from torch import Tensor
from torch.nn.functional import interpolate

from ssl_utils.errors import CourseError


def upkern(weight: Tensor, target: Tensor, name: str = "the source") -> Tensor:
    """A convolution (E, C, k, k, k) with its kernels interpolated trilinearly to the size of those of `target`.

    What differs in channels, or has the same size, is returned as it is. Large kernels trained from scratch on few
    volumes did worse than small ones; those that begin as enlarged small ones did better.

    Raises:
        CourseError: the kernels of `target` are smaller.
    """
    old, new = weight.shape[2:], target.shape[2:]
    if weight.ndim != 5 or weight.shape[:2] != target.shape[:2] or old == new:
        return weight
    if max(old) > max(new):
        fix = f"choose kernel_size={max(old)}, or other weights"
        raise CourseError(f"{name}: has kernels of {max(old)} voxels, which UpKern cannot shrink to {max(new)}; {fix}")
    return interpolate(weight.float(), size=tuple(new), mode="trilinear", align_corners=False)
