"""Checks of chapter 06: the order of the tokens restored among mask tokens, and the loss of He et al."""

import torch

from course.exercises import Wrong, array, exercise, number


def _crops() -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """visible (B, n, w), ids_restore (B, N), mask_token (w,); every crop of a batch in an order of its own."""
    state, crops = torch.Generator().manual_seed(6), []
    for B, n, N in ((1, 2, 6), (3, 3, 7), (2, 4, 5)):
        ids_restore = torch.rand(B, N, generator=state).argsort(1)
        crops.append((torch.randn(B, n, 5, generator=state), ids_restore, torch.randn(5, generator=state)))
    return crops


def _restore(visible, ids_restore, mask_token):
    rows = zip(visible, ids_restore, strict=True)
    return torch.stack([torch.stack([r[i] if i < len(r) else mask_token for i in ids]) for r, ids in rows])


@exercise("06.1")
def _(answer):
    for crop in _crops():
        given, true = [part.clone() for part in crop], _restore(*crop)
        visible, ids_restore, mask_token = crop
        yours = torch.as_tensor(array(answer(*given), true.shape), dtype=true.dtype)
        if any(not torch.equal(a, b) for a, b in zip(given, crop, strict=True)):
            raise Wrong("One of the inputs was changed; build a tensor of your own.")
        if torch.allclose(yours, true, atol=1e-6):
            continue
        context = f"For ids_restore {ids_restore.tolist()} with {visible.shape[1]} visible tokens a crop"
        if torch.allclose(yours, _restore(visible, ids_restore.argsort(1), mask_token), atol=1e-6):
            raise Wrong(f"{context} you apply the inverse order: you shuffle once more instead of undoing it.")
        hidden = ids_restore >= visible.shape[1]  # (B, N)
        if not torch.allclose(yours[hidden], true[hidden], atol=1e-6):
            raise Wrong(f"{context} a hidden position does not have the mask token.")
        raise Wrong(f"{context} a visible position does not have its own encoding. Has every crop its own order?")
    return "Every encoding is at its own position again, and the decoder predicts the others."


def _patches() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    state = torch.Generator().manual_seed(1)
    patches = torch.randn(2, 4, 8, generator=state) * torch.rand(2, 4, 1, generator=state) * 4 + 7
    patches[1, 2] = 3.0  # flat, as a patch of air
    mask = torch.tensor([[True, False, True, True], [False, True, True, False]])
    return torch.randn(2, 4, 8, generator=state), patches, mask


def _loss(predicted, patches, mask, *, centre=1, scale=0.5, correction=1, power=2, epsilon=1e-6, axes=-1):
    """The loss, or one of the mistakes that a reader may make."""
    spread = patches.var(axes, keepdim=True, correction=correction) + epsilon
    target = (patches - centre * patches.mean(axes, keepdim=True)) / spread**scale
    return (predicted - target).abs()[mask].pow(power).mean()


@exercise("06.2")
def _(answer):
    crop = _patches()
    predicted, patches, mask = crop
    result = answer(*(part.clone() for part in crop))
    if hasattr(result, "isfinite") and not result.isfinite().all():
        raise Wrong("A patch without variance makes the loss nan or infinite; what is epsilon for?")
    yours, everything = number(result), torch.ones_like(mask)
    mistakes = {
        "Visible patches count in your loss.": _loss(predicted, patches, everything),
        "You score the visible patches.": _loss(predicted, patches, ~mask),
        "That is the absolute error.": _loss(*crop, power=1),
        "The target is not normalised.": _loss(*crop, centre=0, scale=0),
        "The mean of each patch is gone, its standard deviation is not.": _loss(*crop, scale=0),
        "You divide by the variance; the unit of the result is then wrong.": _loss(*crop, scale=1),
        "Nearly: the variance is to be the unbiased one.": _loss(*crop, correction=0),
        "Each patch has its own mean and standard deviation.": _loss(*crop, axes=(0, 1, 2)),
    }
    if abs(yours - float(_loss(*crop))) < 1e-4:
        return "All patches count alike now, the ones of air as well: a gain on photographs, a risk in volumes."
    for sentence, value in mistakes.items():
        if abs(yours - float(value)) < 1e-4 * max(1.0, float(value)):
            raise Wrong(sentence)
    raise Wrong("The value is another one on two crops of four patches; is it a mean over hidden voxels?")
