"""DECam exposures that the observatory's Community Pipeline has calibrated: image, mask and weight.

The last part runs where ``SEECHANGE_REAL_DATA`` names a folder with ``decam_cutouts/``: real pieces of CCDs.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import zoom

from instruments import _decam_layout as layout
from instruments._decam_products import background_weight, read_mask
from seechange_core.errors import HeaderError, PixelsError, SectionMissingError, UserError
from seechange_core.flags import UNUSABLE, CalibrationStep, PixelFlag
from seechange_core.frames import Box, Masters
from seechange_core.instrument import get_instrument_instance
from seechange_core.products.ingest import ingest
from seechange_core.stages.extract import ExtractParams, extract
from seechange_core.stages.preprocess import PreprocessParams, preprocess

REAL_DATA = Path(os.environ.get("SEECHANGE_REAL_DATA", "/nonexistent")) / "decam_cutouts"
real_data = pytest.mark.skipif(
    not REAL_DATA.is_dir(), reason="SEECHANGE_REAL_DATA names no folder with real files"
)

GLOBAL = {
    "PROCTYPE": "InstCal", "PRODTYPE": "image", "INSTRUME": "DECam", "EXPTIME": 107.0, "OBSTYPE": "object",
    "MJD-OBS": 57828.26285591, "FILTER": "z DECam SDSS c0004 9260.0 1520.0", "RA": "12:29:17.64",
    "DEC": "25:28:45.5", "PLVER": "V4.8.2", "XTALKFIL": "xtalk_20130606.txt", "LINCFIL": "linearity.fits",
}  # fmt: skip
SECTION = {
    "GAINA": 3.7, "GAINB": 3.9, "RDNOISEA": 6.0, "RDNOISEB": 7.0, "SATURATA": 45000.0, "SATURATB": 46000.0,
    "DESOSCN": "Sat Jul 13 01:15:08 2019", "BIASFIL": "bias.fits", "FLATFIL": "flat.fits", "LTV1": -1.0,
    "DESCRMSK": "Sat Jul 13 02:03:24 2019", "BPMFIL": "bpm.fits",
}  # fmt: skip
SKY_ADU, SHAPE = 300.0, (64, 2046)


@pytest.fixture
def decam(settings):
    return get_instrument_instance("decam")


def write_products(folder, names=("N4", "S4"), own=None, primary=None, roles="idw", mask=0):
    """Write the files of a calibrated exposure."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2)
    paths = []
    for role in roles:
        units = [fits.PrimaryHDU(header=fits.Header({**GLOBAL, **(primary or {})}))]
        for name in names:
            axis = layout.SIZE_X / 2 - layout.place_pix(name)[0]
            header = fits.Header({**SECTION, "CRPIX1": axis - 1, **(own or {}), "EXTNAME": name})
            plane = {
                "i": rng.normal(SKY_ADU, 9.0, SHAPE).astype("f4"),
                "d": np.full(SHAPE, mask, "i4"),
                "w": np.full(SHAPE, 1 / 81, "f4"),
            }[role]
            units.append(fits.ImageHDU(plane, header=header))
        paths.append(folder / f"c4d_170316_062107_oo{role}_z_ls9.fits")
        fits.HDUList(units).writeto(paths[-1])
    return paths


# --- What the files say ---------------------------------------------------------------------------


def test_a_calibrated_section(decam, tmp_path):
    paths = write_products(tmp_path)
    sections = decam.fetch_sections(dateobs=57828.0)
    raw = decam.load_raw_frame(paths, "N4", sections)
    assert (raw.data.dtype, raw.image_shape) == (np.float32, SHAPE)
    assert raw.prepared.steps == (
        CalibrationStep.OVERSCAN | CalibrationStep.CROSSTALK | CalibrationStep.BIAS
        | CalibrationStep.LINEARITY | CalibrationStep.FLAT | CalibrationStep.BAD_PIXELS
        | CalibrationStep.COSMIC_RAYS
    )  # fmt: skip
    a, b = raw.amplifiers
    assert a.gain == b.gain == pytest.approx(3.8)  # the flat has brought both to one scale
    assert (a.read_noise_e, b.read_noise_e, a.saturation_adu) == (6.0, 7.0, 45000.0)
    assert a.non_linear_adu == np.inf
    assert (a.overscan, b.overscan) == (None, None)
    # One column is trimmed on either side: the border between the amplifiers is at 1023.
    assert (a.image, b.image) == ((0, 64, 0, 1023), (0, 64, 1023, 2046))
    a, b = decam.load_raw_frame(paths, "S4", sections).amplifiers
    assert (a.image, b.image) == ((0, 64, 1023, 2046), (0, 64, 0, 1023))


@pytest.mark.parametrize(("first", "border"), [(1, 1023), (983, 41), (0, 1024)])
def test_the_border_between_amplifiers_in_a_piece_of_a_ccd(decam, tmp_path, first, border):
    axis = layout.SIZE_X / 2 - layout.place_pix("N4")[0]
    shift = {"CRPIX1": axis - first} if first != 983 else {"CRPIX1": axis - first, "LTV1": -1.0}
    paths = write_products(tmp_path, ("N4",), own=shift)
    if first == 983:
        for path in paths:
            with fits.open(path, mode="update") as units:
                units[1].data = units[1].data[:, :100].copy()
    a, _ = decam.load_raw_frame(paths, "N4", decam.fetch_sections(dateobs=57828.0)).amplifiers
    assert (a.image.x0, a.image.x1) == (0, border)


def test_a_piece_of_one_amplifier_has_one(decam, tmp_path):
    axis = layout.SIZE_X / 2 - layout.place_pix("S4")[0]
    paths = write_products(tmp_path, ("S4",), own={"CRPIX1": axis - 1100})
    for path in paths:
        with fits.open(path, mode="update") as units:
            units[1].data = units[1].data[:, :300].copy()
    (a,) = decam.load_raw_frame(paths, "S4", decam.fetch_sections(dateobs=57828.0)).amplifiers
    assert (a.name, a.image) == ("A", (0, 64, 0, 300))


def test_image_without_companions(decam, tmp_path):
    (image,) = write_products(tmp_path, roles="i")
    prepared = decam.load_raw_frame(image, "N4", decam.fetch_sections(dateobs=57828.0)).prepared
    assert prepared.flags is None
    assert prepared.weight is None
    assert prepared.steps & CalibrationStep.FLAT


def test_sections_that_a_companion_lacks(decam, tmp_path):
    paths = write_products(tmp_path / "a")
    paths[1] = write_products(tmp_path / "b", ("N4",), roles="d")[0]
    lost = decam.find_unreadable_sections(paths)
    assert "S4" in lost
    assert "N4" not in lost
    with pytest.raises(SectionMissingError, match=r"ood_z_ls9\.fits: the file has no extension 'S4'"):
        decam.load_raw_frame(paths, "S4", decam.fetch_sections(dateobs=57828.0))


def test_what_does_not_belong_together(decam, tmp_path):
    paths = write_products(tmp_path)
    sections = decam.fetch_sections(dateobs=57828.0)
    with fits.open(paths[2], mode="update") as units:
        units["N4"].data = units["N4"].data[:, :-1].copy()
    with pytest.raises(
        PixelsError, match=r"oow_z_ls9\.fits.*\(64, 2045\) pixels where the image has \(64, 2046\)"
    ):
        decam.load_raw_frame(paths, "N4", sections)
    with pytest.raises(UserError, match="neither mask"):
        decam.load_raw_frame([paths[0], paths[0]], "S4", sections)


@pytest.mark.parametrize("kind", ["Resampled", "Stacked", "MasterCal"])
def test_products_of_other_kinds_are_refused(decam, tmp_path, kind):
    paths = write_products(tmp_path, primary={"PROCTYPE": kind})
    with pytest.raises(HeaderError, match=f"PROCTYPE is {kind}"):
        decam.load_raw_frame(paths, "N4", decam.fetch_sections(dateobs=57828.0))


@pytest.mark.parametrize("given", [0, 1, 2])
def test_a_group_is_one_exposure(database, tmp_path, given):
    paths = write_products(tmp_path / "in")
    exposure = ingest(paths[given], database)
    assert len(exposure.get_fullpath(as_list=True)) == 3
    assert exposure.header["plver"] == "V4.8.2"
    assert set(exposure.sections) - set(exposure.unreadable_sections) == {"N4", "S4", "N30"}
    raw = exposure.load_raw_frame("S4")
    assert raw.prepared.weight.shape == raw.prepared.flags.shape == SHAPE
    again = ingest(paths[(given + 1) % 3], database)
    assert again.id == exposure.id


# --- Masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["V3.5.0", "V4.8.2a", "V5.0LP", "DES V3.9"])
def test_masks_with_codes(version):
    mask = np.arange(10).reshape(2, 5)
    flags = read_mask(mask, {"PLVER": version})
    assert flags.dtype == np.uint16
    want = [
        0, PixelFlag.BAD_PIXEL, PixelFlag.NO_DATA, PixelFlag.SATURATED, PixelFlag.BLEED,
        PixelFlag.COSMIC_RAY, PixelFlag.BAD_PIXEL, 0, 0, PixelFlag.BAD_PIXEL,
    ]  # fmt: skip
    if version in {"V3.5.0", "DES V3.9"}:  # cosmic rays and satellites may be mixed up
        want[5] = 0
    assert flags.ravel().tolist() == want
    assert read_mask(np.array([[-1, 3000]]), {"PLVER": version}).tolist() == [[PixelFlag.BAD_PIXEL] * 2]


@pytest.mark.parametrize(
    ("expnum", "band", "rows"),
    [(298250, "r", {"N4": slice(0, 40), "S4": slice(20, 64)}), (298251, "r", {}), (298250, "z", {})],
)
@pytest.mark.parametrize("roles", ["i", "id"])
def test_glowing_edges(decam, tmp_path, expnum, band, rows, roles):
    """100 rows of 4096: the low ones in N, the high ones in S. Pieces know where they are."""
    primary = {"EXPNUM": expnum, "FILTER": f"{band} DECam SDSS c0002 6415.0 1480.0"}
    for name, first in (("N4", 60), ("S4", 4096 - 100 - 20)):
        own = {"CRPIX2": layout.SIZE_Y / 2 - layout.place_pix(name)[1] - first}
        paths = write_products(tmp_path / name, (name,), own, primary, roles)
        flags = decam.load_raw_frame(paths, name, decam.fetch_sections(dateobs=57828.0)).prepared.flags
        want = np.zeros(SHAPE, bool)
        want[rows.get(name, slice(0))] = True
        assert (flags is None) is (roles == "i" and not rows)
        assert flags is None or np.array_equal(flags == PixelFlag.BAD_PIXEL, want)


@pytest.mark.parametrize(
    ("name", "version", "limit"),
    [("S19", "V4.8.2a", 46000), ("S19", "V4.9.0", 60000), ("S18", "V4.8.2a", 60000)],
)
def test_s19_saturates_early(decam, tmp_path, name, version, limit):
    own = {"SATURATA": 60000.0, "SATURATB": 60000.0}
    paths = write_products(tmp_path, (name,), own, {"PLVER": version})
    for path in paths[:1]:
        with fits.open(path, mode="update") as units:
            units[1].data[30, 500:503] = 30000, 46100, 60100
    raw = decam.load_raw_frame(paths, name, decam.fetch_sections(dateobs=57828.0))
    assert {a.saturation_adu for a in raw.amplifiers} == {limit}
    image = preprocess(raw, Masters(), PreprocessParams(do_dark=False, saturated_grow_pix=0))
    saturated = (image.flags[30, 500:503] & PixelFlag.SATURATED) != 0
    assert saturated.tolist() == [False, limit == 46000, True]


@pytest.mark.parametrize("version", ["V2.1.1", "V3.4.9"])
def test_masks_with_bits(version):
    mask = np.array([[0, 1, 2, 1 + 4, 16 + 2, 64, 128, 32, 3]], np.int16)
    flags = read_mask(mask, {"PLVER": version}).ravel()
    bad, sat = PixelFlag.BAD_PIXEL, PixelFlag.SATURATED
    want = [0, bad, sat, bad | PixelFlag.INTERPOLATED, PixelFlag.COSMIC_RAY | sat, PixelFlag.BLEED, 0, 0]
    assert flags.tolist() == [*want, bad | sat]


@pytest.mark.parametrize("cards", [{}, {"PLVER": "unknown"}])
def test_a_mask_of_unknown_version_is_not_guessed(cards):
    with pytest.raises(HeaderError, match="PLVER"):
        read_mask(np.zeros((2, 2), int), cards)


# --- Weights --------------------------------------------------------------------------------------


def test_the_weight_becomes_that_of_the_sky():
    """A weight from each pixel's own value, as the pipeline makes it, on a simulated field."""
    rng = np.random.default_rng(5)
    gain, read_noise_adu, sky = 4.0, 1.6, 150.0
    y, x = np.mgrid[:512, :512]
    truth = np.full((512, 512), sky)
    for _ in range(60):
        at_y, at_x, flux = *rng.uniform(0, 512, 2), 10 ** rng.uniform(3, 5.5)
        truth += flux / (2 * np.pi * 4) * np.exp(-((y - at_y) ** 2 + (x - at_x) ** 2) / 8)
    data = rng.poisson(truth * gain) / gain + rng.normal(0, read_noise_adu, truth.shape)
    weight = (1 / (np.maximum(data, 1) / gain + read_noise_adu**2)).astype("f4")
    flags = np.zeros(data.shape, np.uint16)
    dead = slice(100, 110), slice(300, 320)
    weight[dead], flags[dead] = 0, PixelFlag.BAD_PIXEL
    found = background_weight(weight, flags, [Box(0, 512, 0, 256), Box(0, 512, 256, 512)])
    assert found.dtype == np.float32
    assert np.all(found[dead] == 0)
    alive = flags == 0
    want = 1 / (sky / gain + read_noise_adu**2)
    np.testing.assert_allclose(found[alive], want, rtol=0.03)
    # What this mends: a mean of blank sky weighted by the pixels' own values comes out low.
    blank = alive & (truth < sky + 0.05)
    naive, ours = (np.average(data[blank], weights=w[blank]) for w in (weight, found))
    error = data[blank].std() / np.sqrt(blank.sum())
    assert naive - sky < -5 * error
    assert abs(ours - truth[blank].mean()) < 3 * error


# --- Real pieces of CCDs --------------------------------------------------------------------------


def real_groups():
    """Return (files of the group, name of the CCD) of each real piece."""
    decam = get_instrument_instance("decam")
    groups = []
    for path in sorted(REAL_DATA.glob("*/images/**/*_ooi_*.fits")):
        common, rest = decam.group_files(path)
        groups.append(([path.parent / f"{common}{r}" for r in rest], path.name.split(".")[-2]))
    return groups


def load(decam, paths, name):
    facts = decam.read_facts(decam.read_header(paths))
    return decam.load_raw_frame(paths, name, decam.get_sections(dateobs=facts.mjd))


def centre_of_ccd(decam, cards, name):
    """Return where the middle of the whole CCD is in a piece of it, pixels as FITS counts."""
    x, y = layout.place_pix(name)
    return cards["CRPIX1"] + x + 0.5, cards["CRPIX2"] + y + 0.5


@real_data
def test_real_ccds_look_where_they_should(decam):
    """The astrometric solution of each piece against the telescope's pointing and our table."""
    off_arcsec = []
    for paths, name in real_groups():
        facts = decam.read_facts(decam.read_header(paths))
        hint = decam.get_pointing_hint(facts.ra, facts.dec, name, decam.get_sections(dateobs=facts.mjd))
        cards = fits.getheader(paths[0], name)
        wcs = WCS(cards)
        x, y = centre_of_ccd(decam, cards, name)
        # Pieces are cut out at whole pixels: so the reference pixel of the whole CCD is the nominal one.
        cut = layout.SIZE_X / 2 - layout.place_pix(name)[0] - 1 - cards["CRPIX1"]
        assert cut == pytest.approx(round(cut), abs=0.01)
        sky = SkyCoord(*wcs.all_pix2world([x, x + 1, x], [y, y, y + 1], 1), unit="deg")
        if "CENRA1" in cards:
            stated = SkyCoord(cards["CENRA1"], cards["CENDEC1"], unit="deg")
            assert sky[0].separation(stated).arcsec < 0.5
        off_arcsec.append(sky[0].separation(SkyCoord(hint.ra, hint.dec, unit="deg")).arcsec)
        # x runs south, y east.
        assert sky[0].position_angle(sky[1]).deg == pytest.approx(180, abs=0.4)
        assert sky[0].position_angle(sky[2]).deg == pytest.approx(hint.rotation_deg, abs=0.4)
        for step in sky[1:]:
            assert sky[0].separation(step).arcsec == pytest.approx(hint.pixel_scale_arcsec, rel=0.005)
    assert len(off_arcsec) == 7
    assert max(off_arcsec) < 25.0  # of which the telescope's own pointing is the most


@real_data
def test_real_exposures_are_understood(decam):
    kinds = [decam.read_facts(decam.read_header(paths)) for paths, _ in real_groups()]
    assert [k.filter for k in kinds] == ["r", "z", "z", "r", "z", "g", "r"]
    assert [k.night for k in kinds][:2] == ["2017-09-15", "2017-03-15"]
    for paths, name in real_groups():
        lost = decam.find_unreadable_sections(paths)
        assert name not in lost
        assert "N30" not in lost
        assert len(lost) >= 59
        # The night that the observatory puts it in.
        assert decam.read_facts(decam.read_header(paths)).night == fits.getheader(paths[0])["DTCALDAT"]


@real_data
def test_real_noise_is_what_weights_and_gains_say(decam):
    """Scatter of neighbouring pixels on blank sky against the weights, and against the gains."""
    for paths, name in real_groups():
        raw = load(decam, paths, name)
        prepared = raw.prepared
        usable = (prepared.flags == 0) & (prepared.weight > 0)
        level = np.median(raw.data[usable])
        sigma = np.median(1 / np.sqrt(prepared.weight[usable]))
        blank = usable & (np.abs(raw.data - level) < 4 * sigma)
        pairs = blank[1:] & blank[:-1]
        if pairs.mean() < 0.6:
            continue  # a bright star or a galaxy is all over it
        scatter = 1.4826 * np.median(np.abs(np.diff(raw.data, axis=0)[pairs])) / np.sqrt(2)
        assert scatter == pytest.approx(sigma, rel=0.05), name
        a = raw.amplifiers[0]
        predicted = np.hypot(np.sqrt(level / a.gain), a.read_noise_e / a.gain)
        # The card of N6 states twice the read noise that CCDs have had since 2013.
        assert scatter == pytest.approx(predicted, rel=0.08 if name == "N6" else 0.06), name


@real_data
def test_real_masks(decam):
    groups = {paths[0].name: (paths, name) for paths, name in real_groups()}
    star = load(decam, *groups["c4d_150110_053718_ooi_z_ls9.S11.fits"])
    saturated = star.prepared.flags == PixelFlag.SATURATED
    assert saturated.sum() == 612
    assert np.median(star.data[saturated]) > min(a.saturation_adu for a in star.amplifiers)
    assert (star.prepared.flags == PixelFlag.BLEED).sum() == 682
    assert np.all(star.prepared.weight[star.prepared.flags != 0] == 0)
    rays = load(decam, *groups["c4d_170316_062107_ooi_z_ls9.N2.fits"])
    assert (rays.prepared.flags == PixelFlag.COSMIC_RAY).sum() == 177


@real_data
@pytest.mark.parametrize("file", ["c4d_170316_062107_ooi_z_ls9.N2", "c4d_171113_060340_ooi_r_ls9.N6"])
def test_a_real_section_through_the_first_stages(decam, file):
    """The PSF of the few stars in the piece against PSFEx's model of the whole CCD, at this place."""
    paths, name = next((p, n) for p, n in real_groups() if p[0].stem == file)
    raw = load(decam, paths, name)
    image = preprocess(raw, Masters(), PreprocessParams())
    assert image.calibration_steps & CalibrationStep.FLAT
    assert image.calibration_steps & CalibrationStep.GAIN
    masked = (image.flags & np.uint16(UNUSABLE)) != 0
    assert np.all(image.weight[masked] == 0)
    assert masked[raw.prepared.flags != 0].all()
    gain = raw.amplifiers[0].gain
    np.testing.assert_allclose(image.data[~masked], raw.data[~masked] * gain, rtol=1e-5)
    found = extract(image, ExtractParams(psf_min_stars=1, psf_star_min_snr=20.0))
    (model,) = REAL_DATA.glob(f"*/calib/psfex/**/{file.rpartition('.')[0]}-psfex.fits")
    # The model's positions are those in the piece.
    want = fwhm_of_psfex(fits.getdata(model, 1)[0], [side / 2 for side in raw.data.shape[::-1]])
    assert found.psf.fwhm_pix == pytest.approx(want, rel=0.05)
    assert found.psf.fwhm_pix == pytest.approx(raw.header["FWHM"], rel=0.1)


def fwhm_of_psfex(row, place):
    """Return the diameter of the area above half of the peak, pixels, of a model of degree 2."""
    x, y = ((p - row[f"polzero{i}"]) / row[f"polscal{i}"] for i, p in enumerate(place, start=1))
    stamp = np.tensordot([1, x, x * x, y, x * y, y * y], row["psf_mask"], 1)[16:47, 16:47]
    fine = zoom(stamp.astype(float), 8, order=3)
    area = np.count_nonzero(fine > fine.max() / 2) * (stamp.shape[0] / fine.shape[0]) ** 2
    return 2 * np.sqrt(area / np.pi) * row["psf_samp"]
