"""What a candidate is, in an astronomer's words: from its sign, its place, and what was there before."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from seechange_core.stages.associate import AssociateParams, allowed_arcsec

Kind = Literal["new", "brightened", "mover", "faded", "variable"]
#: In the order in which they are looked at; see `CandidateRow.kind`.
KINDS: tuple[Kind, ...] = ("new", "brightened", "mover", "faded", "variable")


class Neighbour(NamedTuple):
    """A source of the reference near a candidate: how far, what it looks like, and its magnitude."""

    apart_arcsec: float
    looks: str
    mag: float | None


@dataclass(frozen=True)
class Surrounding:
    """What the reference shows around a candidate.

    Attributes
    ----------
    at_place
        The source that changed: so near that the association would take both for one object; None if
        nothing is.
    galaxy
        The nearest source that looks like a galaxy; None if there is none.
    change_mag
        By how much the light there became fainter (negative: brighter); None where there was none, or as
        much as was there is missing.
    """

    at_place: Neighbour | None
    galaxy: Neighbour | None
    change_mag: float | None

    def words(self) -> str:
        """Say in a few words what is there."""
        if self.at_place is not None:
            there = _named(self.at_place)
            return there if self.change_mag is None else f"by {abs(self.change_mag):.2f} mag, {there}"
        return f"{_named(self.galaxy)} at {self.galaxy.apart_arcsec:.1f}″" if self.galaxy is not None else ""


def _named(neighbour: Neighbour) -> str:
    return neighbour.looks if neighbour.mag is None else f"{neighbour.looks} {neighbour.mag:.1f}"


def surrounding(
    star: Neighbour | None,
    galaxy: Neighbour | None,
    change_fraction: float | None,
    position_err_arcsec: float | None,
    params: AssociateParams,
) -> Surrounding:
    """Tell what of the reference's sources around a detection is what changed.

    Parameters
    ----------
    star, galaxy
        The nearest of either; stars and galaxies of few pixels look alike, so either may be the one.
    change_fraction
        Flux of the difference over the light that was there.
    position_err_arcsec
        Of the detection, per axis; None takes the widest radius.
    params
        Of the association: what it takes for one place is one place here.
    """
    err = np.inf if position_err_arcsec is None else position_err_arcsec
    reach = float(allowed_arcsec(err, params))
    near = min((n for n in (star, galaxy) if n is not None), default=None)
    there = near if near is not None and near.apart_arcsec <= reach else None
    known = change_fraction is not None and change_fraction > -1
    return Surrounding(there, galaxy, float(-2.5 * np.log10(1 + (change_fraction or 0.0))) if known else None)


def kind_of(scores: Iterable[float], there: Surrounding, *, moves: bool, in_table: bool) -> Kind:
    """Name what a candidate is.

    Parameters
    ----------
    scores
        Of all its good detections, signed.
    there
        What the reference shows at its place.
    moves, in_table
        It moved, or a table of variables knows it.
    """
    if moves:
        return "mover"
    signs = {score > 0 for score in scores}
    if in_table or len(signs) > 1:
        return "variable"
    if signs == {False}:
        return "faded"
    return "new" if there.at_place is None else "brightened"
