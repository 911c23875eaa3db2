import numpy as np
import pytest

from seechange_core.frames import (
    Background,
    CalibratedImage,
    ForcedFluxes,
    MasterFrame,
    Measurements,
    SubtractionFrame,
)
from seechange_core.qa.metrics import metrics


def test_numbers_of_a_calibrated_image(field):
    background = Background(
        np.full((16, 16), 800, np.float32), np.full((16, 16), 30, np.float32), 64, (1024, 1024)
    )
    image = CalibratedImage(field.image, background, field.psf, field.wcs, field.zero_point)
    result = {**metrics(image), **metrics(field.sources)}
    expected = {
        "sky_e": 800, "sky_rms_e": 30, "noise_e": 30, "fwhm_pix": 3.5, "rms_mas": 12, "zp": 30.1,
        "limiting_mag": 24.1, "n_sources": 300, "stars_fwhm_pix": 3.5, "pixel_scale_arcsec": 0.27,
        "saturated_fraction": 1600 / 1024**2, "exposure_time_s": 60,
    }  # fmt: skip
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, rel=1e-4), name
    assert result["psf_peak_range"] > 0.02
    assert all(type(value) is float and np.isfinite(value) for value in result.values())


def test_numbers_of_a_difference(field, found):
    rng = np.random.default_rng(4)
    score = rng.normal(size=(400, 400)).astype(np.float32)
    image = field.image
    part = type(image)(
        30 * score, np.full(score.shape, np.float32(1 / 900)), np.zeros(score.shape, np.uint16), 60.0
    )
    result = metrics(SubtractionFrame(part, score, field.psf, score, 0.97))
    assert result["score_sigma"] == pytest.approx(1, abs=0.01)
    assert result["difference_pull_sigma"] == pytest.approx(1, abs=0.01)
    assert result["reference_coverage"] == 0.97
    counts = metrics(found.detections)
    assert counts["n_detections"] == counts["n_positive"] + counts["n_negative"] == 12
    assert metrics(found.stamps) == {"n_stamps": 12, "stamp_size_pix": 41}


def test_masters_measurements_and_forced_fluxes():
    rng = np.random.default_rng(5)
    data = rng.normal(1, 0.01, (100, 100)).astype(np.float32)
    flat = MasterFrame("flat", data, np.full_like(data, 1e-6), np.zeros(data.shape, np.uint16), 9)
    assert metrics(flat)["level"] == pytest.approx(1, abs=1e-3)
    assert metrics(flat)["error"] == pytest.approx(1e-3)
    x = np.arange(4.0)
    bad = np.array([False, True, True, False])
    whole = np.zeros(4, int)
    columns = dict.fromkeys(Measurements.__dataclass_fields__, x)
    m = metrics(Measurements(**columns | {"n_bad": whole, "is_bad": bad, "bad_reasons": whole}))
    assert m["n_good"] == 2
    assert m["good_chi2"] == 1.5
    forced = ForcedFluxes(x, x, np.array([1, 10, np.nan, 100.0]), np.ones(4), x, whole, np.ones(4))
    assert metrics(forced)["n_detected"] == 2


def test_what_does_not_exist_is_left_out(field, found):
    nothing = np.zeros(0, int)
    assert metrics(field.sources.select(nothing)) == {"n_sources": 0, "n_stars": 0}
    assert "best_score" not in metrics(found.detections.select(nothing))
    with pytest.raises(TypeError, match="int"):
        metrics(3)
