"""SCAMP on SExtractor's sources of the same pixels, with the same reference stars and the same header."""

import math
import tempfile
import warnings
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from benchmarks.ccds import Ccd
from benchmarks.peers import Cost, program, run_program
from seechange_core.frames import CatalogStars
from seechange_core.numerics.timing import decimal_year

_COLUMNS = (
    "XWIN_IMAGE", "YWIN_IMAGE", "ERRAWIN_IMAGE", "ERRBWIN_IMAGE", "ERRTHETAWIN_IMAGE", "FLUX_AUTO",
    "FLUXERR_AUTO", "FLUX_RADIUS", "FWHM_IMAGE", "ELONGATION", "FLAGS",
)  # fmt: skip
_EXTRACTION = {
    "DETECT_THRESH": 4, "DETECT_MINAREA": 5, "CATALOG_TYPE": "FITS_LDAC", "CATALOG_NAME": "sources.cat",
    "PARAMETERS_NAME": "columns", "WEIGHT_TYPE": "MAP_WEIGHT", "WEIGHT_IMAGE": "weight.fits", "FILTER": "N",
    "VERBOSE_TYPE": "QUIET",
}  # fmt: skip
_SOLUTION = {
    "ASTREF_CATALOG": "FILE", "ASTREFCAT_NAME": "references.cat", "ASTREFMAG_LIMITS": "0,99", "MATCH": "Y",
    "POSANGLE_MAXERR": 5, "MOSAIC_TYPE": "UNCHANGED", "SOLVE_PHOTOM": "N", "DISTORT_DEGREES": 3,
    "SN_THRESHOLDS": "10,100", "FWHM_THRESHOLDS": "0,100", "CHECKPLOT_TYPE": "NONE",
    "CHECKPLOT_DEV": "NULL", "WRITE_XML": "N", "VERBOSE_TYPE": "QUIET", "NTHREADS": 1,
}  # fmt: skip


def is_installed() -> bool:
    """Tell whether both programs are there."""
    return program("scamp") is not None and program("source-extractor", "sex") is not None


def solve(ccd: Ccd, catalog: CatalogStars) -> tuple[WCS, Cost]:
    """Return SCAMP's solution and what it took, SExtractor not counted."""
    hint, image = ccd.hint, ccd.image()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fits.writeto(folder / "image.fits", np.nan_to_num(image.data), _header(ccd))
        fits.writeto(folder / "weight.fits", image.weight)
        (folder / "columns").write_text("\n".join(_COLUMNS))
        options = {**_EXTRACTION, "GAIN": image.gain, "SATUR_LEVEL": image.saturation_e}
        command = [str(program("source-extractor", "sex")), "image.fits"]
        run_program(command + _words(options), folder)
        _write_references(folder / "references.cat", catalog, decimal_year(ccd.row.mjd_mid))
        options = {
            **_SOLUTION, "POSITION_MAXERR": hint.radius_arcmin, "PIXSCALE_MAXERR": 1 + hint.scale_tolerance,
            "CROSSID_RADIUS": 2 * hint.pixel_scale_arcsec,
        }  # fmt: skip
        cost = run_program([str(program("scamp")), "sources.cat", *_words(options)], folder)
        return _read_head(folder / "sources.head"), cost


def _words(options: dict[str, object]) -> list[str]:
    return [word for key, value in options.items() for word in (f"-{key}", str(value))]


def _header(ccd: Ccd) -> fits.Header:
    """Return the cards that say what the telescope knows of the section's place on the sky."""
    hint, camera = ccd.hint, ccd.world.camera
    scale, angle = hint.pixel_scale_arcsec / 3600, math.radians(hint.rotation_deg or 0.0)
    parity = hint.parity or 1
    cards = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "RADESYS": "ICRS", "EQUINOX": 2000.0,
        "CUNIT1": "deg", "CUNIT2": "deg", "CRVAL1": hint.ra, "CRVAL2": hint.dec,
        "CRPIX1": (camera.width + 1) / 2, "CRPIX2": (camera.height + 1) / 2,
        "CD1_1": -parity * scale * math.cos(angle), "CD1_2": scale * math.sin(angle),
        "CD2_1": parity * scale * math.sin(angle), "CD2_2": scale * math.cos(angle),
        "MJD-OBS": ccd.row.mjd_mid, "EXPTIME": 1.0, "AIRMASS": 1.0, "FILTER": ccd.band,
    }  # fmt: skip
    return fits.Header(cards)


def _write_references(path: Path, catalog: CatalogStars, year: float) -> None:
    """Write reference stars as SCAMP wants them: a table after one cell with an empty header."""
    stars = catalog.select(np.flatnonzero(np.isfinite(catalog.mag)))
    error = stars.position_err_mas / 3.6e6
    columns = {
        "X_WORLD": stars.ra, "Y_WORLD": stars.dec, "ERRA_WORLD": error, "ERRB_WORLD": error,
        "ERRTHETA_WORLD": np.zeros(len(stars)), "MAG": stars.mag,
        "MAGERR": np.nan_to_num(stars.mag_err, nan=0.1), "OBSDATE": np.full(len(stars), year),
    }  # fmt: skip
    cards = fits.Header().tostring(endcard=True, padding=False)
    cell = fits.Column(
        "Field Header Card", f"{len(cards)}A", dim=f"(80, {len(cards) // 80})", array=[[cards]]
    )
    table = [fits.Column(key, "D", array=value) for key, value in columns.items()]
    fits.HDUList([
        fits.PrimaryHDU(),
        fits.BinTableHDU.from_columns([cell], name="LDAC_IMHEAD"),
        fits.BinTableHDU.from_columns(table, name="LDAC_OBJECTS"),
    ]).writeto(path)  # fmt: skip


def _read_head(path: Path) -> WCS:
    # Comments in it are not ASCII.
    lines = path.read_text(encoding="latin-1").splitlines()
    cards = "\n".join(line for line in lines if not line.startswith(("HISTORY", "COMMENT")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        return WCS(fits.Header.fromstring(cards, sep="\n"))
