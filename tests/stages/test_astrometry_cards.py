"""The written solution means the same to astropy, to Source Extractor and to SWarp.

The AstrOmatic programs take no notice of SIP, which is what TPV is for.
"""

import shutil
import subprocess

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from seechange_core.frames import WcsSolution
from seechange_core.numerics import sky
from seechange_core.numerics.distortion import fit_plate

SHAPE = (600, 500)
CENTRE = ((SHAPE[1] - 1) / 2, (SHAPE[0] - 1) / 2)


def bent_plate(order, size_pix=4.0, seed=0, ra=359.99, dec=-35.0):
    """A plate fitted to positions that a random polynomial of the given order puts on the sky, exactly."""
    rng = np.random.default_rng(seed)
    x, y = (
        a.ravel() for a in np.meshgrid(np.linspace(0, SHAPE[1] - 1, 15), np.linspace(0, SHAPE[0] - 1, 15))
    )
    u, v = (x - CENTRE[0]) / 300, (y - CENTRE[1]) / 300
    xi, eta = x - CENTRE[0], y - CENTRE[1]
    for degree in range(2, order + 1):
        for q in range(degree + 1):
            a, b = rng.normal(0, size_pix / degree, 2)
            xi, eta = xi + a * u ** (degree - q) * v**q, eta + b * u ** (degree - q) * v**q
    turn = np.deg2rad(33.0)
    east, north = -xi * np.cos(turn) + eta * np.sin(turn), xi * np.sin(turn) + eta * np.cos(turn)
    positions = sky.deproject(0.4 * east / 3600, 0.4 * north / 3600, ra, dec)
    plate = fit_plate((x, y), positions, np.full(len(x), 1e-6), CENTRE, (ra, dec), order, 50.0)
    return plate, (x, y), positions


def solution_of(plate, projection):
    header = fits.Header.fromstring(fits.Header(plate.cards(SHAPE, projection)).tostring())
    return WcsSolution(dict(header), SHAPE)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("projection", ["TAN-SIP", "TPV"])
def test_cards_are_the_fit(order, projection):
    plate, pixels, positions = bent_plate(order)
    solution = solution_of(plate, projection)
    assert np.max(sky.separation(*solution.to_sky(*pixels), *positions)) * 3.6e6 < 1e-3
    back = solution.to_pixels(*positions)
    assert np.hypot(back[0] - pixels[0], back[1] - pixels[1]).max() < 1e-4
    kinds = {key[:3] for key in solution.cards if key.startswith(("A_", "B_", "PV"))}
    assert bool(kinds) == (order > 1)
    # SIP and PV in one header are read differently by every program.
    assert any(k.startswith("PV") for k in kinds) == (projection == "TPV" and order > 1)
    assert any(k[1] == "_" for k in kinds) == (projection == "TAN-SIP" and order > 1)


def test_both_projections_hold_one_map():
    plate, _, _ = bent_plate(3, seed=5)
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, SHAPE[1] - 1, 200), rng.uniform(0, SHAPE[0] - 1, 200)
    sip, tpv = solution_of(plate, "TAN-SIP"), solution_of(plate, "TPV")
    assert np.max(sky.separation(*sip.to_sky(x, y), *tpv.to_sky(x, y))) * 3.6e6 < 1e-3


@pytest.mark.parametrize("order", [2, 3, 5])
def test_the_inverse_of_sip_is_the_way_back(order):
    """Readers that do not iterate go back by AP and BP (Shupe et al. 2005, eq. 5 and 6)."""
    plate, (x, y), _ = bent_plate(order, size_pix=2.0)
    solution = solution_of(plate, "TAN-SIP")
    cards, u, v = solution.cards, x - CENTRE[0], y - CENTRE[1]

    def bend(name, a, b):
        shift = np.zeros_like(a)
        for key, value in cards.items():
            if key.startswith(f"{name}_") and key[-1].isdigit():
                _, p, q = key.split("_")
                shift += value * a ** int(p) * b ** int(q)
        return shift

    bent = u + bend("A", u, v), v + bend("B", u, v)
    back = bent[0] + bend("AP", *bent), bent[1] + bend("BP", *bent)
    assert np.hypot(bent[0] - u, bent[1] - v).max() > 0.5
    assert np.hypot(back[0] - u, back[1] - v).max() < 0.01


def starry(path, cards, seed=3):
    """A noiseless image of round stars with the cards in its header; return where they are."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(np.arange(30, SHAPE[1] - 30, 45.0), np.arange(30, SHAPE[0] - 30, 45.0))
    x, y = (g.ravel() + rng.uniform(-5, 5, g.size) for g in grid)
    image = np.zeros(SHAPE)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for a, b in zip(x, y, strict=True):
        near = np.s_[int(b) - 20 : int(b) + 21, int(a) - 20 : int(a) + 21]
        image[near] += 1e4 * np.exp(-((columns[near] - a) ** 2 + (rows[near] - b) ** 2) / (2 * 2.0**2))
    image += rng.normal(0, 0.1, SHAPE)
    fits.PrimaryHDU(image.astype(np.float32), fits.Header(cards)).writeto(path)
    return x, y


def run_extractor(folder, image):
    columns = ("XWIN_IMAGE", "YWIN_IMAGE", "ALPHAWIN_J2000", "DELTAWIN_J2000", "FLUX_AUTO")
    (folder / "p").write_text("\n".join(columns))
    (folder / "k").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
    options = {"CATALOG_NAME": "out", "CATALOG_TYPE": "FITS_1.0", "PARAMETERS_NAME": "p", "FILTER_NAME": "k",
               "DETECT_THRESH": "50", "VERBOSE_TYPE": "QUIET"}  # fmt: skip
    words = [w for key, value in options.items() for w in (f"-{key}", value)]
    subprocess.run(
        [shutil.which("source-extractor") or "sex", image, "-c", "/dev/null", *words], cwd=folder, check=True
    )
    return Table.read(folder / "out", format="fits")


needs_extractor = pytest.mark.skipif(
    not (shutil.which("source-extractor") or shutil.which("sex")), reason="no Source Extractor"
)
needs_swarp = pytest.mark.skipif(
    not (shutil.which("SWarp") or shutil.which("swarp")), reason="no SWarp installed"
)


@needs_extractor
@pytest.mark.parametrize("order", [1, 3, 5])
def test_source_extractor_reads_the_same_sky(tmp_path, order):
    plate, _, _ = bent_plate(order)
    solution = solution_of(plate, "TPV")
    starry(tmp_path / "a.fits", solution.cards)
    found = run_extractor(tmp_path, "a.fits")
    assert len(found) > 80
    ours = solution.to_sky(found["XWIN_IMAGE"] - 1, found["YWIN_IMAGE"] - 1)
    apart = sky.separation(*ours, found["ALPHAWIN_J2000"], found["DELTAWIN_J2000"]) * 3.6e6
    assert np.max(apart) < 0.1


@needs_extractor
@needs_swarp
def test_swarp_puts_the_stars_where_we_say(tmp_path):
    plate, _, _ = bent_plate(3)
    solution = solution_of(plate, "TPV")
    x, y = starry(tmp_path / "a.fits", solution.cards)
    subprocess.run(
        [shutil.which("SWarp") or "swarp", "a.fits", "-c", "/dev/null", "-PROJECTION_TYPE", "TAN",
         "-SUBTRACT_BACK", "N", "-IMAGEOUT_NAME", "flat.fits", "-WRITE_XML", "N", "-VERBOSE_TYPE", "QUIET",
         "-RESAMPLING_TYPE", "LANCZOS4", "-PROJECTION_ERR", "0", "-FSCALASTRO_TYPE", "NONE"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    header = fits.getheader(tmp_path / "flat.fits")
    assert header["CTYPE1"] == "RA---TAN"
    found = run_extractor(tmp_path, "flat.fits")
    ra, dec = WCS(header).all_pix2world(found["XWIN_IMAGE"], found["YWIN_IMAGE"], 1)
    apart = sky.separation(*solution.to_sky(x, y), ra[:, None], dec[:, None]).min(axis=0) * 3.6e6
    assert len(found) > 80
    # 0.4 arcsec pixels; what is left are SWarp's interpolation and the extractor's windows.
    assert np.median(apart) < 2.0
