"""Checks for chapter 06: visible encodings put back among mask tokens, and patches normalised one by one."""

import torch

from course.exercises import Wrong, array, exercise

MASKS = (  # crops with equally many visible tokens each
    [[False, True, True, False, True, True]],
    [[True, False, False], [False, True, False]],
    [[False, True, True, True], [True, True, False, True], [True, True, True, False]],
)


def _crops() -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """visible (B, n, w), mask (B, N), mask_token (w,); w differs from n and N."""
    state, crops = torch.Generator().manual_seed(6), []
    for rows in MASKS:
        mask = torch.tensor(rows)
        visible = torch.randn(len(mask), int((~mask[0]).sum()), 5, generator=state)
        crops.append((visible, mask, torch.randn(5, generator=state)))
    return crops


def _put_back(visible: torch.Tensor, mask: torch.Tensor, mask_token: torch.Tensor) -> torch.Tensor:
    rows = []
    for codes, hidden in zip(visible, mask, strict=True):
        left = iter(codes)
        rows.append(torch.stack([mask_token if lost else next(left) for lost in hidden]))
    return torch.stack(rows)


@exercise("06.1")
def _(answer):
    for crop in _crops():
        given, true = [part.clone() for part in crop], _put_back(*crop)
        yours = torch.as_tensor(array(answer(*given), true.shape), dtype=true.dtype)
        visible, mask, token = crop
        if any(not torch.equal(a, b) for a, b in zip(given, crop, strict=True)):
            raise Wrong("One of the inputs was changed; write into a tensor of your own.")
        if torch.allclose(yours, true, atol=1e-6):
            continue
        if torch.allclose(yours, _put_back_of(visible, ~mask, token), atol=1e-6):
            raise Wrong("Encodings and mask tokens are exchanged: True in the mask means hidden.")
        if not torch.allclose(yours[mask], true[mask], atol=1e-6):
            raise Wrong(f"For the mask {mask.int().tolist()} a hidden position does not have the mask token.")
        raise Wrong(
            f"For the mask {mask.int().tolist()} a visible position does not have its own encoding. "
            "Which encoding belongs to the first visible token of the second crop?"
        )
    return "Every encoding is at its own position again; the decoder predicts the others."


def _put_back_of(visible: torch.Tensor, mask: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """What a mask read the other way round gives, where the numbers of tokens allow it; else NaN."""
    if int((~mask[0]).sum()) != visible.shape[1]:
        return torch.full((*mask.shape, len(token)), float("nan"))
    return _put_back(visible, mask, token)


@exercise("06.2")
def _(answer):
    patches = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1)) * 4 + 7
    patches[1, 2] = 3.0  # flat, as a patch of air
    centred = patches - patches.mean(-1, keepdim=True)
    true = centred / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    result = answer(patches.clone())
    if hasattr(result, "isfinite") and result.shape == true.shape and not result[1, 2].isfinite().all():
        raise Wrong("A patch without variance becomes nan or infinite; what is epsilon for?")
    yours = torch.as_tensor(array(result, true.shape), dtype=true.dtype)
    if torch.allclose(yours, true, atol=1e-4):
        return "All patches have equal weight now, those of air as well: a gain on photographs, a risk in volumes."
    if torch.allclose(yours, centred, atol=1e-4):
        raise Wrong("You subtract the mean of each patch, but do not divide by its standard deviation.")
    if torch.allclose(yours, centred / (patches.var(-1, keepdim=True) + 1e-6), atol=1e-4):
        raise Wrong("You divide by the variance; the unit of the result is then wrong.")
    if torch.allclose(yours, centred / (patches.var(-1, keepdim=True, correction=0) + 1e-6).sqrt(), atol=1e-4):
        raise Wrong("Nearly: the variance is to be the unbiased one.")
    if abs(float(yours[0, 0].mean())) > 1e-3:
        raise Wrong(
            f"The first patch has the mean {float(yours[0, 0].mean()):.2f} afterwards; did you subtract its own?"
        )
    std = float(yours[0, 0].std())
    raise Wrong(f"The first patch has the standard deviation {std:.2f} afterwards; did you divide by its own?")
