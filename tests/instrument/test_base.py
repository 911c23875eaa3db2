"""Where sections look, and what their amplifiers are."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from seechange_core.errors import DeadSection, HeaderError, NotFoundError, UserError
from seechange_core.instrument import (
    INSTRUMENT_INSTANCE_CACHE,
    Instrument,
    SensorSection,
    get_instrument_instance,
)


class Mosaic(Instrument):
    def __init__(self, rotation_deg=None, parity=None):
        self.name = "mosaic"
        self.gain, self.read_noise, self.pixel_scale_arcsec = 1.5, 4.0, 2.0
        super().__init__(rotation_deg=rotation_deg, parity=parity, size_x=1000, size_y=2000)

    def get_section_ids(self):
        return range(2)

    def _make_new_section(self, section_id):
        return SensorSection(section_id, self.name)

    def get_section_offsets(self, section_id):
        return ((-700.0, 300.0), (800.0, -1200.0))[section_id]

    def get_section_unit(self, section_id):
        return f"CCD{section_id}"


def sky_through_wcs(ra, dec, offset, scale, rotation, parity):
    """Do the same with astropy: +y at position angle `rotation`, and +x a quarter turn on, to the west."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix = (ra, dec), (1, 1)
    turn = np.deg2rad(rotation)
    size = scale / 3600
    y_east, y_north = np.sin(turn), np.cos(turn)
    x_east, x_north = -parity * np.cos(turn), parity * np.sin(turn)
    wcs.wcs.cd = size * np.array([[x_east, y_east], [x_north, y_north]])
    return SkyCoord(*wcs.all_pix2world(*offset, 0), unit="deg")


@pytest.mark.parametrize(
    ("ra", "dec"), [(150.0, 2.0), (0.01, -30.0), (359.99, 0.0), (33.0, 89.9), (10.0, -90.0)]
)
@pytest.mark.parametrize(("rotation", "parity"), [(0.0, 1), (0.0, -1), (90.0, 1), (-137.0, -1)])
def test_a_section_s_centre_on_the_sky(settings, ra, dec, rotation, parity):
    mosaic = Mosaic(rotation, parity)
    sections = mosaic.fetch_sections()
    for section_id in sections:
        hint = mosaic.get_pointing_hint(ra, dec, section_id)
        x, y = mosaic.get_section_offsets(section_id)
        want, above = (sky_through_wcs(ra, dec, (x, y + d), 2.0, rotation, parity) for d in (0, 10))
        assert SkyCoord(hint.ra, hint.dec, unit="deg").separation(want) < 0.001 * u.arcsec
        assert (hint.parity, hint.pixel_scale_arcsec) == (parity, 2.0)
        # +y there, where north may be another way than at the pointing.
        turn = hint.rotation_deg - want.position_angle(above).deg
        assert (turn + 180) % 360 - 180 == pytest.approx(0, abs=0.02)
        assert hint.radius_arcmin == mosaic.pointing_radius_arcmin


def test_parity_1_is_north_up_east_left(settings):
    mosaic = Mosaic(0.0, 1)
    mosaic.fetch_sections()
    left, right = (mosaic.get_pointing_hint(150.0, 0.0, s) for s in (0, 1))
    assert left.ra > 150.0 > right.ra
    assert left.dec > 0.0 > right.dec


def test_unknown_orientation_widens_the_search(settings):
    mosaic = Mosaic()
    mosaic.fetch_sections()
    hint = mosaic.get_pointing_hint(150.0, 2.0, 0)
    assert (hint.ra, hint.dec, hint.parity) == (150.0, 2.0, None)
    assert hint.radius_arcmin == pytest.approx(5.0 + np.hypot(700, 300) * 2 / 60)
    assert mosaic.get_footprint(150.0, 2.0) is None
    with pytest.raises(HeaderError, match="nothing says where the telescope pointed"):
        mosaic.get_pointing_hint(None, None, 0)


def test_the_footprint_goes_around_all_sections(settings):
    mosaic = Mosaic(0.0, 1)
    mosaic.fetch_sections()
    corners = np.array(mosaic.get_footprint(0.0, 0.0))
    ra = (corners[:, 0] + 180) % 360 - 180
    assert np.degrees(np.tan(np.radians([ra.min(), ra.max()]))) * 1800 == pytest.approx(
        [-1300, 1200], abs=0.01
    )
    assert corners[:, 1].min() * 1800 == pytest.approx(-2200, rel=1e-3)


def mosaic_file(path, **cards):
    primary = fits.PrimaryHDU()
    primary.header["EXPTIME"] = 30.0
    images = [fits.ImageHDU(np.full((8, 9), 7 + i, np.uint16), name=f"CCD{i}") for i in range(2)]
    images[1].header.update(cards)
    fits.HDUList([primary, *images]).writeto(path)
    return path


def test_a_raw_frame_takes_header_then_section_then_instrument(settings, tmp_path):
    path = mosaic_file(tmp_path / "a.fits", GAIN=2.5)
    mosaic = Mosaic()
    mosaic.fetch_sections()
    mosaic.sections[0].gain = 1.7
    first, second = (mosaic.load_raw_frame(path, s) for s in (0, 1))
    assert (first.amplifiers[0].gain, second.amplifiers[0].gain) == (1.7, 2.5)
    assert first.amplifiers[0].read_noise_e == 4.0
    assert first.amplifiers[0].saturation_adu == 65535
    assert (first.exposure_time_s, first.image_shape, first.data.dtype) == (30.0, (8, 9), np.uint16)
    assert second.data[0, 0] == 8
    assert second.header["EXTNAME"] == "CCD1"
    own = {0: SensorSection(0, "mosaic", gain=9.0), 1: SensorSection(1, "mosaic")}
    assert mosaic.load_raw_frame(path, 0, own).amplifiers[0].gain == 9.0


def test_a_trusted_section_goes_before_the_header(settings, tmp_path):
    path = mosaic_file(tmp_path / "a.fits", GAIN=2.5, RDNOISE=3.0)
    mosaic = Mosaic()
    mosaic.trust_sections = ("gain",)
    mosaic.fetch_sections()
    assert mosaic.load_raw_frame(path, 1).amplifiers[0].gain == 2.5  # the section says nothing
    mosaic.sections[1].gain, mosaic.sections[1].read_noise = 1.7, 9.0
    amplifier = mosaic.load_raw_frame(path, 1).amplifiers[0]
    assert (amplifier.gain, amplifier.read_noise_e) == (1.7, 3.0)


@pytest.mark.parametrize("gain", [0.0, -1.0, "high"])
def test_an_impossible_gain_is_named(settings, tmp_path, gain):
    mosaic = Mosaic()
    mosaic.fetch_sections()
    with pytest.raises(HeaderError, match=r"gain|GAIN"):
        mosaic.load_raw_frame(mosaic_file(tmp_path / "a.fits", GAIN=gain), 1)


def test_a_defective_section_stops(settings, tmp_path):
    mosaic = Mosaic()
    mosaic.fetch_sections()
    mosaic.sections[0].defective = True
    with pytest.raises(DeadSection, match="mosaic lists it as defective"):
        mosaic.load_raw_frame(mosaic_file(tmp_path / "a.fits"), 0)


def test_one_file_per_section(settings, tmp_path):
    mosaic = Mosaic()
    paths = []
    for i in range(2):
        paths.append(tmp_path / f"a_{i}.fits")
        fits.PrimaryHDU(np.full((3, 4), i, "i2"), header=fits.Header({"EXPTIME": 5.0, "CHIP": i})).writeto(
            paths[i]
        )
    assert [mosaic.load_section_image(paths, s)[0, 0] for s in (0, 1)] == [0, 1]
    assert mosaic.read_header(paths)["CHIP"] == 0  # arbitrarily the first file's
    assert mosaic.read_section_header(paths, 1)["CHIP"] == 1
    with pytest.raises(UserError, match="3 files for 2 sections"):
        mosaic.load_section_image([*paths, paths[0]], 0)


def test_an_instance_is_shared_by_name(two_chips):
    assert get_instrument_instance("two_chips") is two_chips
    assert INSTRUMENT_INSTANCE_CACHE["two_chips"] is two_chips
    assert type(two_chips)() is not two_chips
    assert get_instrument_instance("two_chips") is two_chips
    assert get_instrument_instance("TwoChips") is two_chips


def test_unknown_properties_and_names_are_refused(settings):
    with pytest.raises(UserError, match="no property 'colour'"):
        Instrument.__init__(Mosaic(), colour="red")
    with pytest.raises(NotFoundError, match="no instrument 'hubble'"):
        get_instrument_instance("hubble")
