import numpy as np
import pytest

from seechange_core.simulate import Sky, make_world, simulate_section
from seechange_core.simulate.cameras.demo import OVERSCAN_PIX
from seechange_core.simulate.section import collect, sky_level
from seechange_core.simulate.sky import make_table


def parse(box):
    """FITS ``[x1:x2,y1:y2]`` as slices."""
    (x1, x2), (y1, y2) = (map(int, part.split(":")) for part in box.strip("[]").split(","))
    return slice(y1 - 1, y2), slice(x1 - 1, x2)


def trimmed_e(made):
    """Electrons, from the cards alone: overscan off, gain on, halves put together."""
    size = made.raw.shape[0]
    image = np.full((size, size), np.nan)
    for amplifier in "AB":
        data = made.raw[parse(made.cards[f"DATASEC{amplifier}"])].astype(float)
        bias = made.raw[parse(made.cards[f"BIASSEC{amplifier}"])].astype(float)
        image[parse(made.cards[f"CCDSEC{amplifier}"])] = (data - bias.mean()) * made.cards[f"GAIN{amplifier}"]
    return image


def section(options, sky=None, exposure=0, number=0):
    world = make_world(options)
    return simulate_section(world.camera, sky or world.sky, world.observations[exposure], number)


def empty(options):
    return options.model_copy(update={"star_density": 0.0, "galaxy_density": 0.0, "transients": 0,
                                      "variables": 0, "asteroids": 0})  # fmt: skip


def some_stars(options, n, mag):
    """A sky of `n` stars of one magnitude, well inside the first section."""
    world = make_world(options)
    view = world.observations[0].sky_map(world.camera, 0)
    places = 20 + (world.camera.width - 40) * (np.arange(n) + 0.5) / n
    ra, dec = view.to_sky(places, np.roll(places, n // 2) + 0.3)
    epoch = world.observations[0].mjd_start
    objects = make_table(n, id=np.arange(n), kind="star", ra=ra, dec=dec, epoch_mjd=epoch,
                         mag_g=mag + 0.7, mag_r=mag, mag_i=mag - 0.3)  # fmt: skip
    return Sky(objects, epoch)


def test_layout_of_the_raw_array(perfect):
    """Boxes of the cards tile the raw array and the trimmed image."""
    made = section(perfect())
    assert made.raw.shape == (256, 256 + 2 * OVERSCAN_PIX)
    assert made.raw.dtype == np.uint16
    covered, trimmed = np.zeros(made.raw.shape, int), np.zeros((256, 256), int)
    for amplifier in "AB":
        covered[parse(made.cards[f"DATASEC{amplifier}"])] += 1
        covered[parse(made.cards[f"BIASSEC{amplifier}"])] += 1
        trimmed[parse(made.cards[f"CCDSEC{amplifier}"])] += 1
    assert (covered == 1).all()
    assert (trimmed == 1).all()


def test_photon_and_read_noise_of_each_amplifier(perfect):
    """Mean and variance of an empty field: Poisson + read noise + rounding, per amplifier, by its cards."""
    options = empty(perfect(photon_noise=True, read_noise_e=5.0, section_size_pix=512))
    made = section(options)
    level = made.summary["sky_e"]
    for amplifier in "AB":
        gain, noise = made.cards[f"GAIN{amplifier}"], made.cards[f"RDNOISE{amplifier}"]
        over = made.raw[parse(made.cards[f"BIASSEC{amplifier}"])].astype(float) * gain
        data = made.raw[parse(made.cards[f"DATASEC{amplifier}"])].astype(float) * gain
        n = data.size
        rounding = gain**2 / 12
        assert over.var() == pytest.approx(noise**2 + rounding, rel=5 * np.sqrt(2 / over.size))
        assert data.mean() - over.mean() == pytest.approx(level, abs=5 * np.sqrt(level / n + 30 / over.size))
        assert data.var() == pytest.approx(level + noise**2 + rounding, rel=5 * np.sqrt(2 / n))
    assert made.cards["GAINA"] != made.cards["GAINB"]


def test_aperture_sums_recover_the_true_fluxes_and_the_zero_point(perfect):
    options = empty(perfect())
    made = section(options, some_stars(options, 8, 16.0))
    world = make_world(options)
    light = trimmed_e(made) - sky_level(world.camera, world.observations[0], 0)
    y, x = np.mgrid[:256, :256]
    assert made.truth["flux_e"] == pytest.approx(10 ** (-0.4 * (16.0 - made.summary["zp"])))
    fraction = world.observations[0].psf_field(world.camera).enclosed(14.0)
    for row in made.truth:
        aperture = np.hypot(x - row["x"], y - row["y"]) < 14.0
        assert light[aperture].sum() == pytest.approx(fraction * row["flux_e"], rel=4e-3)


@pytest.mark.parametrize("parity", [1, -1])
def test_positions_go_through_the_true_world_coordinates(options, parity):
    """Centroids of bright stars, everything switched on but parity, lie where the truth says."""
    chosen = empty(options(parity=parity, cosmic_rays=0.0, satellites=0.0, bad_pixels=False))
    made = section(chosen, some_stars(chosen, 6, 16.5))
    image = trimmed_e(made)
    world = make_world(chosen)
    x, _y = world.observations[0].sky_map(world.camera, 0).to_pixels(made.truth["ra"], made.truth["dec"])
    assert np.allclose(x, made.truth["x"])
    for row in made.truth:
        i, j = round(row["x"]), round(row["y"])
        box = image[j - 6 : j + 7, i - 6 : i + 7]
        local = np.median(image[j - 18 : j + 19, i - 18 : i + 19])
        gy, gx = np.mgrid[-6:7, -6:7]
        light = np.maximum(box - local, 0)
        assert (light * gx).sum() / light.sum() + i == pytest.approx(row["x"], abs=0.1)
        assert (light * gy).sum() / light.sum() + j == pytest.approx(row["y"], abs=0.1)


def test_flat_fielded_flux_does_not_depend_on_the_response(perfect):
    """With vignetting and edges, collected light over the true flat is what the truth says."""
    options = empty(perfect(flat_structure=True, edge_roll_off=True))
    world = make_world(options)
    made = section(options, some_stars(options, 8, 16.0))
    detector = world.camera.detector(0)
    assert np.median(detector.response) == pytest.approx(1, abs=1e-3)
    light = trimmed_e(made) / detector.response - sky_level(world.camera, world.observations[0], 0)
    y, x = np.mgrid[:256, :256]
    fraction = world.observations[0].psf_field(world.camera).enclosed(14.0)
    for row in made.truth:
        aperture = np.hypot(x - row["x"], y - row["y"]) < 14.0
        assert light[aperture].sum() == pytest.approx(fraction * row["flux_e"], rel=6e-3)


SWITCHES = {
    "photon_noise": True, "read_noise_e": 5.0, "psf_variation": True, "psf_ellipticity": True,
    "psf_aureole": True, "distortion": True, "pointing_error": True, "rotation": True, "extinction": True,
    "color_term": True, "clouds": True, "sky_gradient": True, "flat_structure": True,
    "edge_roll_off": True, "bias_structure": True, "dark_current": True, "bad_pixels": True,
    "nonlinearity": True, "cosmic_rays": 5.0, "satellites": 30.0, "saturation": True,
}  # fmt: skip


@pytest.mark.parametrize("name", SWITCHES)
def test_each_switch_changes_the_pixels(perfect, name):
    """From the perfect camera, one effect on."""
    # A telescope so large that wells overflow.
    large = {"zero_point_mag": 30.0} if name == "saturation" else {}
    off, on = perfect(**large), perfect(**large, **{name: SWITCHES[name]})
    assert not np.array_equal(section(off).raw, section(on).raw)


def test_nonlinearity_takes_two_per_cent_at_saturation(perfect):
    """A level sky near full well, by cards, with and without."""
    sky_mag = {"zero_point_mag": 31.0}
    linear, bent = (
        np.median(trimmed_e(section(empty(perfect(nonlinearity=n, **sky_mag))))) for n in (False, True)
    )
    assert 0.2 < linear / 120_000 < 1
    assert 1 - bent / linear == pytest.approx(0.02 * linear / (60_000 * 2.0), rel=0.05)


def test_moonlight_and_proper_motions_switch(perfect):
    nights = {"nights": 6, "exposures": 6, "night_gap_days": 4}
    dark, bright = (make_world(perfect(moonlight=m, **nights)).observations for m in (False, True))
    ratio = np.array([b.sky_e / d.sky_e for b, d in zip(bright, dark, strict=True)])
    assert ratio.min() >= 1
    assert ratio.max() > 1.3
    assert not np.any(make_world(perfect()).sky.objects["pmra"][:100])
    assert np.any(make_world(perfect(proper_motions=True)).sky.objects["pmra"][:100])


def test_perfect_camera_is_perfect(perfect):
    """With all effects off an empty field is one number per amplifier."""
    made = section(empty(perfect()))
    for amplifier in "AB":
        for kind in ("DATASEC", "BIASSEC"):
            assert np.ptp(made.raw[parse(made.cards[kind + amplifier])].astype(int)) == 0


def test_seeing_changes_both_ways_against_the_reference(options):
    observations = make_world(options(exposures=12, nights=4, reference_exposures=4, sections=1)).observations
    reference = np.mean([o.fwhm_pix for o in observations[:4]])
    later = np.array([o.fwhm_pix for o in observations[4:]])
    assert later.min() < 0.95 * reference
    assert later.max() > 1.05 * reference
    listed = make_world(options(seeing_arcsec=(1.0, 1.4))).observations
    assert [o.fwhm_pix * 0.27 for o in listed] == pytest.approx([1.0, 1.4])


def test_dead_section_gives_bias_and_noise_only(options):
    made = section(options(dead_sections=(0,), cosmic_rays=0.0, bad_pixels=False, dark_current=False))
    image = trimmed_e(made)
    assert abs(np.median(image)) < 20
    assert image.std() < 12
    assert not made.truth["flux_e"].any()
    assert np.isnan(made.summary["zp"])


def test_dead_pixels_collect_little_and_hot_ones_too_much(options):
    world = make_world(options())
    detector = world.camera.detector(0)
    rng = np.random.default_rng(0)
    charge = collect(np.full((256, 256), 1000.0), detector, 60.0, rng)
    assert np.median(charge[~detector.bad]) == pytest.approx(1000, rel=0.02)
    odd = charge[detector.bad]
    assert (odd < 500).any()
    assert (odd > 1100).any()
    assert 0.001 < detector.bad.mean() < 0.05


def test_asteroids_are_trailed_and_move(perfect):
    """An asteroid of 60 arcsec an hour crosses 11 pixels in three minutes, and its light all counts."""
    options = empty(perfect(exposure_time_s=180.0, cadence_min=10.0))
    world = make_world(options)
    ra, dec = world.observations[0].sky_map(world.camera, 0).to_sky([128.0], [128.0])
    speed = 60.0 * 1e3 * 24 * 365.25
    objects = make_table(1, id=0, kind="asteroid", ra=ra, dec=dec, epoch_mjd=world.observations[0].mjd_mid,
                         pmra=speed, mag_g=17.5, mag_r=17.0, mag_i=16.8)  # fmt: skip
    made = section(options, Sky(objects, world.observations[0].mjd_start))
    light = trimmed_e(made) - sky_level(world.camera, world.observations[0], 0)
    row = made.truth[0]
    assert (row["x"], row["y"]) == pytest.approx((128.0, 128.0), abs=0.01)
    j, i = np.nonzero(light > 0.2 * light.max())
    assert np.ptp(i) > np.ptp(j) + 7
    assert light[90:167, 80:177].sum() == pytest.approx(row["flux_e"], rel=0.02)


def test_truth_flags_masked_and_saturated(options):
    world = make_world(options())
    detector = world.camera.detector(0)
    y, x = (int(v[0]) for v in np.nonzero(detector.bad[40:200, 40:200]))
    view = world.observations[0].sky_map(world.camera, 0)
    ra, dec = view.to_sky([x + 40.0, 128.0], [y + 40.0, 128.0])
    objects = make_table(2, id=np.arange(2), kind="star", ra=ra, dec=dec,
                         epoch_mjd=world.observations[0].mjd_start, mag_g=[20.0, 11.0], mag_r=[20.0, 11.0],
                         mag_i=[20.0, 11.0])  # fmt: skip
    truth = section(options(), Sky(objects, world.observations[0].mjd_start)).truth
    assert truth["on_masked"][0]
    assert list(truth["saturated"]) == [False, True]
