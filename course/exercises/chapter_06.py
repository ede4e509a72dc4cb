"""Checks of chapter 06: visible encodings put back among mask tokens, and patches normalised one by one."""

import torch

from course.exercises import Wrong, array, exercise

MASKS = (  # crops with equally many visible tokens each
    [[False, True, True, False, True, True]],
    [[True, False, False], [False, True, False]],
    [[False, True, True, True], [True, True, False, True], [True, True, True, False]],
)


def _crops() -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """visible (B, n, w), mask (B, N), mask_token (w,); w differs from n and N."""
    state, found = torch.Generator().manual_seed(6), []
    for rows in MASKS:
        mask = torch.tensor(rows)
        visible = torch.randn(len(mask), int((~mask[0]).sum()), 5, generator=state)
        found.append((visible, mask, torch.randn(5, generator=state)))
    return found


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
            raise Wrong("Encodings and mask tokens have changed places: True in the mask means hidden.")
        if not torch.allclose(yours[mask], true[mask], atol=1e-6):
            raise Wrong(f"For the mask {mask.int().tolist()} a hidden position does not hold the mask token.")
        raise Wrong(
            f"For the mask {mask.int().tolist()} a visible position does not hold its own encoding. "
            "Which encoding belongs to the first visible token of the second crop?"
        )
    return "Every encoding is at its own position again, and the decoder can fill the others."


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
        return "All patches count alike now, the ones of air as well: a gain on photographs, a risk in volumes."
    if torch.allclose(yours, centred, atol=1e-4):
        raise Wrong("The mean of each patch is gone, its deviation is not.")
    if torch.allclose(yours, centred / (patches.var(-1, keepdim=True) + 1e-6), atol=1e-4):
        raise Wrong("You divide by the variance; the unit of the result is then wrong.")
    if torch.allclose(yours, centred / (patches.var(-1, keepdim=True, correction=0) + 1e-6).sqrt(), atol=1e-4):
        raise Wrong("Nearly: the variance is to be the unbiased one.")
    if abs(float(yours[0, 0].mean())) > 1e-3:
        raise Wrong(f"The first patch has the mean {float(yours[0, 0].mean()):.2f} afterwards; is it its own mean?")
    raise Wrong(
        f"The first patch has the deviation {float(yours[0, 0].std()):.2f} afterwards; is it its own deviation?"
    )


def _in_place(visible, mask, mask_token):
    visible[:, 0] = mask_token
    return _put_back(visible, mask, mask_token)


def _one_order(visible, mask, mask_token):
    everywhere = mask_token.expand(*mask.shape, -1).clone()
    everywhere[~mask] = visible.transpose(0, 1).flatten(0, 1)
    return everywhere


WRONG = {
    "06.1": [
        lambda visible, mask, token: torch.cat(
            [visible, token.expand(len(mask), mask.shape[1] - visible.shape[1], -1)], 1
        ),
        lambda visible, mask, token: _put_back(visible.flip(1), mask, token),
        lambda visible, mask, token: _put_back(visible, mask, torch.zeros_like(token)),
        lambda visible, mask, token: visible,
        _in_place,
        _one_order,
    ],
    "06.2": [
        lambda patches: patches - patches.mean(-1, keepdim=True),
        lambda patches: (patches - patches.mean()) / patches.std(),
        lambda patches: (patches - patches.mean(1, keepdim=True)) / (patches.var(1, keepdim=True) + 1e-6).sqrt(),
        lambda patches: (patches - patches.mean(-1, keepdim=True)) / patches.std(-1, keepdim=True),
        lambda patches: (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6),
        lambda patches: (
            (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
        ),
    ],
}
