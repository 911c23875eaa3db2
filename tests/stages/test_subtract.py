import numpy as np
import pytest

from seechange_core.errors import NoReference
from seechange_core.flags import PixelFlag
from seechange_core.frames import Box, WcsSolution
from seechange_core.numerics.peaks import local_maxima
from seechange_core.numerics.psf import evaluate
from seechange_core.numerics.psf_fit import fit
from seechange_core.stages.subtract import SubtractParams, _strips, subtract

from dataclasses import replace  # isort: skip

DITHER = {"rotation_deg": 0.3, "shift": (13.37, -8.61)}


class Epochs:
    """A new image with transients, a deeper reference of other seeing, and what came of subtracting them."""

    def __init__(self, make_sky, make_wcs, seed, new_fwhm, ref_fwhm, params=None, **sky):
        self.sky = make_sky(seed=seed, **sky)
        side = self.sky.side
        self.new = self.sky.image(new_fwhm, transients=True, label="new")
        self.ref = self.sky.image(ref_fwhm, make_wcs(side, **DITHER), zp=24.8, gain=5.0, label="ref")
        self.sub = subtract(self.new, [self.ref], params or SubtractParams())
        self.truth = self.sky.transient_fluxes(self.new.psf)

    def pulls(self):
        """Fluxes forced at the true places, over their errors; the transient's own photons are added."""
        image, psf = self.sub.image, self.sub.psf
        zero = np.zeros(len(self.truth))
        x, y = self.sky.tx, self.sky.ty
        fits = fit(image.data, image.weight, psf, x, y, zero, radius_pix=2 * psf.fwhm_pix, gain=np.inf)
        p = evaluate(self.new.psf, x, y).astype(float)
        own = self.truth * np.sum(p**3, (1, 2)) / np.sum(p**2, (1, 2)) ** 2
        return (fits.flux - self.truth) / np.sqrt(fits.flux_err**2 + own + (psf.floor * self.truth) ** 2)


@pytest.fixture(scope="module")
def epochs(make_sky, make_wcs):
    pairs = [(5.0, 4.0), (4.0, 5.0), (5.0, 4.2), (3.8, 5.2), (4.4, 4.4), (2.6, 3.2)]
    return [Epochs(make_sky, make_wcs, seed, *pair) for seed, pair in enumerate(pairs, start=1)]


def test_blank_sky_is_white_with_unit_noise(epochs):
    for e in epochs:
        blank = e.sky.blank() & (e.sub.image.weight > 0)
        pixels = e.sub.image.data * np.sqrt(e.sub.image.weight)
        assert np.std(pixels[blank]) == pytest.approx(1, abs=0.012)
        assert np.std(e.sub.score[blank]) == pytest.approx(1, abs=0.03)
        for lag in ((0, 1), (1, 0), (1, 1), (0, 2)):
            both = blank[: -lag[0] or None, : -lag[1] or None] & blank[lag[0] :, lag[1] :]
            product = pixels[: -lag[0] or None, : -lag[1] or None] * pixels[lag[0] :, lag[1] :]
            assert abs(np.mean(product[both])) < 0.015


@pytest.mark.parametrize("match_stars", [True, False])
def test_stars_vanish_from_images_with_opposite_tilts(epochs, tilted, match_stars):
    """The transients keep the electrons of the new image, which are more on its right."""
    e = epochs[0]
    params = SubtractParams(match_stars=match_stars)
    plain = subtract(e.new, [e.ref], params)
    sub = subtract(tilted(e.new, 0.05), [tilted(e.ref, -0.05)], params)
    y, x = np.nonzero(np.abs(sub.score) > 5.5)
    assert not e.sky.static(x, y).any()
    x, y = e.sky.tx, e.sky.ty
    bright = (e.sky.snr > 30) & (np.abs(x / (e.sky.side - 1) - 0.5) < 0.48)
    zero, reach = np.zeros(len(x)), 2 * sub.psf.fwhm_pix
    flux = [
        fit(s.image.data, s.image.weight, s.psf, x, y, zero, radius_pix=reach, gain=np.inf).flux
        for s in (sub, plain)
    ]
    expected = 10 ** (0.4 * 0.05 * (2 * x / (e.sky.side - 1) - 1))
    ratio = flux[0][bright] / flux[1][bright] / expected[bright]
    assert np.median(np.abs(ratio - 1)) < 0.001
    assert np.max(np.abs(ratio - 1)) < 0.008
    assert np.ptp(expected[bright]) > 0.04


def test_score_in_blank_sky_over_all_fields(epochs):
    pooled = np.concatenate([e.sub.score[e.sky.blank() & (e.sub.image.weight > 0)] for e in epochs])
    assert np.std(pooled) == pytest.approx(1, abs=0.02)
    assert abs(np.mean(pooled)) < 0.05


def test_noise_stays_right_to_the_rim(epochs):
    rim = []
    for e in epochs:
        blank = e.sky.blank() & (e.sub.image.weight > 0)
        blank[12:-12, 12:-12] = False
        rim.append((e.sub.image.data * np.sqrt(e.sub.image.weight))[blank])
    # Interpolated noise is a few percent louder where pixels coincide, and the rim sees few of the phases.
    assert np.std(np.concatenate(rim)) == pytest.approx(1, abs=0.05)


def test_scores_stay_right_to_the_rim(epochs):
    rim = []
    for e in epochs:
        blank = e.sky.blank() & (e.sub.score != 0)
        blank[2:-2, 2:-2] = False
        rim.append(e.sub.score[blank])
    # 3000 independent elements of sky; carried on beyond the rim as it was, its noise was 1.2 to 1.3.
    assert np.std(np.concatenate(rim)) == pytest.approx(1, abs=0.06)


def test_strips_hold_their_holes_and_rings_of_stars_are_none():
    thin = np.zeros((120, 160), bool)
    thin[:, :45] = True
    y, x = np.indices(thin.shape)
    in_strip, far = np.hypot(y - 60, x - 25), np.hypot(y - 60, x - 110)
    thin[in_strip < 6] = False
    thin[(far > 8) & (far < 11)] = True
    strips = _strips(thin, 4.2)
    assert strips[in_strip < 6].all()
    assert strips[:, :45].all()
    assert not strips[:, 60:].any()


def test_stars_of_another_width_where_one_image_made_the_reference_are_no_finds(make_sky, make_wcs):
    """At the left one of four: it has a tenth more of width than the PSF says, a quarter of the weight."""
    sky = make_sky(seed=31, side=420, n_stars=420, n_galaxies=5, n_transients=12)
    new, grid = sky.image(4.6, transients=True), make_wcs(420, **DITHER)
    ref, wide = (sky.image(fwhm, grid, zp=24.8, gain=5.0) for fwhm in (4.0, 4.4))
    left = (slice(None), slice(0, 110))
    data, weight = ref.image.data.copy(), ref.image.weight.copy()
    data[left] = wide.image.data[left]
    weight[left] /= 4
    data[left] += sky.rng.normal(0, np.sqrt(3 / ref.image.weight[left]))
    sub = subtract(new, [replace(ref, image=replace(ref.image, data=data, weight=weight))], SubtractParams())
    peaks = [local_maxima(sign * sub.score, 5.5) for sign in (1, -1)]
    assert sum(int(np.sum(sky.static(p.x, p.y))) for p in peaks) <= 1
    # Elsewhere as much as ever is seen.
    bright = (sky.snr > 8) & (sky.tx > 150)
    score = sub.score[np.rint(sky.ty[bright]).astype(int), np.rint(sky.tx[bright]).astype(int)]
    assert np.all(score > 5)


@pytest.mark.parametrize(("new_fwhm", "ref_fwhm"), [(5.0, 4.0), (4.0, 5.0)])
def test_sources_are_seen_up_to_the_edge_of_the_reference(new_fwhm, ref_fwhm, make_sky, make_wcs):
    """The reference ends at column 60; of what lies on that edge half is seen."""

    def scores(transients):
        new = sky.image(new_fwhm, transients=transients)
        ref = sky.image(ref_fwhm, make_wcs(320, shift=(-60.0, 0.0)))
        return subtract(new, [ref], SubtractParams()).score

    sky = make_sky(seed=70, side=320, n_stars=45, n_galaxies=1, n_transients=1)
    sky.tx, sky.ty = np.array([300.0]), np.array([20.0])
    score = scores(transients=False)
    assert not score[:, :59].any()
    strip = sky.blank() & (score != 0)
    strip[:, 70:] = False
    assert strip.sum() > 1000
    assert np.std(score[strip]) == pytest.approx(1, abs=0.15)
    sky.tx, sky.ty = 60 + np.tile([1.0, 2.5, 4.0], 5), np.linspace(20, 300, 15)
    sky.snr = np.full(15, 15.0)
    sky.flux[np.hypot(sky.x[:, None] - sky.tx, sky.y[:, None] - sky.ty).min(axis=1) < 25] = 10.0
    score = scores(transients=True)
    seen = np.array([score[y - 2 : y + 3, 60:66].max() for y in np.round(sky.ty).astype(int)])
    assert np.mean(seen > 5) > 0.9


def test_static_stars_leave_nothing(epochs):
    worst, at = [], []
    for e in epochs:
        static = e.sky.static(e.sky.x, e.sky.y, radius=25)
        inside = static & (np.minimum(e.sky.x, e.sky.y) > 3) & (np.maximum(e.sky.x, e.sky.y) < e.sky.side - 4)
        for x, y in zip(
            np.rint(e.sky.x[inside]).astype(int), np.rint(e.sky.y[inside]).astype(int), strict=True
        ):
            worst.append(np.abs(e.sub.score[y - 2 : y + 3, x - 2 : x + 3]).max())
            at.append(e.sub.score[y, x])
    assert len(worst) > 800
    assert max(worst) < 5.5
    assert np.std(at) == pytest.approx(1, abs=0.1)


def test_forced_flux_pulls(epochs):
    pulls = np.concatenate([e.pulls() for e in epochs])
    on_galaxy = np.concatenate([e.sky.on_galaxy for e in epochs])
    pulls, on_galaxy = pulls[np.isfinite(pulls)], on_galaxy[np.isfinite(pulls)]
    assert len(pulls) > 350
    assert on_galaxy.sum() > 100
    assert abs(np.median(pulls)) < 0.15
    assert np.std(pulls) == pytest.approx(1, abs=0.1)
    assert np.std(pulls[on_galaxy]) == pytest.approx(1, abs=0.18)


def test_forced_fluxes_where_nothing_is(epochs):
    pulls = []
    for e in epochs:
        image, psf = e.sub.image, e.sub.psf
        y, x = np.nonzero(e.sky.blank() & (image.weight > 0))
        pick = np.random.default_rng(1).choice(len(x), 300, replace=False)
        x, y = x[pick].astype(float), y[pick].astype(float)
        fits = fit(
            image.data, image.weight, psf, x, y, np.zeros(300), radius_pix=2 * psf.fwhm_pix, gain=np.inf
        )
        pulls.append(fits.flux / fits.flux_err)
    assert np.std(np.concatenate(pulls)) == pytest.approx(1, abs=0.05)
    assert abs(np.mean(np.concatenate(pulls))) < 0.08


def test_difference_psf_is_normalised_and_varies(epochs):
    for e in epochs:
        stamps = evaluate(e.sub.psf, [50.0, e.sky.side - 50.0], [50.0, e.sky.side - 50.0])
        assert stamps.sum(axis=(1, 2)) == pytest.approx(1, abs=0.004)
        assert np.abs(stamps[0] - stamps[1]).max() > 0.01 * stamps.max()


def test_registration_and_flux_scale_are_measured(make_sky, make_wcs):
    sky = make_sky(seed=21, n_stars=900, n_transients=10)
    new = sky.image(4.5)
    off = make_wcs(sky.side, **DITHER)
    ref = sky.image(4.0, off, zp=24.8, gain=5.0)
    # The reference's solution is 0.4 pixel off and its zero point 5 % wrong.
    cards = dict(off.cards) | {"CRPIX1": off.cards["CRPIX1"] + 0.4}
    wrong = replace(ref, wcs=WcsSolution(cards, off.shape), zero_point=replace(ref.zero_point, zp=24.85))
    good, bad = subtract(new, [ref], SubtractParams()), subtract(new, [wrong], SubtractParams())
    assert np.abs(bad.score).max() < 6.0
    assert np.std(good.score - bad.score) < 0.1
    blind = subtract(new, [wrong], SubtractParams(match_stars=False))
    # What it leaves of stars is counted as noise there.
    bright = (sky.flux > 2e4) & (np.minimum(sky.x, sky.y) > 25) & (np.maximum(sky.x, sky.y) < sky.side - 26)
    at = np.rint(sky.y[bright]).astype(int), np.rint(sky.x[bright]).astype(int)
    assert np.median(good.image.weight[at] / blind.image.weight[at]) > 5
    assert np.mean(np.abs(blind.score) > 5) < 1e-4


def test_saturated_stars_don_t_ring(make_sky, make_wcs):
    for fwhms in ((5.0, 4.0), (4.0, 5.0)):
        sky = make_sky(seed=3, n_stars=600, n_transients=5)
        pair = [sky.image(fwhms[0]), sky.image(fwhms[1], make_wcs(sky.side, **DITHER), zp=24.8, gain=5.0)]
        cut = []
        for image in pair:
            hot = image.image.data > 5000
            frame = replace(
                image.image,
                data=np.minimum(image.image.data, np.float32(5000)),
                weight=np.where(hot, np.float32(0), image.image.weight),
                flags=np.where(hot, np.uint16(PixelFlag.SATURATED), np.uint16(0)),
            )
            cut.append(replace(image, image=frame))
        assert np.count_nonzero(cut[0].image.flags) > 100
        sub = subtract(cut[0], cut[1:], SubtractParams())
        assert np.abs(sub.score).max() < 5.5
        assert np.all(sub.score[cut[0].image.flags > 0] == 0)


def test_masked_pixels_are_left_out_and_hurt_no_neighbour(make_sky, make_wcs):
    sky = make_sky(seed=4, n_transients=5)
    new, ref = sky.image(4.6), sky.image(4.0, make_wcs(sky.side, **DITHER), zp=24.8, gain=5.0)
    holes = np.random.default_rng(2).random(new.image.shape) < 0.004
    holes[:, 200:202] = True
    frame = new.image
    data = np.where(holes, np.nan, frame.data).astype(np.float32)
    flags = np.where(holes, np.uint16(PixelFlag.BAD_PIXEL), np.uint16(0))
    pitted = replace(
        new, image=replace(frame, data=data, weight=np.where(holes, np.float32(0), frame.weight), flags=flags)
    )
    sub, whole = subtract(pitted, [ref], SubtractParams()), subtract(new, [ref], SubtractParams())
    bridged = holes & (sub.score != 0)
    assert np.count_nonzero(bridged) > 500
    assert np.std(sub.score[bridged]) == pytest.approx(1, abs=0.15)
    assert np.all(sub.image.weight[holes] == 0)
    assert np.all(np.isfinite(sub.image.data))
    extra = (sub.score == 0) & ~holes & (whole.score != 0)
    assert extra.mean() < 1e-3
    assert np.abs(sub.score).max() < 5.7


def test_a_source_behind_a_ray_or_a_bad_column_is_one_peak(make_sky, make_wcs):
    sky = make_sky(seed=7, n_transients=30)
    new = sky.image(4.6, transients=True)
    ref = sky.image(4.0, make_wcs(sky.side, **DITHER), zp=24.8, gain=5.0)
    y, x = np.rint(sky.ty).astype(int), np.rint(sky.tx).astype(int)
    struck = np.zeros(new.image.shape, bool)
    for k in range(len(x)):
        struck[max(0, y[k] - 12) : y[k] + 13, x[k]] = True
    frame = new.image
    flags = np.where(struck, np.uint16(PixelFlag.COSMIC_RAY), np.uint16(0))
    flags[:, x[0]] = np.where(struck[:, x[0]], np.uint16(PixelFlag.BAD_PIXEL), flags[:, x[0]])
    hit = replace(frame, data=np.where(struck, np.float32(6e4), frame.data), flags=flags)
    hit = replace(hit, weight=np.where(struck, np.float32(0), frame.weight))
    sub, whole = (subtract(image, [ref], SubtractParams()) for image in (replace(new, image=hit), new))
    assert np.all(sub.image.weight[struck] == 0)
    inner = (np.minimum(x, y) > 15) & (np.maximum(x, y) < sky.side - 16)
    tested = 0
    for v, u in zip(y[inner], x[inner], strict=True):
        best = whole.score[v - 1 : v + 2, u - 1 : u + 2].max()
        if best < 12:
            continue
        found = local_maxima(sub.score[v - 12 : v + 13, u - 12 : u + 13], max(5.0, 0.1 * best))
        assert len(found.x) == 1
        assert 0.6 * best < found.value[0] < 1.1 * best
        tested += 1
    assert tested > 5


def test_stitches_two_references_into_one(make_sky, make_wcs):
    sky = make_sky(seed=5, side=384, n_stars=120, n_galaxies=10, n_transients=4)
    new, ref = sky.image(4.6), sky.image(4.0, make_wcs(384, **DITHER), zp=24.8, gain=5.0)
    left, right = _piece(ref, 0, 230), _piece(ref, 170, 384)
    both, one = subtract(new, [left, right], SubtractParams()), subtract(new, [ref], SubtractParams())
    assert both.reference_coverage == pytest.approx(one.reference_coverage, abs=0.002)
    assert np.std(both.score - one.score) < 0.1


def _piece(image, first, last):
    rows = Box(0, image.image.shape[0], first, last).slices
    frame = image.image
    cards = dict(image.wcs.cards) | {"CRPIX1": image.wcs.cards["CRPIX1"] - first}
    shape = frame.data[rows].shape
    return replace(
        image,
        image=replace(frame, data=frame.data[rows], weight=frame.weight[rows], flags=frame.flags[rows]),
        wcs=WcsSolution(cards, shape),
        background=replace(image.background, shape=shape),
        psf=replace(image.psf, centre=(image.psf.centre[0] - first, image.psf.centre[1])),
    )


def test_too_little_reference_is_a_stop_with_the_fraction(make_sky, make_wcs):
    sky = make_sky(seed=6, side=256, n_stars=60, n_galaxies=3, n_transients=3)
    new, ref = sky.image(4.6), sky.image(4.0, make_wcs(256, shift=(0.0, 180.0)))
    with pytest.raises(NoReference, match=r"cover 0\.29\d of the usable pixels"):
        subtract(new, [ref], SubtractParams())
    with pytest.raises(NoReference, match=r"cover 0\.000"):
        subtract(new, [], SubtractParams())
    partial = subtract(new, [ref], SubtractParams(min_coverage=0.2))
    assert partial.reference_coverage == pytest.approx(0.297, abs=0.01)
    assert np.all(partial.score[78:] == 0)


def test_small_and_odd_shapes(make_sky, make_wcs):
    sky = make_sky(seed=7, side=256, n_stars=60, n_galaxies=3, n_transients=3)
    new, ref = sky.image(4.6), sky.image(4.0, make_wcs(256, **DITHER))
    for last in (40, 131, 255):
        piece = _piece(new, 0, last)
        sub = subtract(piece, [ref], SubtractParams())
        assert sub.score.shape == sub.image.data.shape == sub.reference.shape == (256, last)
        assert np.abs(sub.score).max() < 6


def test_inputs_stay_as_they_were(make_sky, make_wcs):
    sky = make_sky(seed=8, side=256, n_stars=60, n_galaxies=3, n_transients=3)
    images = [sky.image(4.6), sky.image(4.0, make_wcs(256, **DITHER))]
    before = [(i.image.data.copy(), i.image.weight.copy(), i.image.flags.copy()) for i in images]
    first = subtract(images[0], images[1:], SubtractParams())
    again = subtract(images[0], images[1:], SubtractParams())
    for image, arrays in zip(images, before, strict=True):
        for name, array in zip(("data", "weight", "flags"), arrays, strict=True):
            assert np.array_equal(getattr(image.image, name), array)
    assert np.array_equal(first.score, again.score)
