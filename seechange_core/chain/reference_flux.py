"""What a light curve's reference held: all light at the place, and what of it was the object's own.

A difference is counted from its reference. If that was made of exposures that show the object, every flux
is too low by what it had there, and with references that each leave another exposure out (by n / (n - 1) of
its change, for n equal exposures) the zero of the scale is another one at each epoch. The total flux, the
difference plus the flux in the very reference it is from, has neither fault, whatever the weights of the
coadd were; and its level before the object rose tells what of the reference is the object's.

All that holds for the ratio of the fluxes with which the reference was subtracted. So the zero points here
are not those that the catalog gave the new images, but those of the references, brought over by that ratio
(`Image.zero_point`): a star of constant light then has one magnitude, though every catalog zero point be off.
"""

import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from seechange_core.chain.light_curve_table import MICROJANSKY_ZP, LightCurveTable
from seechange_core.chain.load import CalibratedRows, rows_of_reference
from seechange_core.constants import MAG_PER_RELATIVE
from seechange_core.flags import UNUSABLE
from seechange_core.frames import Float
from seechange_core.numerics.quiet_level import quiet_at_first, quiet_level
from seechange_core.products.forced_flux import ForcedFlux
from seechange_core.products.image import Image, image_parents
from seechange_core.products.object import Object
from seechange_core.products.reference import Reference, image_references
from seechange_core.products.sighting import Sighting
from seechange_core.products.source_list import SourceList
from seechange_core.storage.archive import Archive


@dataclass(frozen=True)
class InReference:
    """The flux of a place in one reference.

    Attributes
    ----------
    coadd
        Which it is: the id of its image.
    flux, flux_err
        Electrons of the coadd; NaN where it has none.
    zp
        Of the coadd, there.
    mjd
        (n,) middles of the exposures it was made of, MJD (UTC).
    """

    coadd: uuid.UUID
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


def subtracted_at(parts: Sequence[CalibratedRows], archive: Archive, ra: float, dec: float) -> CalibratedRows:
    """Return which of several references was subtracted at a place.

    At each pixel it is the one with the highest weight on the new image's flux scale (`alignment.stitch`).
    Where two are alike they are made of the same exposures, and it makes no difference.
    """
    if len(parts) == 1:
        return parts[0]
    return max(parts, key=lambda part: _weight_at(part, archive, ra, dec))


def _weight_at(part: CalibratedRows, archive: Archive, ra: float, dec: float) -> float:
    """Return the mean weight around a place, for fluxes in units of a magnitude 0; -1 off the image."""
    x, y = (float(a) for a in part.wcs.solution().to_pixels(ra, dec))
    image = part.image.open(archive)
    if not (-0.5 <= x < image.shape[1] - 0.5 and -0.5 <= y < image.shape[0] - 0.5):
        return -1.0
    row, column = round(y), round(x)
    rows, columns = slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2)
    usable = image.flags[rows, :][:, columns] & np.uint16(UNUSABLE) == 0
    weight = np.where(usable, image.weight[rows, :][:, columns], 0.0)
    return float(weight.mean() * 10 ** (0.8 * part.zero_point.solution().zp_at(x, y)))


def forced_in_references(
    session: Session, archive: Archive, found: Object, differences: Sequence[uuid.UUID], present: set[str]
) -> dict[uuid.UUID, InReference]:
    """Return the flux of an object in the reference of each difference, as it was measured once for all.

    Parameters
    ----------
    session, archive
        An open session, and where the coadds are: they are looked into where several overlap.
    found
        Whose.
    differences
        Their ids.
    present
        Provenances of forced photometry that count more than others.
    """
    coadds = coadds_of(session, differences)
    kinds = {r.image_id: r for of in coadds.values() for r in of}
    query = select(ForcedFlux).where(ForcedFlux.object_id == found.id, ForcedFlux.image_id.in_(list(kinds)))
    fluxes: dict[uuid.UUID, ForcedFlux] = {}
    for row in sorted(session.scalars(query), key=lambda f: f.provenance_id in present):
        fluxes[row.image_id] = row
    times = times_of(session, list(kinds))
    chosen: dict[tuple[uuid.UUID, ...], uuid.UUID] = {}
    at_place = {}
    for difference_id, references in coadds.items():
        known = tuple(r.image_id for r in references if r.image_id in fluxes)
        if known and known not in chosen:
            parts = [rows_of_reference(session, kinds[key]) for key in known] if len(known) > 1 else []
            chosen[known] = subtracted_at(parts, archive, found.ra, found.dec).image.id if parts else known[0]
        if known:
            at_place[difference_id] = fluxes[chosen[known]]
    nan = np.nan
    return {
        key: InReference(
            f.image_id, nan if f.flux is None else f.flux, nan if f.flux_err is None else f.flux_err, f.zp,
            times.get(f.image_id, np.empty(0)),
        )
        for key, f in at_place.items()
    }  # fmt: skip


def rise_of(
    session: Session,
    found: Object,
    curve: LightCurveTable,
    differences: Sequence[uuid.UUID],
    references: Mapping[uuid.UUID, InReference],
) -> float | None:
    """Return when an object was first seen to shine, MJD: until then it is taken to have been quiet.

    That is its first sighting; but where it was seen to be fainter than a reference at first, brighter later,
    and that reference holds exposures from as late, then what was missing before may be its own light in
    there, and the first sighting that was brighter is meant. A variable looks alike in a reference of the
    same season. So that is believed of a filter only if it was never fainter again after the rise, and if all
    light at the place was constant before but for a rise; and the earliest of the filters counts.

    Parameters
    ----------
    session
        An open session.
    found
        The object.
    curve
        Of its differences, with what the references held (`with_references`).
    differences
        (n,) their ids.
    references
        By these ids.
    """
    query = (
        select(Image.filter, Sighting.mjd_mid, Sighting.score)
        .join(SourceList, SourceList.id == Sighting.source_list_id)
        .join(Image, Image.id == SourceList.image_id)
        .where(Sighting.object_id == found.id)
    )
    seen: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for band, mjd, score in session.execute(query):
        seen[band].append((mjd, score))
    if found.first_mjd is None or not seen:
        return found.first_mjd
    rises = []
    for band, sightings in seen.items():
        first = min(mjd for mjd, _ in sightings)
        brighter = min((mjd for mjd, score in sightings if score > 0), default=first)
        here = np.flatnonzero(curve.filter == band)
        ids = [differences[k] for k in here.tolist()]
        held = any((references[key].mjd >= brighter).any() for key in ids if key in references)
        again = any(score < 0 and mjd > brighter for mjd, score in sightings)
        before = curve.select(here[curve.mjd_mid[here] < brighter])
        rises.append(brighter if held and not again and _was_quiet(before) else first)
    # Of sightings that are gone since, the object remembers the first.
    return min(rises) if min(rises) > found.first_mjd else found.first_mjd


def _was_quiet(curve: LightCurveTable) -> bool:
    """Tell whether all light at a place was constant within the errors, or rose in the end."""
    unit = 10 ** (0.4 * (curve.zp - MICROJANSKY_ZP))
    flux, error = curve.total_flux / unit, curve.flux_err / unit
    known = np.isfinite(flux) & (error > 0)
    return quiet_at_first(curve.mjd_mid[known], flux[known], error[known])


def with_references(
    curve: LightCurveTable,
    differences: Sequence[uuid.UUID],
    references: Mapping[uuid.UUID, InReference],
    rise_mjd: float | None,
) -> LightCurveTable:
    """Add to a light curve what the references held, so that all its epochs are counted from one level.

    Where a reference holds exposures from after the object's rise, that level is the one before it rose (see
    `quiet_level`). Where nothing tells that, it is the flux in the reference that most epochs of the filter
    were subtracted from: those with another one, such as one that leaves their own exposure out, are brought
    to it.

    Parameters
    ----------
    curve
        Of differences; its zero points are those of the references, as they were subtracted.
    differences
        (n,) their ids.
    references
        By these ids.
    rise_mjd
        Before that the object did not shine, MJD; None if that is not known: then nothing of the reference
        is taken to be its own.
    """
    nothing = InReference(uuid.UUID(int=0), np.nan, np.nan, np.nan, np.empty(0))
    rows = [references.get(i, nothing) for i in differences]
    scale = 10 ** (0.4 * (curve.zp - np.array([r.zp for r in rows], float)))
    later = np.array([0 if rise_mjd is None else int(np.sum(r.mjd >= rise_mjd)) for r in rows], np.int64)
    found = replace(
        curve,
        reference_flux=np.array([r.flux for r in rows], float) * scale,
        reference_flux_err=np.array([r.flux_err for r in rows], float) * scale,
        n_reference=np.array([len(r.mjd) for r in rows], np.int64),
        n_reference_later=later,
        quiet_before_mjd=np.full(len(curve), np.nan if rise_mjd is None else rise_mjd),
    )
    share, error = np.zeros(len(curve)), np.zeros(len(curve))
    for band in np.unique(curve.filter).tolist():
        here = np.flatnonzero(curve.filter == band)
        share[here], error[here] = _own_share(found.select(here), [rows[k] for k in here], rise_mjd)
    return replace(found, in_reference_flux=share, in_reference_flux_err=error)


def _own_share(
    curve: LightCurveTable, rows: Sequence[InReference], rise_mjd: float | None
) -> tuple[Float, Float]:
    """Tell what to add to the fluxes of one filter, and its error: all above the level before the rise."""
    unit = 10 ** (0.4 * (curve.zp - MICROJANSKY_ZP))
    held, total = curve.n_reference_later > 0, curve.total_flux / unit
    quiet = np.isfinite(total) & (curve.flux_err > 0)
    quiet &= curve.mjd_mid < (-np.inf if rise_mjd is None else rise_mjd)
    if quiet.any():
        error = curve.flux_err / unit
        level, level_err = quiet_level(curve.mjd_mid[quiet], total[quiet], error[quiet])
        # Between references of exposures that are all others, the errors of both zero points count.
        same = {t for k in np.flatnonzero(quiet).tolist() for t in rows[k].mjd.tolist()}
        apart = np.array([same.isdisjoint(r.mjd.tolist()) for r in rows])
        of_zero_point = np.where(apart, curve.zp_err / MAG_PER_RELATIVE * curve.reference_flux, 0.0)
        share_err = np.hypot(level_err * unit, of_zero_point)
        return np.where(held, curve.reference_flux - level * unit, 0.0), np.where(held, share_err, 0.0)
    nothing = np.zeros(len(curve))
    if rise_mjd is not None and not held.any():
        return nothing, nothing
    times = Counter(r.coadd for r in rows if len(r.mjd))
    if not times:
        return nothing, nothing
    most = max(rows, key=lambda r: (times[r.coadd], len(r.mjd), r.coadd.int))
    level = most.flux * 10 ** (0.4 * (MICROJANSKY_ZP - most.zp))
    other = np.array([r.coadd != most.coadd for r in rows])
    return np.where(other, curve.reference_flux - level * unit, 0.0), nothing


def notes_on_references(curve: LightCurveTable) -> list[str]:
    """Say in a line for each filter what the references held of the object itself, if they held anything."""
    lines = []
    for band in np.unique(curve.filter).tolist():
        held = (curve.filter == band) & (curve.n_reference_later > 0)
        if not held.any():
            continue
        quiet = np.unique(curve.quiet_before_mjd[held])[0]
        later, of = int(curve.n_reference_later[held].max()), int(curve.n_reference[held].max())
        told = curve.in_reference_flux_err[held] > 0
        what = f"in {band}, {later} of the reference's {of} exposures show the object: "
        before = f"before MJD {quiet:.2f} (--quiet-before MJD if it did not shine until another time)"
        if told.any():
            lines.append(
                f"{what}{_amount(curve.select(np.flatnonzero(held)[told]))} it had there are added, "
                f"counted from the level {before}"
            )
        else:
            lines.append(
                f"{what}no epoch tells the flux it had there, and all fluxes are counted from it: none is "
                f"{before}"
            )
    return lines


def _amount(curve: LightCurveTable) -> str:
    """Say how much the references held: in microjansky, or where these mean nothing in electrons."""
    held, unit = curve.microjansky(curve.in_reference_flux), "uJy"
    if not np.isfinite(held).all():
        held, unit = curve.in_reference_flux, "electrons"
    least, most = f"{np.min(held):.3g}", f"{np.max(held):.3g}"
    return f"the {least} {unit}" if least == most else f"the {least} to {most} {unit} (by epoch)"
