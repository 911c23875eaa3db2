"""Contact sheets of candidates: the words and stamps of each."""

import uuid
from collections.abc import Sequence
from pathlib import Path

from astropy.coordinates import Angle
from sqlalchemy import select

from seechange_core.chain.candidate_rows import CandidateRow
from seechange_core.errors import FileDamagedError, UserError
from seechange_core.frames import Stamps, WcsSolution
from seechange_core.numerics.sky import offset
from seechange_core.products.cutouts import Cutouts
from seechange_core.products.measurement import Measurement
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.products.zero_point import ZeroPoint
from seechange_core.qa.contact_sheet import Card, draw_sheet, save_sheet
from seechange_core.settings import Settings, use_settings
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session

#: What a sheet can be written as.
SUFFIXES = (".png", ".pdf")


def write_sheet(settings: Settings, rows: Sequence[CandidateRow], path: Path, title: str) -> list[Path]:
    """Draw the triplets of candidates, 18 a page, into a PDF or into a PNG for each page.

    Returns
    -------
    list of Path
        The files; the second page of ``sheet.png`` is ``sheet_2.png``.

    Raises
    ------
    UserError
        If there is nothing to draw, or the file is named neither.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"cannot draw into {path.name}", cure=f"name it *{' or *'.join(SUFFIXES)}")
    if not rows:
        raise UserError("there are no candidates to draw", cure="ask for another night, or for fewer epochs")
    cards = contact_cards(settings, rows)
    subtitle = f"{len(rows)} candidates, best first"
    return save_sheet(draw_sheet(cards, title, subtitle), path)


def contact_cards(settings: Settings, rows: Sequence[CandidateRow]) -> list[Card]:
    """Make a card of each candidate; one whose stamps cannot be read has none."""
    with use_settings(settings), open_session(settings, read_only=True) as session:
        cutouts = {}
        solutions: dict[uuid.UUID, WorldCoordinates] = {}
        for row in rows:
            cutouts[row.cutouts_id] = session.get(Cutouts, row.cutouts_id)
            query = (
                select(WorldCoordinates)
                .join(ZeroPoint, ZeroPoint.world_coordinates_id == WorldCoordinates.id)
                .join(Measurement, Measurement.zero_point_id == ZeroPoint.id)
                .where(Measurement.id == row.measurement_id)
            )
            solutions[row.measurement_id] = session.execute(query).scalar_one()
    archive = Archive(settings)
    known: dict[uuid.UUID, WcsSolution] = {}
    cards = []
    for row in rows:
        found = solutions[row.measurement_id]
        wcs = known.setdefault(found.id, found.solution())
        cards.append(_card(row, _stamps(archive, cutouts[row.cutouts_id]), wcs))
    return cards


def _stamps(archive: Archive, row: Cutouts | None) -> Stamps | None:
    try:
        return row.read(archive) if row is not None else None
    except (FileNotFoundError, FileDamagedError):
        return None


def _card(row: CandidateRow, stamps: Stamps | None, wcs: WcsSolution) -> Card:
    north, east = arcsec_steps(wcs, row.ra, row.dec)
    epochs = f"{seen_in(row)} epoch{'' if row.n_possible == 1 else 's'}"
    error = "" if row.mag_err is None else f" ± {row.mag_err:.2f}"
    return Card(
        name=row.object,
        kind=row.kind,
        facts=f"score {row.score:.1f}   {epochs}{f' in {_span(row.hours)}' if row.n_epochs > 1 else ''}",
        brightness=f"{brightness(row)}{error}",
        place=f"{sexagesimal(row.ra, row.dec)}   {row.exposure} {row.section}",
        note=note(row),
        stamps=stamps,
        north=north,
        east=east,
        verdict=row.verdict,
    )


def arcsec_steps(wcs: WcsSolution, ra: float, dec: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the steps in (x, y) pixels of one arcsec to the north, and of one to the east."""
    arcsec = 1 / 3600
    to_ra, to_dec = offset([ra] * 3, [dec] * 3, [0, 0, arcsec], [0, arcsec, 0])
    x, y = (places.tolist() for places in wcs.to_pixels(to_ra, to_dec))
    return (x[1] - x[0], y[1] - y[0]), (x[2] - x[0], y[2] - y[0])


def brightness(row: CandidateRow) -> str:
    """Write filter and magnitude of the light that came, or after a minus sign of what went."""
    return f"{row.filter} {'−' if row.score < 0 else ''}{'?' if row.mag is None else format(row.mag, '.2f')}"


def seen_in(row: CandidateRow) -> str:
    """Write in how many exposures it was seen and, if these were more, how many could have shown it."""
    return str(row.n_epochs) if row.n_possible == row.n_epochs else f"{row.n_epochs}/{row.n_possible}"


def _span(hours: float) -> str:
    if hours >= 36:
        return f"{hours / 24:.1f} d"
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"


def sexagesimal(ra: float, dec: float) -> str:
    """Write a position in hours and degrees, to a tenth of an arcsec."""
    hours = Angle(ra, "deg").to_string("hourangle", sep=":", precision=2, pad=True)
    degrees = Angle(dec, "deg").to_string("deg", sep=":", precision=1, pad=True, alwayssign=True)
    return f"{hours} {degrees}"


def note(row: CandidateRow) -> str:
    """Say in a line what else is known: identity or what is there, motion, a person's reason, bad images."""
    parts = [row.known or (row.around if row.kind != "mover" else "")]
    if row.rate_arcsec_h is not None and row.angle_deg is not None:
        parts.append(f"moves {row.rate_arcsec_h:.3g}″/h towards {row.angle_deg:.0f}°")
    if row.verdict:
        parts.append(f"{row.said_by}: {row.reason}")
    parts.append(row.quality.replace("_", " "))
    return "   ".join(part for part in parts if part)
