"""Slices along all three axes: three views of every voxel, averaged (Roth et al. 2014, "2.5D"; Roy et al. 2019)."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ssl_utils.errors import CourseError
from ssl_utils.networks.interface import SegmentationNetwork
from ssl_utils.segmentation.inference import mean_of_views, predict_logits


def predict_along_axes(
    network: SegmentationNetwork, image: np.ndarray, *, roi: Sequence[int], overlap: float, regions: bool
) -> Tensor:
    """Logits (K, D, H, W), on the CPU, of the mean probabilities over the three axes of a standardised image
    (C, D, H, W).

    The network reads the image turned, so that its slices lie across each axis in turn. One that was trained across a
    single axis meets planes here that it never saw. Memory: two maps of scores, as many voxels as the image has.

    Raises:
        CourseError: the network does not read windows of slices.
    """
    check_slices(network)
    pairs = [(1 + axis, 1 + network.axis) for axis in range(3)]
    views = (predict_logits(network, image.swapaxes(*p), roi=roi, overlap=overlap).swapaxes(*p) for p in pairs)
    return mean_of_views(views, regions=regions)


def check_slices(network: SegmentationNetwork) -> None:
    """Raises CourseError when a network has no axis across which it reads slices."""
    if network.axis is None:
        name = network.config["network"]
        raise CourseError(f"all_axes=True: {name} reads volumes, not slices; leave it out, or use network=window_vit")
