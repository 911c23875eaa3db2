"""Detection, cutouts and measurement of changes with known truth."""

from dataclasses import fields, replace

import numpy as np
import pytest
from scipy.signal import fftconvolve
from scipy.spatial import cKDTree
from scipy.special import ndtr

from seechange_core.flags import PixelFlag, QualityFlag
from seechange_core.frames import Detections, ImageFrame, SubtractionFrame, ZeroPointSolution
from seechange_core.numerics.psf import constant, draw
from seechange_core.products.image import Image
from seechange_core.products.place import Place
from seechange_core.products.source_list import SourceList
from seechange_core.stages.cut import CutParams, cut
from seechange_core.stages.detect import DetectParams, detect, search_depth
from seechange_core.stages.judge import judge_detections
from seechange_core.stages.measure import MeasureParams, measure
from seechange_core.stages.quality_limits import DetectionLimits
from seechange_core.stages.subtract import SubtractParams, subtract
from seechange_core.storage.archive import Archive

DITHER = {"rotation_deg": 0.3, "shift": (13.37, -8.61)}


class Night:
    def __init__(self, make_sky, make_wcs, seed, new_fwhm, ref_fwhm):
        self.sky = make_sky(seed=seed, n_stars=250, n_transients=80)
        self.new = self.sky.image(new_fwhm, transients=True)
        ref = self.sky.image(ref_fwhm, make_wcs(self.sky.side, **DITHER), zp=24.8, gain=5.0)
        self.sub = subtract(self.new, [ref], SubtractParams())
        self.truth = self.sky.transient_fluxes(self.new.psf)
        self.found = detect(self.sub, DetectParams())
        self.stamps = cut(self.new, self.sub, self.found, CutParams())
        self.measured = measure(self.stamps, self.found, self.sub.psf, MeasureParams())

    def match(self, table):
        distance = np.hypot(table.x[:, None] - self.sky.tx, table.y[:, None] - self.sky.ty)
        return distance.argmin(axis=1), distance.min(axis=1)


@pytest.fixture(scope="module")
def nights(make_sky, make_wcs):
    pairs = [(5.0, 4.0), (4.0, 5.0), (4.4, 4.4), (2.8, 3.2)]
    return [Night(make_sky, make_wcs, seed, *pair) for seed, pair in enumerate(pairs, start=31)]


def test_complete_and_pure(nights):
    false, missed, bright = 0, 0, 0
    for n in nights:
        of, distance = n.match(n.found)
        y, x = np.rint(n.sky.ty).astype(int), np.rint(n.sky.tx).astype(int)
        # Of what lies just beyond the reference's edge a wing is seen, which tells no better where it is.
        beyond = n.sub.image.weight[y, x][of] == 0
        false += np.count_nonzero(distance > np.where(beyond, 12, 8))
        seen = (n.sub.image.weight[y, x] > 0) & (n.sky.snr > 9) & (np.minimum(x, y) > 3)
        seen &= (np.maximum(x, y) < n.sky.side - 4) & ~n.sky.on_galaxy
        for a, b in zip(n.sky.tx[seen], n.sky.ty[seen], strict=True):
            missed += not np.any(np.hypot(n.found.x - a, n.found.y - b) < 2)
        bright += np.count_nonzero(seen)
    assert bright > 80
    assert missed <= 1
    assert false <= 1


@pytest.mark.parametrize("what", ["found", "measured"])
def test_positions_and_fluxes_by_pulls(nights, what):
    position, flux, loud = [], [], []
    for n in nights:
        table = getattr(n, what)
        index, distance = n.match(table)
        ok = (distance < 2) & (np.abs(n.found.score) > 8)
        x, y = n.sky.tx[index], n.sky.ty[index]
        position += [((table.x - x) / table.x_err)[ok], ((table.y - y) / table.y_err)[ok]]
        flux.append(((table.flux_psf - n.truth[index]) / table.flux_psf_err)[ok])
        very = ok & (n.found.score > 60)
        loud += [(table.x - x)[very], (table.y - y)[very]]
    position, flux = np.concatenate(position), np.concatenate(flux)
    assert len(flux) > 120
    assert np.std(position) == pytest.approx(1, abs=0.15)
    assert abs(np.median(position)) < 0.15
    assert np.std(flux) == pytest.approx(1, abs=0.15)
    assert abs(np.median(flux)) < 0.25
    assert np.sqrt(np.mean(np.concatenate(loud) ** 2)) < 0.05


def test_ordered_and_repeatable(nights):
    for n in nights:
        assert np.all(np.diff(np.abs(n.found.score)) <= 0)
        again = detect(n.sub, DetectParams())
        assert all(
            np.array_equal(getattr(again, f.name), getattr(n.found, f.name)) for f in fields(Detections)
        )


def test_what_faded_is_found_with_its_sign(nights):
    n = nights[0]
    upside = replace(n.sub, image=replace(n.sub.image, data=-n.sub.image.data), score=-n.sub.score)
    found = detect(upside, DetectParams())
    assert np.allclose(np.sort(found.score), np.sort(-n.found.score))
    strong = np.abs(found.score) > 8
    assert np.all(found.flux_psf[strong] * found.score[strong] > 0)
    index = np.argmax(np.abs(found.score))
    assert found.flux_psf[index] == pytest.approx(-n.found.flux_psf[0], rel=0.02)
    measured = measure(cut(n.new, upside, found, CutParams()), found, n.sub.psf, MeasureParams())
    assert measured.flux_psf[index] == pytest.approx(found.flux_psf[index], rel=0.02)


def test_flags_near_a_peak_are_reported(nights):
    n = nights[0]
    flags = n.sub.image.flags.copy()
    x, y = int(n.found.x[0]), int(n.found.y[0])
    flags[y + 1, x] |= PixelFlag.COSMIC_RAY
    found = detect(replace(n.sub, image=replace(n.sub.image, flags=flags)), DetectParams())
    assert found.flags[0] & PixelFlag.COSMIC_RAY
    assert not n.found.flags[0] & PixelFlag.COSMIC_RAY


def test_nothing_found_is_an_empty_table(nights):
    n = nights[0]
    found = detect(n.sub, DetectParams(threshold=1e6))
    stamps = cut(n.new, n.sub, found, CutParams())
    measured = measure(stamps, found, n.sub.psf, MeasureParams())
    assert len(found) == len(measured) == len(stamps.sub) == 0


def test_stamps_show_the_same_place_and_nan_outside(nights):
    n = nights[0]
    corner = n.found.select(np.array([0]))
    corner = replace(corner, x=np.array([2.0]), y=np.array([n.sky.side - 3.0]))
    stamps = cut(n.new, n.sub, corner, CutParams(size_pix=21))
    assert stamps.sub.shape == (1, 21, 21)
    assert (stamps.x0[0], stamps.y0[0]) == (-8, n.sky.side - 13)
    outside = np.ones((21, 21), bool)
    outside[:13, 8:] = False
    truth = {"new": n.new.image, "ref": None, "sub": n.sub.image}
    for name, frame in truth.items():
        data, weight, flags = (getattr(stamps, f"{name}{end}")[0] for end in ("", "_weight", "_flags"))
        assert np.array_equal(np.isnan(data), outside)
        assert np.all(flags[outside] == PixelFlag.OUT_OF_BOUNDS)
        assert np.all(weight[outside] == 0)
        expected = n.sub.reference_weight if frame is None else frame.weight
        assert np.array_equal(weight[~outside], expected[-13:, :13].ravel())
        expected = n.sub.reference_flags if frame is None else frame.flags
        assert np.array_equal(flags[~outside], expected[-13:, :13].ravel())
    assert np.array_equal(stamps.sub[0][~outside], n.sub.image.data[-13:, :13].ravel())
    assert np.array_equal(stamps.ref[0][~outside], n.sub.reference[-13:, :13].ravel())
    assert np.isfinite(measure(stamps, corner, n.sub.psf, MeasureParams()).n_bad[0])


def test_real_changes_pass_the_cuts(nights):
    bad, total = 0, 0
    for n in nights:
        _, distance = n.match(n.found)
        bad += np.count_nonzero(n.measured.is_bad[distance < 2])
        total += np.count_nonzero(distance < 2)
        # A field of few stars knows the errors of its PSFs badly, and takes them for larger than they are.
        assert np.nanmedian(n.measured.chi2[distance < 2]) == pytest.approx(0.97, abs=0.15)
        strong = (distance < 2) & (n.found.score > 20)
        ratio = n.measured.flux_aper[strong] / n.measured.flux_psf[strong]
        assert np.median(ratio) == pytest.approx(1, abs=0.02)
        assert np.median(n.measured.fwhm_pix[strong] / n.sub.psf.fwhm_pix) == pytest.approx(1.05, abs=0.12)
    assert bad / total < 0.06


def test_detecting_again_from_files_gives_the_same_rows(nights, settings):
    n = nights[2]
    row = Image(type="difference", data_version="d" * 20)
    archive = Archive(settings)
    row.write_subtraction(archive, n.sub, Place("demo", "2026-01-01", "e1", "1"))
    read = row.read_subtraction(archive)
    for one, other in (
        (detect(read, DetectParams()), n.found),
        (search_depth(read, DetectParams()), search_depth(n.sub, DetectParams())),
        (cut(n.new, read, n.found, CutParams()), n.stamps),
    ):
        for f in fields(one):
            np.testing.assert_allclose(
                getattr(one, f.name), getattr(other, f.name), rtol=1e-12, err_msg=f.name
            )


def white(psf, x, y, snr, shape, seed=1):
    """A difference of white noise with point sources, and its score: the matched filter."""
    stamp = psf.coefficients[0].astype(float)
    noise = 1 / np.sqrt(np.sum(stamp**2))
    data = np.random.default_rng(seed).normal(0, 1, shape) + draw(psf, x, y, np.asarray(snr) * noise, shape)
    score = fftconvolve(data, stamp[::-1, ::-1], mode="same") * noise
    image = ImageFrame(
        data.astype(np.float32), np.ones(shape, np.float32), np.zeros(shape, np.uint16), 1.0, gain=np.inf
    )
    return SubtractionFrame(image, score.astype(np.float32), psf, image.data, 1.0)


def round_psf(fwhm):
    index = np.arange(-12, 13)
    return constant(np.exp(-4 * np.log(2) * (index**2 + index[:, None] ** 2) / fwhm**2))


@pytest.mark.parametrize("fwhm", [2.2, 4.5])
def test_half_of_what_has_the_quoted_limit_is_found(fwhm):
    psf, rng, shape = round_psf(fwhm), np.random.default_rng(9), (1024, 1024)
    grid = np.arange(20, 1010, 22.0)
    snr, found = [], []
    for seed in range(3):
        x, y = (g.ravel() + rng.uniform(-2, 2, grid.size**2) for g in np.meshgrid(grid, grid))
        sn = rng.uniform(2.5, 7.5, len(x))
        sub = white(psf, x, y, sn, shape, seed)
        seen = detect(sub, DetectParams())
        nearest = cKDTree(np.column_stack([seen.x, seen.y])).query(np.column_stack([x, y]))[0]
        snr.append(sn)
        found.append(nearest < fwhm)
    snr, found = np.concatenate(snr), np.concatenate(found)
    depth = search_depth(sub, DetectParams())
    limit = depth.median_e * np.sqrt(np.sum(psf.coefficients[0].astype(float) ** 2))
    assert limit == pytest.approx(depth.sigma, rel=1e-3)
    at_limit = np.abs(snr - limit) < 0.3
    assert np.mean(found[at_limit]) == pytest.approx(0.5, abs=0.04)
    # The whole curve is that of a threshold in Gaussian noise.
    for middle in np.arange(3.0, 7.5, 0.5):
        rows = np.abs(snr - middle) < 0.25
        expected = np.mean(ndtr(snr[rows] - limit))
        assert np.mean(found[rows]) == pytest.approx(expected, abs=0.055)


def test_the_depth_follows_noise_and_masks():
    """Twice the noise on the right half, nothing searched at the top."""
    psf = round_psf(4.0)
    sub = white(psf, np.zeros(0), np.zeros(0), np.zeros(0), (512, 700))
    weight, score = sub.image.weight.copy(), sub.score.copy()
    weight[:, 350:] = 0.25
    score[300:] = 0
    sub = replace(sub, image=replace(sub.image, weight=weight), score=score)
    depth = search_depth(sub, DetectParams(depth_step_pix=64))
    noise = depth.sigma / np.sqrt(np.sum(psf.coefficients[0].astype(float) ** 2))
    assert depth.limit_at(100, 100) == pytest.approx(noise, rel=0.01)
    assert depth.limit_at([600, 650.5], [40, 10]) == pytest.approx([2 * noise, 2 * noise], rel=0.01)
    assert depth.searched_fraction == pytest.approx(300 / 512, abs=0.02)
    assert np.all(np.isnan(depth.limit_at([100, 100, -2, 100], [400, 511, 100, 600])))
    assert noise < depth.median_e <= 2.001 * noise
    listed = SourceList(data_version="x")
    listed.take_depth(depth, ZeroPointSolution(25.0, 0.01, "r"))
    assert listed.depth.limit_at(600, 40) == pytest.approx(float(depth.limit_at(600, 40)), rel=1e-4)
    assert listed.limiting_mag == pytest.approx(25 - 2.5 * np.log10(depth.median_e))
    assert listed.searched_fraction == depth.searched_fraction


def test_nothing_searched_has_no_depth():
    sub = white(round_psf(3.0), np.zeros(0), np.zeros(0), np.zeros(0), (128, 128))
    depth = search_depth(replace(sub, score=np.zeros_like(sub.score)), DetectParams())
    assert depth.searched_fraction == 0
    assert np.isnan(depth.median_e)
    assert np.isnan(depth.limit_at(60, 60))
    listed = SourceList(data_version="x")
    listed.take_depth(depth, ZeroPointSolution(25.0, 0.01, "r"))
    assert (listed.limit_e, listed.limiting_mag) == (None, None)


@pytest.mark.parametrize("fwhm", [2.2, 4.5])
def test_a_source_on_a_masked_column_is_one(fwhm):
    """It has a peak on either side, as what is masked has no score."""
    psf = round_psf(fwhm)
    grid = np.arange(30.0, 480, 40)
    x, y = (g.ravel() for g in np.meshgrid(grid, grid))
    sub = white(psf, x, y, np.full(len(x), 60.0), (512, 512))
    weight, score = sub.image.weight.copy(), sub.score.copy()
    for column in grid.astype(int):
        masked = slice(column, column + round(fwhm / 2))
        weight[:, masked] = 0
        score[:, masked] = 0
    sub = replace(sub, image=replace(sub.image, weight=weight), score=score)
    found = detect(sub, DetectParams())
    assert len(found) == len(x)
    nearest = cKDTree(np.column_stack([x, y])).query(np.column_stack([found.x, found.y]))[0]
    assert nearest.max() < 0.5


def test_a_close_pair_of_one_sign_stays_two_and_so_does_a_dipole():
    psf = round_psf(4.0)
    sub = white(psf, np.array([60.0, 67.0]), np.array([60.0, 60.0]), np.array([60.0, 40.0]), (128, 128))
    assert len(detect(sub, DetectParams())) == 2
    sub = white(psf, np.array([60.0, 63.0]), np.array([60.0, 60.0]), np.array([60.0, -60.0]), (128, 128))
    assert np.sign(detect(sub, DetectParams()).score).tolist() in ([1, -1], [-1, 1])


def test_of_too_many_the_strongest_count_and_the_list_is_flagged():
    psf = round_psf(4.0)
    sub = white(psf, np.zeros(0), np.zeros(0), np.zeros(0), (400, 400))
    params = DetectParams(threshold=2.0, max_detections=50)
    everything = detect(sub, DetectParams(threshold=2.0))
    found = detect(sub, params)
    assert 40 < len(found) <= 50
    assert np.all(np.isin(found.score, everything.score[:60]))
    verdict = judge_detections(len(found), search_depth(sub, params), DetectionLimits())
    assert verdict.flags == QualityFlag.TOO_DENSE
    assert "per million pixels" in verdict.words
    assert not judge_detections(5, search_depth(sub, params), DetectionLimits()).flags
