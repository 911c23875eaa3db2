"""Pieces of DECam CCDs as the observatory calibrated them, and the PSFEx models and Gaia rows beside them."""

import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table, vstack
from astropy.time import Time
from astropy.wcs import WCS, FITSFixedWarning

from seechange_core.catalogs import LocalCatalog, import_table
from seechange_core.frames import CatalogStars, ImageFrame, Masters, PsfModel
from seechange_core.instrument import get_instrument_instance
from seechange_core.numerics import psf as psf_of
from seechange_core.numerics.aperture import adaptive_moments
from seechange_core.stages.preprocess import PreprocessParams, preprocess

#: Fainter, noise hides what is wrong with a PSF; closer to the edge, part of the star is missing.
FAINTEST_G, EDGE_PIX = 20.0, 12


@dataclass(frozen=True, eq=False)
class Cutout:
    """A calibrated piece of a CCD, and what comes with it.

    Attributes
    ----------
    name
        Folder and CCD.
    image
        As `preprocess` makes it.
    header
        Of the section, the exposure's cards below it.
    wcs
        The observatory's solution.
    gaia, gaia_g
        Stars around the piece at the time of the exposure, magnitudes in `band` and in G.
    band
        The exposure's.
    psfex
        PSFEx's model of the whole CCD, on the pixels of the piece; of unit sum over the whole stamp.
    """

    name: str
    image: ImageFrame
    header: fits.Header
    wcs: WCS
    gaia: CatalogStars
    gaia_g: CatalogStars
    band: str
    psfex: PsfModel

    @cached_property
    def places(self) -> tuple[Any, Any]:
        """Pixels of the Gaia stars."""
        x, y = self.wcs.all_world2pix(self.gaia.ra, self.gaia.dec, 0, quiet=True)
        return np.asarray(x, float), np.asarray(y, float)

    def inside(self, edge_pix: float = 0.0) -> Any:
        """Return the rows of the Gaia stars in the piece."""
        x, y = self.places
        height, width = self.image.shape
        near_x, near_y = np.abs(x - (width - 1) / 2), np.abs(y - (height - 1) / 2)
        return np.flatnonzero((near_x < width / 2 - edge_pix) & (near_y < height / 2 - edge_pix))

    def stars(self) -> Any:
        """Return the rows of those that can judge a PSF: bright, whole, single, no nucleus of a galaxy."""
        rows = self.inside(EDGE_PIX)
        rows = rows[self.gaia_g.mag[rows] < FAINTEST_G]
        x, y = self.places
        good = []
        for row in rows:
            around = stamp_of(self.image.flags, x[row], y[row], 15)
            # What has a neighbour in Gaia within 2.5" or half its light beyond 2" is none.
            alone = np.sort(np.hypot(x - x[row], y - y[row]))[1] > 9.5
            if not np.any(around) and alone and self._is_point(x[row], y[row]):
                good.append(row)
        return np.array(good, int)

    def _is_point(self, x: float, y: float) -> bool:
        data = self.image.data - np.median(self.image.data)
        found = adaptive_moments(data, self.image.weight, np.array([x]), np.array([y]), self.psfex.fwhm_pix)
        return bool(found.fwhm_pix[0] < 1.15 * self.psfex.fwhm_pix)


def cutouts(root: Path) -> Iterator[Cutout]:
    """Read all pieces of a folder ``decam_cutouts``."""
    decam = get_instrument_instance("decam")
    for path in sorted(root.glob("*/images/**/*_ooi_*.fits")):
        folder = root / path.relative_to(root).parts[0]
        common, rest = decam.group_files(path)
        paths, section = [path.parent / f"{common}{r}" for r in rest], path.name.split(".")[-2]
        facts = decam.read_facts(decam.read_header(paths))
        raw = decam.load_raw_frame(paths, section, decam.get_sections(dateobs=facts.mjd))
        image = preprocess(raw, Masters(), PreprocessParams())
        header = fits.getheader(path, section)
        header.extend(fits.getheader(path, 0), unique=True, strip=True)
        wcs = _wcs(header)
        corner = wcs.all_pix2world([[image.shape[1] / 2, image.shape[0] / 2]], 0)[0]
        gaia = [_gaia(folder, corner, facts.mjd, band) for band in (f"{facts.filter}_ps1", "G")]
        model = psfex_model(
            next((folder / "calib").glob(f"**/{path.name.split('.')[0]}*{_end(folder, section)}"))
        )
        yield Cutout(
            f"{folder.name} {section} {facts.filter}", image, header, wcs, *gaia, facts.filter, model
        )


def _wcs(header: fits.Header) -> WCS:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        return WCS(header)


def _end(folder: Path, section: str) -> str:
    return f"-{section}-psfex.fits" if (folder / "calib" / "psfex-single").is_dir() else "-psfex.fits"


def _gaia(folder: Path, centre: Any, mjd: float, band: str) -> CatalogStars:
    """Return the Gaia stars within 3', by our own catalog store."""
    tables = [Table.read(file) for file in sorted(folder.glob("gaia/chunk-*.fits"))]
    with tempfile.TemporaryDirectory() as name:
        vstack([t for t in tables if len(t)], metadata_conflicts="silent").write(Path(name) / "gaia.fits")
        import_table(Path(name) / "gaia.fits", "gaia", Path(name), layout="gaia_dr3")
        year = float(Time(mjd, format="mjd").jyear)
        return LocalCatalog(Path(name), "gaia").query(*centre, 0.05, band, None, year)


def psfex_model(path: Path) -> PsfModel:
    """Read a PSFEx model of pixel sampling and degree 2; its positions are already those of the piece."""
    row = fits.getdata(path, 1)[0]
    if row["psf_samp"] != 1 or row["poldeg1"] != 2:
        raise ValueError(f"{path.name}: a model of sampling {row['psf_samp']} and degree {row['poldeg1']}")
    # PSFEx's terms are 1 x x^2 y xy y^2.
    terms = np.asarray(row["psf_mask"], np.float32)[[0, 1, 3, 2, 4, 5]]
    centre = (float(row["polzero1"]) - 1, float(row["polzero2"]) - 1)
    model = PsfModel(terms, 2, centre, (float(row["polscal1"]), float(row["polscal2"])), 0.0)
    return replace(model, fwhm_pix=psf_of.fwhm(psf_of.evaluate(model, 50, 50)[0]))


def normalised(model: PsfModel, x: float, y: float, size: int) -> PsfModel:
    """Return a model's stamp at a place, its light within ``size // 2`` being 1, as ours is defined."""
    stamp = psf_of.evaluate(model, x, y)[0]
    edge = (len(stamp) - size) // 2
    stamp = stamp[edge : edge + size, edge : edge + size] if edge >= 0 else np.pad(stamp, -edge)
    steps = np.arange(size) - size // 2
    return psf_of.constant(np.where(np.hypot(steps, steps[:, None]) <= size // 2, stamp, 0))


def stamp_of(plane: Any, x: float, y: float, half: int) -> Any:
    """Return the pixels around a place, 0 where there are none."""
    wide = np.pad(plane, half)
    row, column = round(y), round(x)
    return wide[row : row + 2 * half + 1, column : column + 2 * half + 1]


def observatory_zp(cutout: Cutout) -> float:
    """Return the zero point of an electron that the observatory found from PS1, NaN if it states none."""
    gain = np.mean([cutout.header[f"GAIN{a}"] for a in "AB"])
    return float(cutout.header.get("MAGZERO", np.nan) + 2.5 * np.log10(gain))
