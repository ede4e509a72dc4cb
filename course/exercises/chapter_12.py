"""Checks of chapter 12: regions from a coding, nested regions back to labels, a z-score over the brain."""

import numpy as np

from course.exercises import Wrong, array, exercise


@exercise("12.1")
def _(answer):
    label = np.random.default_rng(0).integers(0, 5, (4, 5, 3))
    for regions in ({"TC": (1, 4), "WT": (1, 2, 4), "ET": (4,)}, {"ET": (3,), "TC": (2, 3)}):
        yours = array(answer(label.copy(), regions), (len(regions), *label.shape))
        if yours.dtype != bool:
            raise Wrong("Masks are boolean; yours have numbers.")
        for (name, values), mask in zip(regions.items(), yours, strict=True):
            true = np.isin(label, values)
            if np.array_equal(mask, true):
                continue
            if np.array_equal(mask, label == values[0]) or np.array_equal(mask, label == values[-1]):
                raise Wrong(f"{name} unites {len(values)} values; yours has one of them.")
            if any(np.array_equal(mask, np.isin(label, other)) for other in regions.values()):
                raise Wrong("The regions are in another order than in the dictionary.")
            raise Wrong(f"{name} has other voxels; which values does it unite in this coding?")
    return "A voxel of enhancing tumour is in all three regions at once."


@exercise("12.2")
def _(answer):
    rng = np.random.default_rng(1)
    wt = rng.random((6, 5, 4)) < 0.6
    tc = wt & (rng.random(wt.shape) < 0.6)
    et = tc & (rng.random(wt.shape) < 0.5)
    nested = np.where(et, 3, np.where(tc, 1, np.where(wt, 2, 0)))
    yours = array(answer(tc.copy(), wt.copy(), et.copy()), wt.shape)
    if np.array_equal(yours, tc.astype(int) + wt + et):
        raise Wrong("You have counted the regions of a voxel; necrosis is 1 and oedema 2.")
    if not np.array_equal(yours, nested):
        raise Wrong("Masks that are nested already do not give their labels back.")
    alone = np.zeros((3, 1, 1), bool)
    tc, wt, et = alone.copy(), alone.copy(), alone.copy()
    et[0], tc[1], wt[2] = True, True, True
    yours = array(answer(tc, wt, et), alone.shape).ravel().tolist()
    if yours[0] != 3:
        raise Wrong("A voxel of ET alone is lost; what is ET is also TC and WT.")
    if yours[1] != 1:
        raise Wrong("A voxel of TC alone is lost; what is TC is also WT.")
    if yours[2] != 2:
        raise Wrong("A voxel of WT alone is oedema.")
    return "Three outputs that decide alone become one label map."


@exercise("12.3")
def _(answer):
    rng = np.random.default_rng(2)
    brain = rng.random((3, 8, 7, 6)) < [[[[0.6]]], [[[0.5]]], [[[0.0]]]]
    image = np.where(brain, rng.normal([[[[900]]], [[[60]]], [[[1]]]], 50, brain.shape), 0).astype(np.float32)
    result = answer(image.copy())
    if not isinstance(result, tuple) or len(result) != 2:
        raise Wrong("Two values are wanted: the image and the mask.")
    mask = array(result[1], image.shape[1:])
    if not np.array_equal(mask.astype(bool), (image != 0).any(0)):
        late = np.array_equal(mask.astype(bool), (array(result[0]) > 0).any(0))
        why = "it was taken after the scaling" if late else "it is what is not 0 in any of the channels"
        raise Wrong(f"The mask has other voxels: {why}.")
    yours = array(result[0], image.shape)
    if np.abs(yours[image == 0]).max() > 1e-6:
        raise Wrong("The background is not 0 any more.")
    for channel, inside in zip(yours[:2], brain[:2], strict=True):
        values = channel[inside]
        if abs(values.mean()) > 1e-3 or abs(values.std() - 1) > 1e-3:
            raise Wrong("In the brain of a channel, mean and standard deviation are not 0 and 1; over which voxels?")
    return "However large the field of view, the brain gets the same numbers."
