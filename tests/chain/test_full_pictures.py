"""Full-size pictures of the small survey's products: whole, and of what is there."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_survey import SECTIONS, STEP_NAMES, THROUGH_ZERO_POINT

from seechange_core import chain
from seechange_core.chain import drawings, full_pictures, load
from seechange_core.chain.steps_image import catalog_stars
from seechange_core.errors import NotFoundError
from seechange_core.qa.samples import zero_point_residuals
from seechange_core.stages.photometry import PhotometryParams

SIZE = 512


def decode(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def drawn(survey, product, exposure, section="0"):
    """Return the picture of a product without its head, and its pixels per pixel of the image."""
    found = full_pictures._find(survey.settings, exposure, section, product)
    picture = np.asarray(drawings.DRAWINGS[product](found.section).picture)
    return picture, picture.shape[1] / SIZE


def truth(survey, exposure, kind, section="0"):
    """Return what is true of the objects of a kind on a section, the brightest first."""
    rows = survey.truth.epochs
    rows = rows[[str(f).startswith(exposure) for f in rows["file"]]]
    rows = rows[(rows["section"].astype(str) == section) & (rows["kind"] == kind)]
    rows = rows[(np.abs(rows["x"] - SIZE / 2) < 200) & (np.abs(rows["y"] - SIZE / 2) < 200)]
    rows = rows[~rows["saturated"] & ~rows["on_masked"]]
    return rows[np.argsort(-rows["flux_e"])]


def ringed(picture, scale, x, y, color, within_pix=30):
    """Tell whether there is a circle of a colour around an image position: on all four sides of it."""
    column, row = (x + 0.5) * scale, picture.shape[0] - (y + 0.5) * scale
    there = np.argwhere((picture == color).all(axis=2)) - (row, column)
    there = there[np.hypot(*there.T) < within_pix * scale]
    quarters = np.unique(np.floor(np.arctan2(there[:, 0], there[:, 1]) / (np.pi / 2)))
    return len(quarters) == 4 and np.hypot(*there.T).min() > 2 * scale


@pytest.mark.parametrize("product", STEP_NAMES)
def test_every_product_has_a_picture(processed, product):
    exposure = processed.science[-1]
    picture = decode(chain.full_picture(processed.settings, exposure, "0", product))
    assert min(picture.shape[:2]) > 200
    assert 0.005 < np.mean(picture < 128) < 0.98
    version = chain.picture_version(processed.settings, exposure, "0", product)
    assert version == chain.picture_version(processed.settings, exposure, "0", product)
    small = decode(chain.small_picture(processed.settings, exposure, "0", product))
    assert min(small.shape[:2]) > 100


def test_stars_are_circled_where_they_are(processed):
    exposure = processed.science[-1]
    picture, scale = drawn(processed, "image", exposure)
    assert scale == 2
    stars = truth(processed, exposure, "star")[:5]
    assert all(ringed(picture, scale, s["x"], s["y"], drawings.STAR) for s in stars)
    # Where nothing shines there is no circle.
    x, y = np.mgrid[40:480:20, 40:480:20].reshape(2, -1)
    everything = processed.truth.epochs
    everything = everything[[str(f).startswith(exposure) for f in everything["file"]]]
    apart = np.hypot(x[:, None] - np.array(everything["x"]), y[:, None] - np.array(everything["y"])).min(
        axis=1
    )
    empty = np.argmax(apart)
    assert not ringed(picture, scale, x[empty], y[empty], drawings.STAR, within_pix=15)


def test_transients_are_circled_in_the_difference_and_not_in_the_reference(processed):
    exposure = processed.science[-1]
    transient = truth(processed, exposure, "transient")[0]
    place = transient["x"], transient["y"]
    picture, scale = drawn(processed, "detections", exposure)
    assert ringed(picture, scale, *place, drawings.BRIGHTER)
    assert not ringed(picture, scale, *place, drawings.FAINTER)
    # White in the difference, of which grey is zero.
    row, column = round(picture.shape[0] - (place[1] + 0.5) * scale), round((place[0] + 0.5) * scale)
    assert picture[row, column].min() > 180
    assert 110 < np.median(picture) < 145


def test_what_is_not_there_is_told_by_name(processed):
    first, last = processed.science[0], processed.science[-1]
    for asked, words in {
        (last, "0", "photographs"): "no product is called 'photographs'",
        ("demo_of_nobody", "0", "image"): "not in the database",
        (last, "17", "image"): "no such section",
        (first, "0", "subtraction"): "which stopped: ",
        (first, "0", "detections"): "has not been made",
    }.items():
        for ask in (chain.full_picture, chain.picture_version):
            with pytest.raises(NotFoundError, match=words):
                ask(processed.settings, *asked)
    other = processed.changed(extract={"detection_sigma": 7.0})
    assert chain.full_picture(other, last, "0", "image")
    with pytest.raises(NotFoundError, match="source_list has not been made under the present settings"):
        chain.full_picture(other, last, "0", "source_list")


def test_pictures_follow_what_is_made_anew_and_tell_what_is_lost(own):
    exposure = own.science[-1]
    before = {p: chain.picture_version(own.settings, exposure, "1", p) for p in THROUGH_ZERO_POINT}
    own.walk(exposure, "1", ("zero_point",), redo=True)
    after = {p: chain.picture_version(own.settings, exposure, "1", p) for p in THROUGH_ZERO_POINT}
    assert [p for p in before if before[p] != after[p]] == ["zero_point"]
    for path in (own.settings.data_root / "demo").rglob(f"{exposure}/1/image_*"):
        path.unlink()
    with pytest.raises(NotFoundError, match=r"section 1: FileNotFoundError: .*restore the file"):
        chain.full_picture(own.settings, exposure, "1", "image")
    assert chain.full_picture(own.settings, exposure, "1", "world_coordinates")


def test_small_pictures_fit_into_the_event_log(processed):
    root = Path(processed.settings.data_root)
    found = list(root.rglob("*_preview_*.png"))
    assert len(found) >= 2 * len(SECTIONS) * len(STEP_NAMES)
    assert max(path.stat().st_size for path in found) <= 10_000


def test_bright_stars_lie_on_the_solution_that_is_drawn(processed):
    """The zero point refers to a star of some colour: the colour term adds nothing there."""
    for exposure in processed.science[2:]:
        section = full_pictures._find(processed.settings, exposure, "0", "zero_point").section
        parts = load.sources(section), load.wcs(section), catalog_stars(section), load.zero_point(section)
        off = []
        for color in (PhotometryParams().reference_color, 0.0):
            stars = zero_point_residuals(*parts, color)
            off.append(np.median((stars.residual - stars.expected)[stars.error < 0.015]))
        assert abs(off[0]) < 0.006
        assert abs(off[1]) > 0.01


def test_every_step_tells_the_numbers_that_one_plots_over_partitions(processed):
    wanted = {
        "source_list": {"fwhm_pix", "sky_e", "sky_rms_e", "n_sources"},
        "world_coordinates": {"fwhm_arcsec", "rms_mas", "n_matched"},
        "zero_point": {"zp", "zp_err", "limiting_mag", "zp_stars"},
        "subtraction": {"score_sigma", "reference_coverage"},
        "detections": {"limiting_mag", "n_detections"},
        "cutouts": {"n_cutouts"},
        "measurement": {"n_measurements", "n_good"},
        "forced_photometry": {"n_fluxes"},
    }
    rows = chain.status(processed.settings, [processed.science[-1]])
    assert {row.step for row in rows} == set(STEP_NAMES)
    for row in rows:
        assert wanted.get(row.step, set()) | {"seconds", "peak_mb"} <= row.metrics.keys()
        assert all(type(value) is float for value in row.metrics.values())


def test_nights_are_listed_the_last_first(processed):
    rows = chain.nights(processed.settings)
    assert [row.night for row in rows] == sorted({row.night for row in rows}, reverse=True)
    assert sum(row.n_exposures for row in rows) == len(processed.science)
