"""Which candidate to look at first."""

import numpy as np
import numpy.typing as npt

from seechange_core.frames import Float, Int


def interest(score: Float, n_epochs: Int, group: Int, is_known: npt.NDArray[np.bool_]) -> Float:
    """Return a number for each candidate, the highest to be looked at first.

    What catalogs know comes last, and otherwise what is in a lower group comes first. Among equals the
    typical score decides, and each further epoch in which it was seen counts as much as it would in a stack
    of the images: `|score| sqrt(n)`.
    """
    evidence = np.abs(score) * np.sqrt(np.maximum(n_epochs, 1))
    last = np.max(group, initial=0) + 1
    return np.asarray((last - np.where(is_known, last, group)) * 1e9 + evidence)
