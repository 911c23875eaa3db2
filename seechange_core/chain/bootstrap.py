"""A reference catalog for a field that has none: made of the field's own best image.

Its positions are where the telescope said it pointed, its magnitudes on an arbitrary zero point: they are
good relative to each other. Everything calibrated on it says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from seechange_core.catalogs.importer import ASSUMED, Columns, describe
from seechange_core.catalogs.provider import CatalogInfo
from seechange_core.catalogs.store import write_catalog
from seechange_core.chain.lineage import provenances
from seechange_core.chain.load import shape_of
from seechange_core.errors import NoCatalog, Stop, UserError
from seechange_core.flags import UNFIT, UNUSABLE, PixelFlag
from seechange_core.frames import CatalogStars, PointingHint, Sources
from seechange_core.instrument.pointing import offset_on_sky
from seechange_core.numerics import sky
from seechange_core.numerics.matching import match_sky
from seechange_core.numerics.timing import decimal_year
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import Image
from seechange_core.products.outcome import StepOutcome
from seechange_core.products.source_list import SourceList
from seechange_core.settings import Settings, use_settings
from seechange_core.stages.astrometry import AstrometryParams, query_radius_deg, solve
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session

Column = npt.NDArray[Any]

#: Magnitude of one electron per second.
ZERO_POINT = 25.0
_MIN_SNR = 10.0
_GOOD_SNR = 20.0
_CENTROID_FLOOR_PIX = 0.01
_MAG_ERR_OF_SNR = 2.5 / np.log(10.0)
_MATCH_PIX = 2.0
# Sections whose place relative to each other nobody knows better than this cannot share a catalog.
_LARGEST_TURN_DEG = 10.0


@dataclass(eq=False)
class _Candidate:
    """One section of one exposure. Its sources are read when they are wanted: a night's do not fit in memory.

    Attributes
    ----------
    shape
        (H, W) of its image.
    is_good
        Whether nothing speaks against the image, nor much against its sources.
    worth
        How many stars it has that are clean and well measured.
    read
        Reads its sources.
    """

    exposure: Exposure
    section: str
    band: str
    shape: tuple[int, int]
    is_good: bool
    hint: PointingHint
    worth: int
    read: Callable[[], Sources]

    @property
    def rank(self) -> tuple[bool, int, float, str, str]:
        """Sorts the best first, whatever order the database gives them in."""
        return not self.is_good, -self.worth, self.exposure.mjd, self.exposure.name, self.section

    @property
    def is_oriented(self) -> bool:
        """Tell whether it is known how the image lies on the sky."""
        turn, doubt = self.hint.rotation_deg, self.hint.rotation_tolerance_deg
        return turn is not None and doubt <= _LARGEST_TURN_DEG and self.hint.parity is not None

    @property
    def field_deg(self) -> float:
        """How near another image of the section is to show the same field.

        Half of its side; of images that nobody knows how to lay side by side, all that a search may see.
        """
        if self.is_oriented:
            return min(self.shape) / 2 * self.hint.pixel_scale_arcsec / 3600
        return 2 * query_radius_deg(self.hint, self.shape)


@dataclass(frozen=True)
class Bootstrapped:
    """A catalog made of images, and which.

    Attributes
    ----------
    info
        The catalog.
    images
        Exposure and section of each image it was made of, with the band and the number of stars.
    """

    info: CatalogInfo
    images: tuple[tuple[str, str, str, int], ...]


def bootstrap_catalog(
    settings: Settings,
    exposures: Sequence[Exposure],
    name: str,
    *,
    overwrite: bool = False,
    tell: Callable[[int, int], None] | None = None,
) -> Bootstrapped:
    """Make a relative catalog of exposures that have been processed through source_list.

    Of each field, the image with the most stars that are clean and well measured gives positions and
    magnitudes; that of each other filter is matched to it and adds its magnitudes. Images of a section show
    one field if they are less than half an image apart. Where images of two fields overlap, the stars of the
    better one are taken.

    Parameters
    ----------
    exposures
        Of one instrument.
    name
        Of the catalog.
    overwrite
        Replace one of the same name.
    tell
        Is told after each exposure that was looked at: how many, and of how many.

    Raises
    ------
    NoCatalog
        If no exposure has sources.
    UserError
        If the instrument has several sections and nobody knows how they lie.
    ConflictError
        If the name is taken.
    """
    with use_settings(settings):
        found: list[_Candidate] = []
        for done, exposure in enumerate(exposures):
            found += _candidates(settings, exposure)
            if tell is not None:
                tell(done + 1, len(exposures))
        if not found:
            raise NoCatalog(
                f"none of {len(exposures)} exposures has a list of sources",
                cure="see why with `seechange show`: they must get through source_list",
            )
        _check_sections(found)
        fields = _fields(settings, found)
    used = [(c, len(rows["ra"])) for c, rows in fields]
    bands = sorted({key for _, rows in fields for key in rows if key.startswith("mag_")})
    rows = {key: _joined([rows for _, rows in fields], key) for key in [*_fixed(fields[0][1]), *bands]}
    epoch = float(np.mean([decimal_year(c.exposure.mjd_mid) for c, _ in used]))
    source = ", ".join(sorted({c.exposure.name for c, _ in used}))
    info = describe(name, dict.fromkeys(bands, ""), epoch=epoch, source=source, assumed=ASSUMED)
    info = info.model_copy(update={"relative": True, "columns": {}})
    made = write_catalog(settings.data_root / "catalogs", info, rows, overwrite=overwrite)
    images = tuple((c.exposure.name, c.section, c.band, n) for c, n in used)
    return Bootstrapped(made, images)


def _candidates(settings: Settings, exposure: Exposure) -> list[_Candidate]:
    """Return the sections of an exposure whose present sources are known."""
    present = provenances(settings, exposure.instrument)["source_list"].id
    query = (
        select(Image, SourceList)
        .join(Image, Image.id == SourceList.image_id)
        .join(StepOutcome, StepOutcome.data_version == SourceList.data_version)
        .where(
            Image.exposure_id == exposure.id,
            SourceList.provenance_id == present,
            StepOutcome.step == "source_list",
            StepOutcome.status == "done",
        )
        .order_by(Image.section_id, SourceList.data_version)
    )
    with open_session(settings, read_only=True) as session:
        exposure.update_instrument(session)
        rows = list(session.execute(query))
    ids = {str(i): i for i in exposure.instrument_object.get_section_ids()}
    archive = Archive(settings)
    return [
        _Candidate(
            exposure,
            image.section_id,
            exposure.instrument_object.band_of(image.filter),
            shape_of(image, archive),
            image.bitflag == 0 and not sources.bitflag & UNFIT,
            exposure.get_pointing_hint(ids[image.section_id]),
            _worth(sources.read(archive)),
            partial(sources.read, archive),
        )
        for image, sources in rows
        if image.section_id in ids
    ]


def _worth(s: Sources) -> int:
    return int(np.count_nonzero((s.snr >= _GOOD_SNR) & ((s.flags & int(UNUSABLE)) == 0) & s.is_star))


def _check_sections(found: list[_Candidate]) -> None:
    if not found[0].is_oriented and len({c.section for c in found}) > 1:
        raise UserError(
            "the sections' places relative to each other are not known, so they cannot share a catalog",
            cure="give the instrument its rotation_deg and parity, or bootstrap from one section",
        )


def _fields(settings: Settings, found: list[_Candidate]) -> list[tuple[_Candidate, Columns]]:
    """Make the rows of each field: its best image, with the magnitudes of other filters added."""
    left = sorted(found, key=lambda c: c.rank)
    made: list[tuple[_Candidate, Columns]] = []
    while left:
        base = left[0]
        near = [
            c
            for c in left
            if c.section == base.section
            and sky.separation(c.hint.ra, c.hint.dec, base.hint.ra, base.hint.dec) <= base.field_deg
        ]
        left = [c for c in left if c not in near]
        rows = _rows(base)
        params = settings.params(AstrometryParams, "astrometry", base.exposure.instrument)
        for band in sorted({c.band for c in near} - {base.band}):
            _add_band(rows, base, [c for c in near if c.band == band], params)
        new = _new(rows, base, [better for better, _ in made])
        if np.any(new):
            made.append((base, {key: column[new] for key, column in rows.items()}))
    return made


def _new(rows: Columns, base: _Candidate, fields: list[_Candidate]) -> Column:
    """Tell which of a field's stars lie where no earlier field has seen the sky."""
    there = np.array([(c.hint.ra, c.hint.dec) for c in fields]).reshape(-1, 2)
    apart = sky.separation(base.hint.ra, base.hint.dec, there[:, 0], there[:, 1])
    new = np.ones(len(rows["ra"]), bool)
    for i in np.flatnonzero(apart <= 2 * query_radius_deg(base.hint, base.shape)):
        new &= ~_covers(fields[i], rows["ra"], rows["dec"])
    return new


def _rows(base: _Candidate) -> Columns:
    """Turn an image's sources into rows of a catalog."""
    s = _usable(base.read())
    ra, dec = _to_sky(s, base)
    scale_mas = base.hint.pixel_scale_arcsec * 1e3
    error = np.hypot(np.sqrt((s.x_err**2 + s.y_err**2) / 2), _CENTROID_FLOOR_PIX) * scale_mas
    n = len(s)
    mag, mag_err = _magnitudes(s, base.exposure)
    return {
        "ra": ra,
        "dec": dec,
        "pmra": np.zeros(n),
        "pmdec": np.zeros(n),
        "pm_err": np.full(n, ASSUMED["motion_mas_yr"], np.float32),
        "position_err_mas": np.where(np.isfinite(error), error, scale_mas),
        # A saturated star helps to find the field, but its magnitude is wrong.
        "is_star": s.is_star & ((s.flags & int(UNUSABLE)) == 0),
        f"mag_{base.band}": mag,
        f"mag_{base.band}_err": mag_err,
    }


def _usable(sources: Sources) -> Sources:
    broken = int(UNUSABLE & ~PixelFlag.SATURATED & ~PixelFlag.BLEED)
    good = (sources.snr >= _MIN_SNR) & ((sources.flags & broken) == 0) & (sources.flux_psf > 0)
    return sources.select(good & np.isfinite(sources.x) & np.isfinite(sources.y))


def _magnitudes(s: Sources, exposure: Exposure) -> tuple[Column, Column]:
    mag = ZERO_POINT - 2.5 * np.log10(s.flux_psf / (exposure.exp_time or 1.0))
    return mag.astype(np.float32), (_MAG_ERR_OF_SNR / s.snr).astype(np.float32)


def _axes(hint: PointingHint) -> Column:
    """Give (east, north) of a pixel along x, then along y, in degrees: north is up unless more is known."""
    turn, parity = hint.rotation_deg or 0.0, hint.parity or 1
    return np.array(
        [offset_on_sky(axis, hint.pixel_scale_arcsec, turn, parity) for axis in ((1.0, 0.0), (0.0, 1.0))]
    )


def _to_sky(s: Sources, of: _Candidate) -> tuple[Column, Column]:
    """Place sources around the pointing."""
    height, width = of.shape
    pixels = np.stack([s.x - (width - 1) / 2, s.y - (height - 1) / 2], axis=-1)
    east, north = (pixels @ _axes(of.hint)).T
    return sky.deproject(east, north, of.hint.ra, of.hint.dec)


def _covers(of: _Candidate, ra: Column, dec: Column) -> Column:
    """Tell which positions an image sees.

    Not which of its stars are the same: where pointings are off by more than stars are apart, nobody knows.
    """
    height, width = of.shape
    plane = np.stack(sky.project(ra, dec, of.hint.ra, of.hint.dec), axis=-1)
    x, y = np.abs(plane @ np.linalg.inv(_axes(of.hint))).T
    return np.asarray((x <= width / 2) & (y <= height / 2))


def _add_band(
    rows: Columns,
    base: _Candidate,
    others: list[_Candidate],
    params: AstrometryParams,
) -> None:
    """Add the magnitudes of another filter: of the best image that matches."""
    nothing = np.full(len(rows["ra"]), np.nan, np.float32)
    stars = CatalogStars(
        rows["ra"], rows["dec"], rows["position_err_mas"], rows[f"mag_{base.band}"],
        rows[f"mag_{base.band}_err"], rows[f"mag_{base.band}"], rows["is_star"],
    )  # fmt: skip
    for other in others:
        sources = other.read()
        try:
            wcs = solve(sources, stars, other.hint, other.shape, params)
        except Stop:
            continue
        s = _usable(sources)
        s = s.select((s.flags & int(UNUSABLE)) == 0)
        ra, dec = wcs.to_sky(s.x, s.y)
        pairs = match_sky(ra, dec, rows["ra"], rows["dec"], _MATCH_PIX * wcs.pixel_scale_arcsec)
        for key, values in zip(("", "_err"), _magnitudes(s, other.exposure), strict=True):
            column = nothing.copy()
            column[pairs.second] = values[pairs.first]
            rows[f"mag_{other.band}{key}"] = column
        return


def _fixed(rows: Columns) -> list[str]:
    return [key for key in rows if not key.startswith("mag_")]


def _joined(parts: list[Columns], key: str) -> Column:
    """Join a column of all fields, NaN where a field lacks the band."""
    return np.concatenate([part.get(key, np.full(len(part["ra"]), np.nan, np.float32)) for part in parts])
