"""Which candidate to look at first."""

import numpy as np
import numpy.typing as npt

from seechange_core.frames import Float, Int


def interest(
    score: Float, n_epochs: Int, is_known: npt.NDArray[np.bool_], moves: npt.NDArray[np.bool_]
) -> Float:
    """Return a number for each candidate, the highest to be looked at first.

    What nobody knows and what does not move comes first, then what moves, then what catalogs know. Among
    equals the typical score decides, and each further epoch in which it was seen counts as much as it would
    in a stack of the images: `|score| sqrt(n)`.
    """
    evidence = np.abs(score) * np.sqrt(np.maximum(n_epochs, 1))
    group = np.where(is_known, 0.0, np.where(moves, 1.0, 2.0))
    return np.asarray(group * 1e9 + evidence)
