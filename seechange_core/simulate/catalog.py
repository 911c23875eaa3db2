"""A reference catalog with the errors, motions and contaminants that real ones have."""

import numpy as np
import numpy.typing as npt
from astropy.table import Table, vstack

from seechange_core.simulate.camera import Camera
from seechange_core.simulate.geometry import move
from seechange_core.simulate.populate import random_positions
from seechange_core.simulate.psf import Float
from seechange_core.simulate.sky import DAYS_PER_YEAR, Sky

#: Epoch of the catalog, J2016.0, as MJD.
CATALOG_EPOCH_MJD = 57388.5
OUTLIER_ARCSEC = (0.2, 1.0)
OUTLIER_MAG = (0.2, 1.0)
#: Galaxies' centres are this much worse than stars' (mas), they do not move, and their magnitudes (mag).
GALAXY_POSITION_ERR_MAS = 20.0
GALAXY_MOTION_ERR_MAS_YR = 0.1
GALAXY_MAG_ERR = 0.08


def position_err_mas(mag: Float) -> Float:
    """Return the quoted 1-sigma position error per axis at the catalog's epoch, as of Gaia DR3's stars."""
    return np.asarray(np.hypot(0.1, 0.5 * 10 ** (0.3 * (mag - 19.0))))


def mag_err(mag: Float) -> Float:
    """Return the quoted 1-sigma error of a magnitude."""
    return np.asarray(np.hypot(0.004, 0.02 * 10 ** (0.3 * (mag - 20.0))))


def make_catalog(camera: Camera, sky: Sky) -> Table:
    """Make the reference catalog of a field.

    Positions and magnitudes scatter by the errors quoted (proper motions by as many mas/yr as the
    position by mas), a few entries by much more; some stars are missing, some entries are nothing at
    all, the most compact galaxies are listed as stars, and variables at one moment's brightness.

    Returns
    -------
    Columns ra, dec (deg, epoch 2016.0), pmra, pmdec, pm_err (mas/yr), position_err_mas, mag_g, mag_r, mag_i,
    mag_g_err, mag_r_err, mag_i_err, is_star; in random order. With a z filter also mag_z, mag_z_err.
    """
    rng = np.random.default_rng([camera.options.seed, 401])
    stars = _stars(camera, sky, rng)
    galaxies = _galaxies(camera, sky, rng)
    entries = vstack([stars, galaxies])
    _scatter(camera, entries, rng)
    entries = vstack([entries, _spurious(camera, entries, rng)])
    return entries[rng.permutation(len(entries))]


def _bands(camera: Camera) -> str:
    """Return the filters that the catalog has magnitudes in."""
    return "griz" if "z" in camera.bands else "gri"


def _entries(camera: Camera, sky: Sky, rows: npt.NDArray[np.int64], is_star: npt.NDArray[np.bool_]) -> Table:
    """Put true values of some objects into the catalog's columns."""
    o = sky.objects[rows]
    years = (CATALOG_EPOCH_MJD - np.asarray(o["epoch_mjd"])) / DAYS_PER_YEAR
    ra, dec = move(o["ra"], o["dec"], o["pmra"] * years, o["pmdec"] * years)
    columns = {"ra": ra, "dec": dec, "pmra": o["pmra"], "pmdec": o["pmdec"]}
    columns["position_err_mas"] = position_err_mas(np.asarray(o["mag_r"]))
    columns["pm_err"] = columns["position_err_mas"].copy()
    mags = {f"mag_{band}": sky.mag(band)[rows] for band in _bands(camera)}
    errors = {f"{name}_err": mag_err(value) for name, value in mags.items()}
    return Table({**columns, **mags, **errors, "is_star": is_star})


def _stars(camera: Camera, sky: Sky, rng: np.random.Generator) -> Table:
    o = sky.objects
    listed = np.isin(o["kind"], ("star", "variable")) & (o["mag_r"] < camera.options.catalog_faint_mag)
    rows = np.flatnonzero(listed)
    rows = rows[rng.uniform(size=rows.size) >= camera.options.catalog_missing]
    entries = _entries(camera, sky, rows, np.ones(rows.size, bool))
    moment = -2.5 * np.log10(sky.brightness(CATALOG_EPOCH_MJD)[rows])
    for band in _bands(camera):
        entries[f"mag_{band}"] += moment
    return entries


def _galaxies(camera: Camera, sky: Sky, rng: np.random.Generator) -> Table:
    """Galaxies half a magnitude above the limit; the most compact pass for stars."""
    o = sky.objects
    rows = np.flatnonzero((o["kind"] == "galaxy") & (o["mag_r"] < camera.options.catalog_faint_mag - 0.5))
    as_stars = round(camera.options.catalog_galaxies_as_stars * rows.size)
    order = np.argsort(np.asarray(o["half_light_arcsec"][rows]) * np.exp(rng.normal(0, 0.2, rows.size)))
    is_star = np.zeros(rows.size, bool)
    is_star[order[:as_stars]] = True
    entries = _entries(camera, sky, rows, is_star)
    entries["position_err_mas"] = np.hypot(entries["position_err_mas"], GALAXY_POSITION_ERR_MAS)
    entries["pm_err"] = GALAXY_MOTION_ERR_MAS_YR
    for band in _bands(camera):
        entries[f"mag_{band}_err"] = np.hypot(entries[f"mag_{band}_err"], GALAXY_MAG_ERR)
    return entries


def _scatter(camera: Camera, entries: Table, rng: np.random.Generator) -> None:
    """Draw the errors, in place."""
    if not camera.options.catalog_errors:
        return
    n = len(entries)
    error = np.asarray(entries["position_err_mas"])
    east, north = error * rng.standard_normal(n), error * rng.standard_normal(n)
    off = rng.uniform(size=n) < camera.options.catalog_outliers
    far, angle = rng.uniform(*OUTLIER_ARCSEC, n) * 1e3, rng.uniform(0, 2 * np.pi, n)
    east, north = east + off * far * np.sin(angle), north + off * far * np.cos(angle)
    entries["ra"], entries["dec"] = move(entries["ra"], entries["dec"], east, north)
    motion = np.asarray(entries["pm_err"])
    entries["pmra"] = entries["pmra"] + motion * rng.standard_normal(n)
    entries["pmdec"] = entries["pmdec"] + motion * rng.standard_normal(n)
    shift = off * rng.uniform(*OUTLIER_MAG, n) * rng.choice([-1, 1], n)
    for band in _bands(camera):
        noise = np.asarray(entries[f"mag_{band}_err"]) * rng.standard_normal(n)
        entries[f"mag_{band}"] = entries[f"mag_{band}"] + noise + shift


def _spurious(camera: Camera, entries: Table, rng: np.random.Generator) -> Table:
    """Entries like real ones where nothing is."""
    count = round(camera.options.catalog_spurious * len(entries))
    copies = entries[rng.integers(len(entries), size=count)] if count else entries[:0]
    copies["ra"], copies["dec"] = random_positions(camera, count, rng)
    copies["is_star"] = True
    return copies
