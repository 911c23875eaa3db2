import pytest

from seechange_core.simulate import SurveyOptions, simulate_survey

#: Every effect off: a perfect telescope, camera and catalog.
PERFECT = {
    "photon_noise": False, "read_noise_e": 0.0, "proper_motions": False, "psf_variation": False,
    "psf_ellipticity": False, "psf_aureole": False, "distortion": False, "pointing_error": False,
    "rotation": False, "extinction": False, "color_term": False, "clouds": False, "sky_gradient": False,
    "moonlight": False, "flat_structure": False, "edge_roll_off": False, "bias_structure": False,
    "dark_current": False, "bad_pixels": False, "saturation": False, "cosmic_rays": 0.0, "satellites": 0.0,
    "catalog_errors": False, "flat_gradient": 0.0,
}  # fmt: skip


def small_options(**changes):
    small = {
        "sections": 1, "section_size_pix": 256, "exposures": 2, "nights": 2, "reference_exposures": 1,
        "transients": 6, "variables": 2, "asteroids": 1, "n_bias": 1, "n_dark": 1, "n_flat": 1,
    }  # fmt: skip
    return SurveyOptions(**{**small, **changes})


@pytest.fixture(scope="session")
def options():
    """A function that makes options for a small survey."""
    return small_options


@pytest.fixture(scope="session")
def perfect():
    """A function that makes the same with every effect off."""
    return lambda **changes: small_options(**{**PERFECT, **changes})


@pytest.fixture(scope="session")
def survey(tmp_path_factory):
    """A small survey on disk, everything on."""
    return simulate_survey(tmp_path_factory.mktemp("survey"), small_options(sections=2))
