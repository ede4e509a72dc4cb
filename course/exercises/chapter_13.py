"""Checks for chapter 13: the greedy soup, containment of components, and the lesion-wise Dice from counts."""

from collections.abc import Callable, Collection

import numpy as np

from course.exercises import Wrong, array, exercise, number

# score of every soup that a right or a wrong recipe may ask for; the best members are 1, 2, 0, 3
RISING = {
    (0,): 0.70,
    (1,): 0.80,
    (2,): 0.75,
    (3,): 0.60,
    (1, 2): 0.82,
    (0, 1): 0.85,
    (0, 2): 0.70,
    (0, 3): 0.66,
    (1, 3): 0.79,
    (2, 3): 0.70,
    (0, 1, 2): 0.81,
    (1, 2, 3): 0.83,
    (0, 1, 3): 0.84,
    (0, 2, 3): 0.69,
    (0, 1, 2, 3): 0.815,
}
TIED = {members: score if len(members) == 1 else 0.80 for members, score in RISING.items()}


def _scorer(table: dict, queries: list) -> Callable[[Collection[int]], float]:
    def score(members: Collection[int]) -> float:
        queries.append(tuple(sorted(int(member) for member in members)))
        if queries[-1] not in table:
            raise Wrong(f"There is no soup of the members {queries[-1]}; each of 0 to 3 can be in it once.")
        return table[queries[-1]]

    return score


@exercise("13.1")
def _(answer):
    for table, right in ((RISING, {1, 2, 3}), (TIED, {1})):
        queries: list[tuple[int, ...]] = []
        kept = {int(member) for member in array(answer(4, _scorer(table, queries))).ravel()}
        if kept != right:
            start = f"You keep {sorted(kept)}, with the score {table.get(tuple(sorted(kept)), 0):.3f}."
            if table is TIED:
                raise Wrong(
                    f"{start} There every soup scores as the best member alone: what must a new one do to stay?"
                )
            if kept == {0, 1}:
                raise Wrong(f"{start} In which order are the members tried?")
            if kept == {0, 1, 2, 3}:
                raise Wrong(f"{start} A candidate must beat the soup so far, not the best member alone.")
            if kept == {1, 2}:
                raise Wrong(f"{start} A member that was refused is left out, and the next one is tried without it.")
            raise Wrong(start)
        if len(queries) > len({*queries}):
            raise Wrong("The choice is right, but a soup is scored twice; a score costs a whole validation set.")
    return "Seven scores for four members: 2 k - 1 of k."


def _holding(outer: np.ndarray, inner: np.ndarray, share: float) -> set[int]:
    pairs = [(k, i) for k in np.unique(outer[outer > 0]) for i in np.unique(inner[inner > 0])]
    return {int(k) for k, i in pairs if ((outer == k) & (inner == i)).sum() >= share * (inner == i).sum()}


def _maps() -> tuple[np.ndarray, np.ndarray]:
    """Three rows as outer components; inner ones that lie in the second and third, and one that is mostly outside."""
    outer, inner = np.zeros((6, 9), int), np.zeros((6, 9), int)
    outer[0], outer[2], outer[4] = 1, 2, 3
    inner[2, :5], inner[1, 0] = 1, 1  # 5 of 6 voxels in component 2
    inner[4, 5:8], inner[5, 5:8] = 2, 2  # 3 of 6 in component 3
    inner[0, 0], inner[1, 2:6] = 3, 3  # 1 of 5 in component 1
    return outer, inner


@exercise("13.2")
def _(answer):
    outer, inner = _maps()
    for share in (0.5, 0.6, 0.1):
        yours = {int(k) for k in array(list(answer(outer.copy(), inner.copy(), share))).ravel()}
        right, touching = _holding(outer, inner, share), _holding(outer, inner, 1e-9)
        if yours == right:
            continue
        start = f"With share={share} you keep {sorted(yours)} of the components 1, 2 and 3."
        published = {k for k in (1, 2, 3) for i in (1, 2, 3) if _as_published(outer, inner, k, i) >= share}
        if yours == published:
            raise Wrong(f"{start} Is the mask compared with a number, in place of the map of components?")
        if yours == touching:
            raise Wrong(f"{start} A component that merely touches an inner one does not hold it.")
        if yours == {k for k in (1, 2, 3) if ((outer == k) & (inner > 0)).sum() >= share * (outer == k).sum()}:
            raise Wrong(f"{start} The share is one of the inner component, not of the outer one.")
        if yours == {k for k in (1, 2, 3) if ((outer == k) & (inner > 0)).sum() >= share * (inner > 0).sum()}:
            raise Wrong(f"{start} Every inner component counts by itself; the inner mask is not one thing.")
        raise Wrong(start)
    return "Maps of components are compared, number by number; a mask knows no numbers."


def _as_published(outer: np.ndarray, inner: np.ndarray, k: int, i: int) -> float:
    """The share with the error of the published code: the binary mask is compared with the number."""
    return (((outer > 0) == k) & (inner == i)).sum() / (inner == i).sum()


CASES = (  # (voxels, predicted, both) of each lesion, number of false components
    ([(400, 300, 250), (120, 0, 0), (40, 30, 20)], 1),
    ([(500, 500, 500), (51, 60, 40)], 0),
    ([(50, 0, 0)], 0),
    ([(30, 0, 0)], 2),
    ([], 0),
    ([(200, 90, 80)], 3),
)


def _lesionwise(lesions, false, smallest=50, weight_false=True, empty=1.0) -> float:
    dice = [2 * both / (voxels + predicted) for voxels, predicted, both in lesions if voxels > smallest]
    count = len(dice) + (false if weight_false else 0)
    return sum(dice) / count if count else empty


@exercise("13.3")
def _(answer):
    for lesions, false in CASES:
        yours = number(answer(list(lesions), false))
        if abs(yours - _lesionwise(lesions, false)) < 1e-6:
            continue
        start = f"For the lesions {lesions} and {false} false components"
        touched = [lesion for lesion in lesions if lesion[1]]
        mistakes = {
            "the small lesions are counted; only those of more than 50 voxels are.": _lesionwise(lesions, false, 0),
            "a lesion of 50 voxels is counted; it needs more.": _lesionwise(lesions, false, 49),
            "false components cost nothing; each adds a 0 to the mean.": _lesionwise(lesions, false, 50, False),
            "missed lesions are left out; each adds a 0 to the mean.": _lesionwise(touched, false),
            "there is nothing to count, and nothing was done wrong; which score is that?": 0.0,
        }
        for mistake, result in mistakes.items():
            if abs(yours - result) < 1e-6:
                raise Wrong(f"{start} {mistake}")
        raise Wrong(f"{start} the mean is another.")
    return "A missed lesion and a false component cost the same, however large they are."
