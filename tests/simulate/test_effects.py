"""Effects of the detectors, recovered from noiseless frames, against the truth that is told about them."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from seechange_core.simulate import (
    Sky,
    fringe_pattern,
    make_world,
    simulate_calibration,
    simulate_section,
    true_crosstalk,
    true_illumination,
    true_linearity,
    true_sky_e,
    write_calibrators,
)
from seechange_core.simulate.calibration import dome_illumination, twilight_level_e
from seechange_core.simulate.camera import Camera
from seechange_core.simulate.charge import read_out
from seechange_core.simulate.sky import make_table

WINDOW = (256, 128)
#: Two levels that are each rounded to an ADU differ by as much.
ROUNDING_ADU = 1.0


@pytest.fixture(scope="module")
def ideal(perfect):
    """A function that makes options of a perfect N4 and S4 with some effects on."""
    return lambda **on: perfect(
        **{
            "camera": "decam", "section_names": ("N4", "S4"), "window_pix": WINDOW, "transients": 0,
            "variables": 0, "asteroids": 0, "star_density": 0.0, "galaxy_density": 0.0, **on,
        }
    )  # fmt: skip


def signals(camera, section, raw):
    """ADU above the overscan of the left and the right amplifier, each (H, W / 2) as on the CCD."""
    return [
        raw[area.data.slices].astype(float) - raw[area.overscan.slices].astype(float).mean()
        for area in camera.raw_areas(section)
    ]


def electrons(camera, section, raw):
    return np.hstack(
        [s * a.gain for s, a in zip(signals(camera, section, raw), camera.amplifiers(section), strict=True)]
    )


@pytest.mark.parametrize("section", ["N4", "S4"])
@pytest.mark.parametrize("source", [0, 1])
def test_crosstalk_is_a_mirrored_ghost_of_the_told_size(ideal, section, source):
    """A bright patch in one half: at the same distance from the other end the other half has its share."""
    camera = Camera(ideal(crosstalk=0.02))
    charge = np.zeros(camera.shape, np.float32)
    patch = (slice(30, 60), slice(20, 40)) if source == 0 else (slice(30, 60), slice(-40, -20))
    charge[patch] = 100_000.0
    halves = signals(camera, section, read_out(charge, camera.detector(section), np.random.default_rng(1)))
    ghost = np.zeros(WINDOW[::-1])
    ghost[patch] = 1.0
    lit, dark = np.hsplit(ghost, 2)[source], np.hsplit(ghost[:, ::-1], 2)[1 - source]
    bright = halves[source][lit > 0].mean()
    coefficient = true_crosstalk(camera, section)[1 - source, source]
    assert 0.005 < abs(coefficient) < 0.04
    assert (coefficient < 0) == (camera.ccd(section).amplifiers[source] == "A")
    assert halves[1 - source][dark > 0].mean() / bright == pytest.approx(
        coefficient, abs=ROUNDING_ADU / bright
    )
    assert np.abs(halves[1 - source][dark == 0]).max() <= ROUNDING_ADU


def test_linearity_tables_tell_what_amplifiers_do(ideal):
    """A ramp of charge: what is read, looked up in the table, is what a linear amplifier would have read."""
    camera = Camera(ideal(nonlinearity=True, window_pix=(512, 128)))
    ramp = np.tile(np.linspace(0, 150_000, 256, dtype=np.float32), (128, 2))
    halves = signals(camera, "N4", read_out(ramp, camera.detector("N4"), np.random.default_rng(1)))
    measured, true = true_linearity(camera, "N4")
    curvatures = []
    for side, amplifier in enumerate(camera.amplifiers("N4")):
        assert (measured[side, 0], true[side, 0]) == (0, 0)
        assert (np.diff(measured[side]) > 0).all()
        straight = np.interp(halves[side][0], measured[side], true[side])
        assert straight == pytest.approx(
            np.linspace(0, 150_000, 256) / amplifier.gain, abs=1.05 * ROUNDING_ADU
        )
        curvatures.append(amplifier.curvature * amplifier.gain * amplifier.saturation_adu)
    assert curvatures[0] != curvatures[1]
    assert all(0.01 <= c <= 0.03 for c in curvatures)


def test_fringes_are_proportional_to_the_sky_and_to_nothing_else(ideal):
    """Noiseless sky, at two depths: relative to its level it is the pattern; a star's light has none."""
    for seconds in (100.0, 400.0):
        options = ideal(fringing=0.02, exposure_time_s=seconds)
        world = make_world(options)
        camera, seen = world.camera, world.observations[0]
        image = electrons(camera, "N4", simulate_section(camera, world.sky, seen, "N4").raw)
        pattern = fringe_pattern(camera, "N4")
        assert np.median(pattern) == pytest.approx(0, abs=1e-12)
        assert 0.01 < pattern.max() < 0.04
        level = true_sky_e(camera, seen, "N4") / (1 + pattern)
        assert image / level - 1 == pytest.approx(pattern, abs=4.5 * ROUNDING_ADU / level.min())
    ra, dec = seen.sky_map(camera, "N4").to_sky([128.0], [64.0])
    star = make_table(1, id=0, kind="star", ra=ra, dec=dec, epoch_mjd=seen.mjd_start, mag_g=17.0, mag_r=16.3,
                      mag_i=16.0)  # fmt: skip
    made = simulate_section(camera, Sky(star, seen.mjd_start), seen, "N4")
    light = electrons(camera, "N4", made.raw) - image
    y, x = np.mgrid[:128, :256]
    near = np.hypot(x - 128, y - 64) < 40
    share = seen.psf_field(camera).enclosed(40.0)
    assert light[near].sum() == pytest.approx(share * made.truth["flux_e"][0], rel=2e-3)


def test_fringes_are_in_science_exposures_only_and_part_of_the_ccd(ideal):
    plain, fringed = (Camera(ideal(fringing=f)) for f in (0.0, 0.02))
    for kind in ("flat", "twilight_flat"):
        frames = [simulate_calibration(c, kind, 0, "N4") for c in (plain, fringed)]
        assert np.array_equal(*frames)
    wide = Camera(ideal(fringing=0.02, window_pix=(512, 256)))
    inner = fringe_pattern(wide, "N4")[64:192, 128:384]
    offset = inner - fringe_pattern(fringed, "N4")
    assert np.ptp(offset) < 1e-12
    assert not np.allclose(fringe_pattern(wide, "N4"), fringe_pattern(wide, "S4"))


def test_twilight_over_dome_is_the_illumination(ideal):
    """The ratio of two noiseless flats is the truth: twilight shows the response alone, as the sky does."""
    camera = Camera(ideal(flat_gradient=0.1, flat_radial=0.3, flat_structure=True, edge_roll_off=True,
                          section_names=("S29",), window_pix=(512, 512)))  # fmt: skip
    dome, twilight = (
        electrons(camera, "S29", simulate_calibration(camera, kind, 0, "S29"))
        for kind in ("flat", "twilight_flat")
    )
    # Away from stars.
    y, x = np.nonzero(np.abs(twilight / camera.detector("S29").response - np.median(twilight)) < 12)
    ratio = (twilight / dome)[y, x]
    truth = true_illumination(camera, "S29")
    assert np.median(truth) == pytest.approx(1)
    assert 0.01 < np.ptp(truth) < 0.1
    assert ratio / np.median(ratio) == pytest.approx(truth[y, x] / np.median(truth[y, x]), abs=5e-4)
    assert len(y) > 0.5 * truth.size
    # The dome lights the middle more than a corner.
    whole = Camera(ideal(flat_radial=0.05))
    assert dome_illumination(whole, "N4").mean() > 1.02
    corner = Camera(ideal(flat_radial=0.05, section_names=("S29",)))
    assert dome_illumination(corner, "S29").mean() < 1.0


def test_twilight_flats_fade_and_hold_stars_at_other_places(options):
    camera = Camera(options(camera="decam", section_names=("N4",), window_pix=(1024, 512), cosmic_rays=0.0,
                            bad_pixels=False, flat_structure=False, edge_roll_off=False))  # fmt: skip
    frames = [
        electrons(camera, "N4", simulate_calibration(camera, "twilight_flat", i, "N4")) for i in range(3)
    ]
    levels = np.array([np.median(f) for f in frames])
    expected = np.array([twilight_level_e(camera, i) for i in range(3)])
    assert levels / expected == pytest.approx(camera.detector("N4").throughput, rel=0.01)
    assert (np.diff(expected) < 0).all()
    bright = [f > m + 8 * np.sqrt(m) for f, m in zip(frames, levels, strict=True)]
    assert all(10 < b.sum() < 20_000 for b in bright)
    assert (bright[0] & bright[1]).sum() < 0.3 * bright[0].sum()


def test_a_bad_amplifier_reads_noise_and_its_neighbour_light(options):
    camera = Camera(options(camera="decam", section_names=("S4",), window_pix=WINDOW,
                            bad_amplifiers=("S4-B",), cosmic_rays=0.0))  # fmt: skip
    halves = signals(camera, "S4", simulate_calibration(camera, "flat", 0, "S4"))
    names = [a.name for a in camera.amplifiers("S4")]
    level = dict(zip(names, (np.median(h) for h in halves), strict=True))
    assert abs(level["B"]) < 20
    assert level["A"] > 5000


def test_amplifiers_differ_in_gain_and_say_so(ideal):
    """A level field in electrons is level only after each half's own gain."""
    camera = Camera(ideal())
    raw = simulate_calibration(camera, "flat", 0, "N4")
    left, right = (np.median(s) for s in signals(camera, "N4", raw))
    a, b = (x.gain for x in camera.amplifiers("N4"))
    assert abs(left / right - 1) > 0.005
    assert left * a == pytest.approx(right * b, abs=4.5 * ROUNDING_ADU)


def test_saturated_columns_bleed_up_and_down_to_each_amplifiers_own_well(ideal):
    camera = Camera(ideal(saturation=True))
    sides = camera.amplifiers("N4")
    assert sides[0].full_well_e != sides[1].full_well_e
    for amplifier in sides:
        assert amplifier.bias_adu < amplifier.saturation_adu < amplifier.full_well_adu < 65_536


def test_supplied_calibrators_hold_the_truth(ideal, tmp_path):
    options = ideal(crosstalk=1e-3, nonlinearity=True, fringing=0.01, flat_radial=0.03)
    camera = Camera(options)
    files = write_calibrators(tmp_path, camera)
    assert sorted(f.name for f in files) == [
        "crosstalk.ecsv",
        "fringe.fits",
        "illumination.fits",
        "linearity.ecsv",
    ]
    with fits.open(tmp_path / "fringe.fits") as hdus:
        assert [h.name for h in hdus[1:]] == ["N4", "S4"]
        assert hdus["S4"].data == pytest.approx(fringe_pattern(camera, "S4"), abs=1e-8)
        assert hdus["S4"].header["FILTER"] == "r"
    with fits.open(tmp_path / "illumination.fits") as hdus:
        assert hdus["N4"].data == pytest.approx(true_illumination(camera, "N4"), abs=1e-6)
    table = Table.read(tmp_path / "linearity.ecsv")
    rows = table[(table["section"] == "S4") & (table["amplifier"] == "A")]
    right = [a.name for a in camera.amplifiers("S4")].index("A")
    assert np.array_equal(rows["measured_adu"], true_linearity(camera, "S4")[0][right])
    table = Table.read(tmp_path / "crosstalk.ecsv")
    row = table[(table["section"] == "N4") & (table["victim"] == "B")][0]
    assert (row["source"], row["coefficient"]) == ("A", true_crosstalk(camera, "N4")[1, 0])
    assert write_calibrators(tmp_path / "none", Camera(ideal())) == []
