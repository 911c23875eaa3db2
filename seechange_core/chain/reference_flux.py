"""What a light curve's reference held: all light at the place, and what of it was the object's own.

A difference is counted from its reference. If that was made of exposures that show the object, every flux
is too low by what it had there, and with references that each leave another exposure out (by n / (n - 1) of
its change, for n equal exposures) the zero of the scale is another one at each epoch. The total flux, the
difference plus the flux in the very reference it is from, has neither fault, whatever the weights of the
coadd were; and its level before the object rose tells what of the reference is the object's.
"""

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from seechange_core.chain.light_curve_table import MICROJANSKY_ZP, LightCurveTable
from seechange_core.frames import Float
from seechange_core.products.forced_flux import ForcedFlux
from seechange_core.products.image import Image, image_parents
from seechange_core.products.reference import Reference, image_references


@dataclass(frozen=True)
class InReference:
    """The flux of a place in one reference.

    Attributes
    ----------
    flux, flux_err
        Electrons of the coadd; NaN where it has none.
    zp
        Of the coadd, there.
    mjd
        (n,) middles of the exposures it was made of, MJD (UTC).
    """

    flux: float
    flux_err: float
    zp: float
    mjd: Float


def coadds_of(session: Session, differences: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[Reference]]:
    """Return the references that differences were made with, by the differences' ids."""
    query = (
        select(image_references.c.difference_id, Reference)
        .join(Reference, Reference.id == image_references.c.reference_id)
        .where(image_references.c.difference_id.in_(list(differences)))
        .order_by(Reference.id)
    )
    found: dict[uuid.UUID, list[Reference]] = defaultdict(list)
    for difference_id, reference in session.execute(query):
        found[difference_id].append(reference)
    return found


def times_of(session: Session, coadds: Sequence[uuid.UUID]) -> dict[uuid.UUID, Float]:
    """Return when the exposures that coadds were made of were taken: middles, MJD (UTC)."""
    query = (
        select(image_parents.c.coadd_id, Image.mjd_mid)
        .join(Image, Image.id == image_parents.c.parent_id)
        .where(image_parents.c.coadd_id.in_(list(coadds)))
        .order_by(Image.mjd_mid)
    )
    found: dict[uuid.UUID, list[float]] = defaultdict(list)
    for coadd_id, mjd in session.execute(query):
        found[coadd_id].append(mjd)
    # Several sections of one exposure may be in it.
    return {key: np.unique(times) for key, times in found.items()}


def forced_in_references(
    session: Session, object_id: uuid.UUID, differences: Sequence[uuid.UUID], present: set[str]
) -> dict[uuid.UUID, InReference]:
    """Return the flux of an object in the reference of each difference, as it was measured once for all.

    Parameters
    ----------
    session
        An open session.
    object_id, differences
        Whose, and the ids of the differences.
    present
        Provenances of forced photometry that count more than others.
    """
    coadds = coadds_of(session, differences)
    ids = {r.image_id for of in coadds.values() for r in of}
    query = select(ForcedFlux).where(ForcedFlux.object_id == object_id, ForcedFlux.image_id.in_(ids))
    fluxes: dict[uuid.UUID, ForcedFlux] = {}
    for row in sorted(session.scalars(query), key=lambda f: f.provenance_id in present):
        fluxes[row.image_id] = row
    times = times_of(session, list(ids))
    found = {}
    for difference_id, references in coadds.items():
        known = [fluxes[r.image_id] for r in references if r.image_id in fluxes]
        best = max((f for f in known if f.flux is not None), key=lambda f: f.usable_fraction, default=None)
        if best is not None and best.flux is not None and best.flux_err is not None:
            mjd = times.get(best.image_id, np.empty(0))
            found[difference_id] = InReference(best.flux, best.flux_err, best.zp, mjd)
    return found


def with_references(
    curve: LightCurveTable,
    differences: Sequence[uuid.UUID],
    references: Mapping[uuid.UUID, InReference],
    rise_mjd: float | None,
) -> LightCurveTable:
    """Add to a light curve what the references held.

    Parameters
    ----------
    curve
        Of differences.
    differences
        (n,) their ids.
    references
        By these ids.
    rise_mjd
        Before that the object did not shine, MJD; None if that is not known: then nothing of the reference
        is taken to be its own.
    """
    nothing = InReference(np.nan, np.nan, np.nan, np.empty(0))
    rows = [references.get(i, nothing) for i in differences]
    scale = 10 ** (0.4 * (curve.zp - np.array([r.zp for r in rows], float)))
    later = np.array([0 if rise_mjd is None else int(np.sum(r.mjd >= rise_mjd)) for r in rows], np.int64)
    found = replace(
        curve,
        reference_flux=np.array([r.flux for r in rows], float) * scale,
        reference_flux_err=np.array([r.flux_err for r in rows], float) * scale,
        n_reference=np.array([len(r.mjd) for r in rows], np.int64),
        n_reference_later=later,
    )
    return found if rise_mjd is None else _with_own_share(found, rise_mjd)


def _with_own_share(curve: LightCurveTable, rise_mjd: float) -> LightCurveTable:
    """Tell what of references with later exposures is the object's: all above the level before it rose."""
    share, error = np.zeros(len(curve)), np.zeros(len(curve))
    to_ujy = 10 ** (0.4 * (MICROJANSKY_ZP - curve.zp))
    total, total_err = curve.total_flux * to_ujy, curve.flux_err * to_ujy
    for band in np.unique(curve.filter).tolist():
        held = (curve.filter == band) & (curve.n_reference_later > 0)
        before = (curve.filter == band) & (curve.mjd_mid < rise_mjd) & np.isfinite(total) & (total_err > 0)
        weight = total_err[before] ** -2.0
        level = np.sum(weight * total[before]) / np.sum(weight) if before.any() else np.nan
        share[held] = (curve.reference_flux - level / to_ujy)[held]
        error[held] = (np.sum(weight) ** -0.5 if before.any() else np.nan) / to_ujy[held]
    return replace(curve, in_reference_flux=share, in_reference_flux_err=error)


def notes_on_references(curve: LightCurveTable) -> list[str]:
    """Say in a line for each filter what the references held of the object itself, if they held anything."""
    lines = []
    for band in np.unique(curve.filter).tolist():
        held = (curve.filter == band) & (curve.n_reference_later > 0)
        if not held.any():
            continue
        later, of = int(curve.n_reference_later[held].max()), int(curve.n_reference[held].max())
        share = curve.microjansky(curve.in_reference_flux)[held]
        told = np.isfinite(share)
        what = f"in {band}, {later} of the reference's {of} exposures are from after the first sighting: "
        if told.any():
            lines.append(f"{what}the {np.median(share[told]):.3g} uJy the object had there are added")
        else:
            lines.append(f"{what}no epoch before tells the flux it had there, and fluxes are counted from it")
    return lines
