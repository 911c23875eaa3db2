"""Real pieces of DECam CCDs against what came with them: PSFEx's models, Gaia, the observatory's zero point.

Runs where ``SEECHANGE_REAL_DATA`` names a folder with ``decam_cutouts/``; what is compared is measured in
``benchmarks/decam_cutouts.py``.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

from seechange_core.errors import NoStars
from seechange_core.settings import load_settings, use_settings
from seechange_core.stages.extract import ExtractParams, extract

ROOT = Path(os.environ.get("SEECHANGE_REAL_DATA", "/nowhere")) / "decam_cutouts"
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="SEECHANGE_REAL_DATA is not set")
sys.path.append(str(Path(__file__).parents[2]))

#: Pieces with three stars, with some on and around a galaxy, and with none but faint ones.
STARS, ON_A_GALAXY, FAINT = "testcase4 N2 z", "testcase8 N6 r", "testcase12 N15 r"


@pytest.fixture(scope="module")
def measured():
    from benchmarks import decam_cutouts

    return decam_cutouts


@pytest.fixture(scope="module")
def pieces(measured):
    with use_settings(load_settings(environ={})):
        return {piece.name: piece for piece in measured.cutouts(ROOT)}


@pytest.fixture(scope="module")
def compared(measured, pieces):
    return {name: measured.compare(pieces[name]) for name in (STARS, ON_A_GALAXY, FAINT)}


@pytest.mark.parametrize(("name", "n_stars"), [(STARS, 3), (ON_A_GALAXY, 2)])
def test_a_psf_of_other_stars_fits_as_their_noise_allows(measured, pieces, name, n_stars):
    """What PSFEx's model leaves of a star, of 100 stars and that one, is what no PSF would take away."""
    tests = measured.star_tests(pieces[name])
    assert len(tests) == n_stars
    for t in tests:
        # `noise` squared is one sigma of a residual squared; the galaxy's own photons are not in `limit`.
        allowed = (1.5 * t.limit) ** 2 + max(t.theirs.residual, 0) ** 2 + 3 * t.ours.noise**2
        assert t.ours.residual**2 * np.sign(t.ours.residual) < allowed
        (fwhm_pix, *ours), (true_pix, *theirs) = t.shapes
        # Of stars with a S/N of 130 to 620.
        assert fwhm_pix == pytest.approx(true_pix, rel=0.03)
        assert np.abs(np.subtract(ours, theirs)).max() < 0.02
        # The noise of the PSF, all of a PSF of a S/N of 130, moves the centre by FWHM / 2.4 over it.
        assert np.hypot(t.ours.x - t.theirs.x, t.ours.y - t.theirs.y) < 0.05


@pytest.mark.parametrize("name", [STARS, ON_A_GALAXY])
def test_positions_are_gaias_within_their_errors(measured, pieces, compared, name):
    off = measured.offsets(pieces[name], compared[name])
    freedom = 2 * (len(off.x) - 1)
    assert freedom >= 2
    assert np.sum((off.x**2 + off.y**2) / off.error**2) < chi2.isf(1e-3, freedom)
    # The observatory's WCS itself is a tenth of a pixel off.
    assert np.hypot(*off.mean) < 50


def test_zero_points_are_the_observatorys(measured, pieces, compared):
    """Gaia's magnitudes, transformed to PS1's z, against what the pipeline found from PS1 itself."""
    from benchmarks.cutouts import observatory_zp

    off = measured.offsets(pieces[STARS], compared[STARS])
    known = np.isfinite(off.zp)
    assert np.count_nonzero(known) == 2
    weight = off.zp_err[known] ** -2
    error = 1 / np.sqrt(weight.sum())
    assert error < 0.06
    assert np.average(off.zp[known], weights=weight) == pytest.approx(
        observatory_zp(pieces[STARS]), abs=3 * error
    )


@pytest.mark.parametrize("name", [STARS, ON_A_GALAXY, FAINT])
def test_sources_are_there_and_a_galaxy_is_not_a_crowd(compared, name):
    """sep finds nothing above a S/N of 10 that we do not, and little of ours is not in its list."""
    met = compared[name]
    common, all_ours = met.ours_in_sep
    assert met.sep_in_ours[0] == met.sep_in_ours[1] > 0
    # What it lacks are pieces of the galaxy's halo.
    assert all_ours - common <= 4
    # The lost one is a faint star 1" from another.
    assert len(met.rows) >= met.in_gaia - 1


def test_too_few_stars_are_refused(measured, pieces):
    assert len(pieces) == 7
    for piece in pieces.values():
        with pytest.raises(NoStars, match="5 are needed"):
            extract(piece.image, ExtractParams())


@pytest.mark.parametrize("name", [STARS, ON_A_GALAXY, FAINT])
def test_no_astrometry_from_a_handful_of_stars(measured, pieces, compared, name):
    """3, 7 and no sources are in Gaia: any solution would be chance's."""
    assert measured.solved(pieces[name], compared[name]).startswith("refused")
