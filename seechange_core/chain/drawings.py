"""How each product is drawn at full size: one function for each, of a section as it was made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from sqlalchemy import select

from seechange_core.chain import load
from seechange_core.chain.section import Section
from seechange_core.chain.section_curves import section_curves
from seechange_core.chain.sheets import arcsec_steps, sexagesimal
from seechange_core.chain.steps_change import cutouts, detections, difference, stamps
from seechange_core.chain.steps_image import catalog_stars, read_raw
from seechange_core.flags import names
from seechange_core.frames import Detections, Flags, Sources, Stamps
from seechange_core.products.measurement import Measurement
from seechange_core.products.object import Object
from seechange_core.qa import figures
from seechange_core.qa.contact_sheet import COLUMNS, ROWS, Card, draw_cards
from seechange_core.qa.large import label, nothing, picture_of, side_by_side
from seechange_core.qa.preview import FLAG_COLORS, Marks, preview
from seechange_core.qa.strips import curve_panels, one_of
from seechange_core.stages.photometry import PhotometryParams
from seechange_core.stages.vet import BadReason
from seechange_core.storage.engine import open_session

Rgb = tuple[int, int, int]
#: Circles: of stars and other sources, of what became brighter and what became fainter.
STAR, OTHER, BRIGHTER, FAINTER = (0, 158, 115), (240, 228, 66), (0, 158, 115), (240, 228, 66)
#: Circles are so wide as the source, and at least so many pixels.
_WIDTHS, _LEAST_PIX = 1.5, 4.0
#: Longest sides of pictures of one, and of several panels; detections and curves that are shown.
_ONE, _BESIDE, _FOUR, _LABELLED, _CURVES = 2048, 1400, 1100, 25, 20
_FLAG_NAMES = ("saturated or bled", "cosmic ray or streak", "unusable")


@dataclass(frozen=True, eq=False)
class Drawing:
    """A picture without its head.

    Attributes
    ----------
    picture
        RGB.
    legend
        Colours by what they stand for.
    words
        Figures to add to those of the product.
    """

    picture: Image.Image
    legend: Mapping[str, str | Rgb] = field(default_factory=dict)
    words: Sequence[str] = ()


def _flag_legend(flags: Flags | None) -> dict[str, str | Rgb]:
    """Name the colours of the flags that there are."""
    if flags is None:
        return {}
    there = int(np.bitwise_or.reduce(flags, axis=None))
    return {
        name: rgb for name, (bits, rgb) in zip(_FLAG_NAMES, FLAG_COLORS, strict=True) if there & int(bits)
    }


def _circles(sources: Sources) -> list[Marks]:
    """Circle stars in one colour and other sources in another, as wide as they are."""
    radius = np.maximum(_LEAST_PIX, _WIDTHS * np.nan_to_num(sources.fwhm_pix))
    kinds = ((sources.is_star, STAR), (~sources.is_star, OTHER))
    return [Marks(sources.x[of], sources.y[of], radius[of], color) for of, color in kinds]


def _exposure(section: Section) -> Drawing:
    return Drawing(preview(read_raw(section).data, max_side_pix=_ONE))


def _image(section: Section, max_side_pix: int = _ONE) -> Drawing:
    frame = load.image(section)
    circles = _circles(load.sources(section)) if "source_list" in section.versions else []
    legend: dict[str, str | Rgb] = {"star": STAR, "other source": OTHER} if circles else {}
    picture = preview(frame.data, frame.flags, circles, max_side_pix=max_side_pix)
    return Drawing(picture, legend | _flag_legend(frame.flags))


def _source_list(section: Section) -> Drawing:
    image = _image(section, _BESIDE)
    psf = picture_of(figures.psf_variation(load.psf(section), load.image(section).shape))
    return Drawing(side_by_side([image.picture, psf]), image.legend)


def _world_coordinates(section: Section) -> Drawing:
    figure = figures.wcs_residuals(load.sources(section), load.wcs(section), catalog_stars(section))
    return Drawing(picture_of(figure, 170))


def _zero_point(section: Section) -> Drawing:
    color = section.params(PhotometryParams, "photometry").reference_color
    stars, solution = catalog_stars(section), load.zero_point(section)
    figure = figures.zero_point_scatter(load.sources(section), load.wcs(section), stars, solution, color)
    return Drawing(picture_of(figure, 170))


def _subtraction(section: Section) -> Drawing:
    new, sub = load.image(section), difference(section)
    height, width = new.shape
    side = min(_FOUR, round(2 * _FOUR / 4 * max(1.0, height / width)))
    flags = sub.image.flags
    panels = {
        "new": preview(new.data, new.flags, max_side_pix=side),
        "reference": preview(sub.reference, sub.reference_flags, max_side_pix=side),
        "difference": preview(sub.image.data, flags, max_side_pix=side, signed=True),
        "score": preview(sub.score, flags, max_side_pix=side, signed=True),
    }
    histogram = picture_of(figures.score_histogram(sub.score, flags), 100)
    picture = side_by_side([*panels.values(), histogram], [*panels, "score, all pixels"])
    return Drawing(picture, _flag_legend(new.flags | flags))


def _detections(section: Section) -> Drawing:
    sub, found = difference(section), detections(section)
    brighter = found.score > 0
    radius = max(8.0, 2.5 * sub.psf.fwhm_pix)
    kinds = ((brighter, BRIGHTER), (~brighter, FAINTER))
    circles = [Marks(found.x[of], found.y[of], radius, color) for of, color in kinds]
    picture = preview(sub.image.data, sub.image.flags, circles, max_side_pix=_ONE, signed=True)
    best = _best(found, _LABELLED)
    words = [f"{score:+.1f}" for score in found.score[best].tolist()]
    scale = picture.width / sub.image.shape[1]
    label(picture, scale, found.x[best], found.y[best], words, radius * scale + 3)
    legend: dict[str, str | Rgb] = {"brighter": BRIGHTER, "fainter": FAINTER}
    return Drawing(picture, legend | _flag_legend(sub.image.flags))


def _best(found: Detections, n_best: int) -> np.ndarray:
    return np.argsort(-np.abs(found.score), kind="stable")[:n_best]


def _cutouts(section: Section) -> Drawing:
    found = detections(section)
    if not len(found):
        return Drawing(nothing("nothing was detected"))
    best, every = _best(found, COLUMNS * ROWS), stamps(section, cutouts(section))
    cards = [_card(section, found, k, one_of(every, k)) for k in best.tolist()]
    return Drawing(draw_cards(cards), words=_of(best, found))


def _of(best: np.ndarray, found: Detections) -> list[str]:
    return [f"the best {len(best)} of {len(found)}"] if len(best) < len(found) else []


def _card(
    section: Section,
    found: Detections,
    k: int,
    own: Stamps,
    of: Measurement | None = None,
    name: str = "",
) -> Card:
    wcs = load.wcs(section)
    x, y = float(found.x[k]), float(found.y[k])
    ra, dec = (float(value) for value in wcs.to_sky(x, y))
    north, east = arcsec_steps(wcs, ra, dec)
    bad = of is not None and of.is_bad
    mag = "" if of is None or of.mag is None else f"{section.band} {of.mag:.2f} ± {of.mag_err or 0:.2f}"
    return Card(
        name=name or f"detection {k}",
        kind="" if of is None else "bad" if bad else "good",
        facts=f"score {found.score[k]:+.1f}",
        brightness=mag,
        place=f"{sexagesimal(ra, dec)}   x {x:.1f}, y {y:.1f}",
        note=", ".join(names(of.bad_reasons, BadReason)).replace("_", " ") if of is not None and bad else "",
        stamps=own,
        north=north,
        east=east,
    )


def _measurement(section: Section) -> Drawing:
    found = detections(section)
    if not len(found):
        return Drawing(nothing("nothing was detected, so there is nothing to measure"))
    rows = cutouts(section)
    query = (
        select(Measurement, Object.name)
        .outerjoin(Object, Object.id == Measurement.object_id)
        .where(
            Measurement.cutouts_id.in_([row.id for row in rows]),
            Measurement.provenance_id == section.provenance_id("measurement"),
        )
    )
    with open_session(section.settings, read_only=True) as session:
        known = {row.cutouts_id: (row, name or "") for row, name in session.execute(query)}
    made = {row.number: known[row.id] for row in rows if row.id in known}
    order = sorted(made, key=lambda k: (made[k][0].is_bad, -abs(found.score[k])))
    best = np.array(order[: COLUMNS * ROWS], int)
    every = stamps(section, rows)
    cards = [_card(section, found, k, one_of(every, k), *made[k]) for k in best.tolist()]
    return Drawing(draw_cards(cards), words=_of(best, found))


def _forced_photometry(section: Section) -> Drawing:
    curves = section_curves(section, _CURVES)
    if not curves:
        return Drawing(nothing("no object is in this section"))
    words = [f"the {len(curves)} objects that stand out most here"]
    return Drawing(curve_panels(curves, section.exposure.mjd_mid, panel=(330, 210)), words=words)


DRAWINGS: Mapping[str, Callable[[Section], Drawing]] = {
    "exposure": _exposure,
    "image": _image,
    "source_list": _source_list,
    "world_coordinates": _world_coordinates,
    "zero_point": _zero_point,
    "subtraction": _subtraction,
    "detections": _detections,
    "cutouts": _cutouts,
    "measurement": _measurement,
    "forced_photometry": _forced_photometry,
}
