"""PTF and ZTF: one detrended CCD or quadrant per file, with the mask that is published beside it."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from sqlalchemy import select

from seechange_core import Exposure
from seechange_core.chain import walk
from seechange_core.errors import HeaderError, NotFoundError, PixelsError, SettingsError, UserError
from seechange_core.flags import CalibrationStep, PixelFlag
from seechange_core.frames import Masters
from seechange_core.instrument import get_instrument_instance, guess_instrument
from seechange_core.products import Image
from seechange_core.products.ingest import ingest
from seechange_core.products.supply import supply
from seechange_core.settings import get_settings, load_settings, use_settings
from seechange_core.stages.preprocess import PreprocessParams, preprocess
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import dispose_engines, get_engine, open_session
from seechange_core.storage.orm import Base

PTF_NAME = "PTF_201108182046_i_p_scie_t045436_u011486868_f02_p100037_c08.fits"
PTF_MASK = PTF_NAME.replace("scie", "mask")
ZTF_NAME = "ztf_20180327195694_000718_zg_c04_o_q3_sciimg.fits"
ZTF_MASK = ZTF_NAME.replace("sciimg", "mskimg")
PTF_CARDS = {
    "ORIGIN": "Palomar Transient Factory", "TELESCOP": "P48", "INSTRUME": "PTF/MOSAIC",
    "IMGTYP": "object", "OBJECT": "PTF_survey", "PTFFIELD": "100037", "PTFPID": "20000", "CCDID": "8",
    "FILTER": "R", "FILTERID": "2", "EXPTIME": 60.0, "AEXPTIME": 60.006, "UTC-OBS": "2011-08-18T04:54:36.114",
    "OBSMJD": 55791.20459, "AIRMASS": 1.21, "GAIN": 1.6, "READNOI": 5.2, "DARKCUR": 0.1, "SATURVAL": 17000.0,
    "TELRA": 210.0, "TELDEC": 54.3,
}  # fmt: skip
ZTF_CARDS = {
    "ORIGIN": "Zwicky Transient Facility", "TELESCOP": "Palomar 48-inch", "INSTRUME": "ZTF/MOSAIC",
    "IMGTYPE": "object", "FIELDID": 718, "CCD_ID": 4, "CCDID": 4, "QID": 3, "PROGRMID": 1, "FILTER": "ZTF_g",
    "FILTERID": 1, "EXPOSURE": 30.0, "SHUTOPEN": "2018-03-27T04:41:48.024", "OBSMJD": 58204.1956947,
    "AIRMASS": 1.05, "GAIN": 6.2, "READNOI": 9.8, "SATURATE": 49000.0, "RA": "+14:10:00", "DEC": "+54:00:00",
}  # fmt: skip
SHAPE = (40, 30)


def wcs_cards(ra, dec, crpix, scale=1.01, rotation_deg=3.0):
    turn, size = np.deg2rad(rotation_deg), scale / 3600
    return {
        "CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "CRVAL1": ra, "CRVAL2": dec, "CRPIX1": crpix[0],
        "CRPIX2": crpix[1], "CD1_1": -size * np.cos(turn), "CD1_2": size * np.sin(turn),
        "CD2_1": size * np.sin(turn), "CD2_2": size * np.cos(turn), "PV1_1": 1.0, "PV2_1": 1.0,
    }  # fmt: skip


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("path: {data_root: data}\ninstruments: {ztf: {kind: ptf, survey: ztf}, ptf: {}}")
    with use_settings(load_settings(path, environ={})):
        (tmp_path / "data").mkdir()
        yield tmp_path / "data"


CENTERED = wcs_cards(210.5, 54.25, (15.5, 20.5))


def write(path, cards, pixels=None, wcs=CENTERED, **changes):
    header = fits.Header({k: v for k, v in {**cards, **wcs, **changes}.items() if v is not None})
    image = np.full(SHAPE, 345.5, np.float32) if pixels is None else pixels
    fits.PrimaryHDU(image, header=header).writeto(path, overwrite=True)
    return path.name


def test_a_ptf_file(root):
    exposure = Exposure(write(root / PTF_NAME, PTF_CARDS))
    assert (exposure.instrument, exposure.type, exposure.filter, exposure.telescope) == (
        "ptf", "science", "R", "P48",
    )  # fmt: skip
    # The shutter's time, because OBSMJD is rounded to almost a second; and the time it was really open.
    assert exposure.mjd == pytest.approx(55791 + (4 * 3600 + 54 * 60 + 36.114) / 86400, abs=1e-9)
    assert exposure.exp_time == 60.006
    assert (exposure.ra, exposure.dec) == (pytest.approx(210.5), pytest.approx(54.25))  # not the telescope's
    assert (exposure.night, exposure.target, exposure.project) == ("2011-08-17", "100037", "20000")
    assert (exposure.header["ccd_id"], exposure.header["field_id"]) == ("8", "100037")
    assert exposure.instrument_object.band_of("R") == "r"
    raw = exposure.load_raw_frame(0)
    (amplifier,) = raw.amplifiers
    assert (amplifier.gain, amplifier.read_noise_e, amplifier.saturation_adu) == (1.6, 5.2, 17000.0)
    assert amplifier.overscan is None
    assert raw.data.dtype == np.float32
    done = CalibrationStep.OVERSCAN | CalibrationStep.BIAS | CalibrationStep.FLAT
    assert (raw.prepared.steps, raw.prepared.flags, raw.prepared.weight) == (done, None, None)


def test_a_ztf_quadrant(root):
    # The reference pixel of a quadrant is the CCD's centre, outside of the image.
    cards = wcs_cards(0.3, 54.25, (3100.0, -20.0))
    exposure = Exposure(write(root / ZTF_NAME, ZTF_CARDS, wcs=cards))
    assert (exposure.instrument, exposure.filter, exposure.exp_time) == ("ztf", "g", 30.0)
    assert exposure.mjd == pytest.approx(58204 + (4 * 3600 + 41 * 60 + 48.024) / 86400, abs=1e-9)
    header = fits.Header({**cards, "NAXIS": 2, "NAXIS1": SHAPE[1], "NAXIS2": SHAPE[0]})
    ra, dec = WCS(header).all_pix2world((SHAPE[1] - 1) / 2, (SHAPE[0] - 1) / 2, 0)
    assert exposure.ra == pytest.approx(float(ra), abs=1e-6)
    assert exposure.dec == pytest.approx(float(dec), abs=1e-6)
    assert exposure.ra < 360 and abs(exposure.ra - 0.3) > 1.0
    assert [exposure.header[k] for k in ("field_id", "ccd_id", "quadrant_id")] == [718, 4, 3]
    amplifier = exposure.load_raw_frame(0).amplifiers[0]
    assert (amplifier.gain, amplifier.read_noise_e, amplifier.saturation_adu) == (6.2, 9.8, 49000.0)
    assert exposure.get_pointing_hint(0).pixel_scale_arcsec == 1.01


def test_without_cards_the_camera_s_own_values(root):
    bare = dict.fromkeys(("GAIN", "READNOI", "SATURVAL", "UTC-OBS"))
    exposure = Exposure(write(root / PTF_NAME, PTF_CARDS, **bare))
    assert exposure.mjd == 55791.20459
    amplifier = exposure.load_raw_frame(0).amplifiers[0]
    assert (amplifier.gain, amplifier.read_noise_e, amplifier.saturation_adu) == (1.7, 5.1, 50000.0)


def test_a_mask_beside_the_image_becomes_flags(root):
    ptf, ztf = get_instrument_instance("ptf"), get_instrument_instance("ztf")
    mask = np.zeros(SHAPE, np.int16)
    for bit in range(13):
        mask[bit, 3] = 1 << bit
    mask[20, 3] = (1 << 8) + (1 << 6)
    common = {0: PixelFlag.STREAK, 7: PixelFlag.COSMIC_RAY, 8: PixelFlag.SATURATED, 10: PixelFlag.NO_DATA}
    want = {
        "ptf": common | dict.fromkeys((2, 4, 9), PixelFlag.BAD_PIXEL)
        | {6: PixelFlag.BLEED, 20: PixelFlag.SATURATED | PixelFlag.BLEED},
        "ztf": common | dict.fromkeys((2, 3, 4, 9), PixelFlag.BAD_PIXEL) | {20: PixelFlag.SATURATED},
    }  # fmt: skip
    for camera, name, companion, cards in (
        (ptf, PTF_NAME, PTF_MASK, PTF_CARDS), (ztf, ZTF_NAME, ZTF_MASK, ZTF_CARDS),
    ):  # fmt: skip
        write(root / name, cards)
        assert camera.group_files(root / name) is None
        write(root / companion, cards, pixels=mask)
        for given in (name, companion):
            common, endings = camera.group_files(root / given)
            assert [common + e for e in endings] == [name, companion]
        raw = camera.load_raw_frame([root / name, root / companion], 0, camera.get_sections())
        assert raw.prepared.steps & CalibrationStep.BAD_PIXELS
        found = {y: int(raw.prepared.flags[y, 3]) for y in range(SHAPE[0]) if raw.prepared.flags[y, 3]}
        assert found == {y: int(flag) for y, flag in want[camera.name].items()}
        assert np.count_nonzero(raw.prepared.flags) == len(found)
        assert camera.find_unreadable_sections([root / name, root / companion]) == {}


def test_image_and_mask_are_registered_together(root, tmp_path):
    settings = get_settings()
    Base.metadata.create_all(get_engine(settings))
    rng = np.random.default_rng(5)
    for ccd in ("c03", "c08"):  # of one exposure of the mosaic: each is an exposure of its own
        name = PTF_NAME.replace("c08", ccd)
        write(tmp_path / name, PTF_CARDS, pixels=rng.normal(300.0, 9.0, SHAPE).astype(np.float32))
        mask = np.zeros(SHAPE, np.int16)
        mask[5, 6] = 1 << 8
        write(tmp_path / name.replace("scie", "mask"), PTF_CARDS, pixels=mask, CCDID=ccd)
    files = sorted(tmp_path.glob("PTF*.fits"))
    exposures = [ingest(f, settings) for f in files]
    dispose_engines()
    assert len(files) == 4
    assert len({e.name for e in exposures}) == 2
    raw = exposures[0].load_raw_frame(0)
    assert raw.prepared.flags[5, 6] == PixelFlag.SATURATED
    image = preprocess(raw, Masters(), PreprocessParams())
    # DN became electrons, and the noise is that of the pixels.
    assert np.median(image.data) == pytest.approx(300.0 * 1.6, rel=0.02)
    assert 1 / np.sqrt(np.median(image.weight)) == pytest.approx(9.0 * 1.6, rel=0.15)
    assert image.flags[5, 6] & PixelFlag.SATURATED


def test_the_chain_needs_no_masters_and_reads_none(root, tmp_path):
    """With the settings as they are: what comes before the flat is not asked for, dark or no dark."""
    settings = get_settings()
    Base.metadata.create_all(get_engine(settings))
    rng = np.random.default_rng(6)
    pixels = rng.normal(300.0, 9.0, SHAPE).astype(np.float32)
    write(tmp_path / PTF_NAME, PTF_CARDS, pixels=pixels)
    write(tmp_path / PTF_MASK, PTF_CARDS, pixels=np.zeros(SHAPE, np.int16))
    exposure = ingest(tmp_path / PTF_NAME, settings)
    # As large as the whole CCD: it would not even fit.
    fits.writeto(tmp_path / "dark.fits", np.full((4096, 2048), 5.0, np.float32))
    for with_dark in (False, True):
        if with_dark:
            supply(tmp_path / "dark.fits", "dark", "ptf", date="2011-08-18")
        reports = walk(settings, exposure.name, "0", ("exposure", "image"))
        assert [str(report.outcome) for report in reports] == ["loaded" if with_dark else "done", "done"]
        with open_session(settings, read_only=True) as session:
            row = session.scalar(select(Image).where(Image.data_version == reports[1].data_version))
        assert (row.dark_id, row.bias_id, row.flat_id, row.bad_pixels_id) == (None,) * 4
        assert not row.calibration_steps & CalibrationStep.DARK
        frame = row.read(Archive(settings))
        good = frame.flags == 0
        np.testing.assert_allclose(frame.data[good], 1.6 * pixels[good], rtol=1e-5)
    dispose_engines()


def test_a_mask_without_its_image_or_of_another_size_is_refused(root):
    ptf = get_instrument_instance("ptf")
    write(root / PTF_MASK, PTF_CARDS, pixels=np.zeros((5, 5), np.int16))
    with pytest.raises(UserError, match=r"it is a mask, and its image PTF_2011.*_scie_.* is not beside it"):
        ptf.group_files(root / PTF_MASK)
    write(root / PTF_NAME, PTF_CARDS)
    with pytest.raises(PixelsError, match=r"the mask is \(5, 5\) int16, the image \(40, 30\)"):
        ptf.load_raw_frame([root / PTF_NAME, root / PTF_MASK], 0, ptf.get_sections())
    (root / PTF_MASK).write_bytes((root / PTF_MASK).read_bytes()[:2900])
    assert list(ptf.find_unreadable_sections([root / PTF_NAME, root / PTF_MASK])) == [0]


def test_two_times_that_differ_are_refused(root):
    with pytest.raises(HeaderError, match=r"OBSMJD = 55791\.3 is another time"):
        Exposure(write(root / PTF_NAME, PTF_CARDS, OBSMJD=55791.3))


def test_a_compressed_file(root):
    path = root / f"{ZTF_NAME}.fz"
    image = fits.CompImageHDU(
        np.full(SHAPE, 300.0, np.float32),
        header=fits.Header({**ZTF_CARDS, **wcs_cards(10, 20, (15.5, 20.5))}),
        quantize_level=0, compression_type="GZIP_1",
    )  # fmt: skip
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)
    exposure = Exposure(path.name)
    assert (exposure.filter, exposure.ra) == ("g", pytest.approx(10.0))
    assert exposure.data[0].shape == SHAPE


def test_names_and_headers_tell_the_surveys_apart(root):
    assert guess_instrument(PTF_NAME) == guess_instrument(PTF_MASK) == "ptf"
    assert guess_instrument(ZTF_NAME) == guess_instrument(ZTF_MASK) == "ztf"
    assert guess_instrument("a.fits", ZTF_CARDS) == "ztf"
    assert guess_instrument("a.fits", PTF_CARDS) == "ptf"
    with pytest.raises(NotFoundError):
        guess_instrument("ztf_20180327195694_000718_zg_c04_o_q3_psfcat.fits")


def test_wrong_options_name_the_key(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("instruments: {ztf: {kind: ptf, survey: lsst}}")
    with (
        use_settings(load_settings(path, environ={})),
        pytest.raises(SettingsError, match=r"instruments\.ztf\.survey"),
    ):
        get_instrument_instance("ztf")
