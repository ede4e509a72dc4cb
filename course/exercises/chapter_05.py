"""Checks for chapter 05: gains paired by patient, and the sign-flip test."""

import numpy as np

from course.exercises import Wrong, array, exercise, number

RANDOM = {"Ada": [0.70], "Ben": [0.60, 0.70], "Cleo": [0.80], "Dan": [0.50, 0.58]}
PRETRAINED = {"Dan": [0.60, 0.54, 0.66], "Cleo": [0.82], "Eve": [0.90], "Ben": [0.64, 0.74]}
GAINS = np.array([0.04, 0.02, 0.06])  # of Ben, Cleo and Dan


@exercise("05.1")
def _(answer):
    copies = ({name: list(dice) for name, dice in part.items()} for part in (RANDOM, PRETRAINED))
    yours = array(answer(*copies)).ravel()
    if yours.size == 1:
        raise Wrong("One number per patient is wanted; a difference of two means forgets which cases were the same.")
    if yours.size > 3:
        raise Wrong(
            f"{yours.size} gains; some patients were segmented by one network only, others have several volumes."
        )
    array(yours, (3,))
    if np.allclose(yours, -GAINS):
        raise Wrong("All signs are reversed: a gain is positive where pretraining is better.")
    if np.allclose(np.sort(yours), np.sort(GAINS)) and not np.allclose(yours, GAINS):
        raise Wrong("The gains are right, their order is not; a dictionary keeps the order in which it was filled.")
    if np.allclose(yours[1], GAINS[1]) and not np.allclose(yours, GAINS):
        raise Wrong("Patients with one volume are right, those with several are not; each patient counts once.")
    if not np.allclose(yours, GAINS):
        raise Wrong("At least one gain is the difference of two different patients; the two orders are not alike.")
    return "The unit of the comparison is the patient: paired, and counted once whatever the number of volumes."


@exercise("05.2")
def _(answer):
    signs = np.array(np.meshgrid(*[[1, -1]] * 4)).reshape(4, -1).T  # every pattern of four patients
    for gain in ([2.0, 3.0, 1.0, 2.0], [-2.0, -3.0, -1.0, -2.0], [4.0, -1.0, 2.0, 1.0], [1.0, -1.0, 3.0, -3.0]):
        gain = np.array(gain)
        means, observed = (signs * gain).mean(axis=1), gain.mean()
        yours, true = number(answer(gain.copy(), signs.copy())), (1 + (abs(means) >= abs(observed)).sum()) / 17
        case = f"Gains {gain.tolist()}, all 16 sign patterns: "
        if abs(yours - true) < 1e-9:
            continue
        if abs(yours - (abs(means) >= abs(observed)).mean()) < 1e-9:
            raise Wrong(case + "the observed pattern is to count as one pattern more, above and below the line.")
        if np.isclose(yours, [(1 + (means >= observed).sum()) / 17, (means >= observed).mean()]).any():
            raise Wrong(case + "this is one-sided; a loss of the same size is as surprising as a gain.")
        if np.isclose(yours, (1 + (abs(means) > abs(observed)).sum()) / 17):
            raise Wrong(case + "patterns that are exactly as far from 0 as the observed one are left out.")
        if not 0 <= yours <= 1:
            raise Wrong(case + "a probability is between 0 and 1.")
        raise Wrong(case + "the share is another; every row of signs is one pattern, with one sign per patient.")
    return "The test needs no assumption on the distribution of the gains, and knows nothing of other runs."
