"""One exposure as it happened, and the plan of all exposures of a survey."""

from dataclasses import dataclass, replace

import numpy as np

from seechange_core.errors import SettingsError
from seechange_core.simulate import ephemeris
from seechange_core.simulate.camera import Camera
from seechange_core.simulate.cameras.layout import SectionId
from seechange_core.simulate.geometry import SkyMap, deproject
from seechange_core.simulate.options import SurveyOptions
from seechange_core.simulate.psf import Float, PsfField
from seechange_core.simulate.trails import Trail

#: First day of the season that a survey without a start date is put in (2026-01-01).
SEASON_MJD = 61041
LOWEST_ALTITUDE_DEG = 20.0
SUN_MUST_BE_BELOW_DEG = -12.0
AUREOLE_FRACTION = 0.02
AUREOLE_CORE_ARCSEC = 3.0
AUREOLE_RADIUS_ARCSEC = 40.0
#: Magnitudes per magnitude of g - r, and the colour at which the camera agrees with the catalog.
COLOR_TERM = {"g": 0.04, "r": 0.025, "i": 0.02, "z": 0.015}
COLOR_ZERO = 0.7


@dataclass(frozen=True)
class Observation:
    """Everything that is true of one exposure.

    Attributes
    ----------
    index, night
        Number of the exposure and of its night, from 0.
    mjd_start, exposure_time_s, band
        Start (UTC), open-shutter time, filter.
    header_ra, header_dec
        What the telescope believes, deg.
    ra, dec, rotation_deg
        The sky at the middle of the mosaic, and the position angle of +y, deg.
    airmass
        At mid-exposure.
    fwhm_pix, e1, e2
        PSF in the middle of the mosaic.
    sky_e
        Sky electrons per nominal pixel in the middle of the mosaic.
    sky_slope
        Relative change of the sky per half-diagonal, along x and y.
    zp
        Magnitude of one electron in the whole exposure for throughput 1, clouds' mean included.
    cloud_waves
        (n, 4): amplitude (mag), wave numbers along x and y (rad per half-diagonal), phase.
    trails
        Satellites.
    """

    index: int
    night: int
    mjd_start: float
    exposure_time_s: float
    band: str
    header_ra: float
    header_dec: float
    ra: float
    dec: float
    rotation_deg: float
    airmass: float
    fwhm_pix: float
    e1: float
    e2: float
    sky_e: float
    sky_slope: tuple[float, float]
    zp: float
    cloud_waves: tuple[tuple[float, float, float, float], ...]
    trails: tuple[Trail, ...]

    @property
    def mjd_mid(self) -> float:
        """Middle of the exposure (UTC)."""
        return self.mjd_start + self.exposure_time_s / 2 / 86400

    def sky_map(self, camera: Camera, section: SectionId) -> SkyMap:
        """Return the true world coordinates of a section."""
        return SkyMap(
            ra=self.ra,
            dec=self.dec,
            rotation_deg=self.rotation_deg,
            parity=camera.layout.parity,
            scale_arcsec=camera.pixel_scale_arcsec,
            centre=((camera.width - 1) / 2, (camera.height - 1) / 2),
            offset=camera.section_offset(section),
            half_diagonal_pix=camera.half_diagonal_pix,
            distortion_pix=camera.layout.distortion_pix if camera.options.distortion else 0.0,
        )

    def under(self, camera: Camera, section: SectionId) -> "Observation":
        """Return the exposure as it is through the filter over a section."""
        band = camera.band(section)
        if band == self.band:
            return self
        zero = camera.zero_point_mag(band) - camera.zero_point_mag(self.band)
        sky_mag = camera.layout.dark_sky[band] - camera.layout.dark_sky[self.band]
        if camera.options.extinction:
            change = ephemeris.EXTINCTION_MAG[band] - ephemeris.EXTINCTION_MAG[self.band]
        else:
            change = 0.0
        sky_e = self.sky_e * 10 ** (-0.4 * (sky_mag - zero))
        return replace(self, band=band, zp=self.zp + zero - change * self.airmass, sky_e=sky_e)

    def psf_field(self, camera: Camera) -> PsfField:
        """Return the PSF over the focal plane."""
        options = camera.options
        varies = 1.0 if options.psf_variation else 0.0
        return PsfField(
            fwhm_pix=self.fwhm_pix,
            e1=self.e1,
            e2=self.e2,
            curvature=0.05 * varies,
            astigmatism=0.04 * varies,
            wobble=0.01 * varies,
            half_diagonal_pix=camera.half_diagonal_pix,
            aureole_fraction=AUREOLE_FRACTION if options.psf_aureole else 0.0,
            aureole_core_pix=AUREOLE_CORE_ARCSEC / camera.pixel_scale_arcsec,
            aureole_radius_pix=AUREOLE_RADIUS_ARCSEC / camera.pixel_scale_arcsec,
        )

    def cloud_mag(self, X: Float, Y: Float, half_diagonal_pix: float) -> Float:
        """Return the clouds' extinction relative to the exposure's mean, at focal-plane positions."""
        extinction = np.zeros(np.broadcast(X, Y).shape)
        for amplitude, kx, ky, phase in self.cloud_waves:
            extinction += amplitude * np.sin((kx * X + ky * Y) / half_diagonal_pix + phase)
        return extinction


def plan_observations(camera: Camera) -> list[Observation]:
    """Decide everything about a survey's exposures, in order of time.

    Raises
    ------
    SettingsError
        If the field is too low or the Sun too high at one of them.
    """
    options = camera.options
    first_night = _first_night_mjd(options)
    counts = _exposures_per_night(options)
    starts: list[tuple[int, float]] = []
    rng = np.random.default_rng([options.seed, 201])
    for night, count in enumerate(counts):
        transit = _transit_near(first_night + night * options.night_gap_days, options)
        # The middle of the night's sequence lies up to 1.5 hours before or after the transit.
        middle = transit + float(rng.uniform(-1.5, 1.5)) / 24
        step = options.cadence_min / 1440
        starts += [(night, middle + (i - (count - 1) / 2) * step) for i in range(count)]
    return [_observe(camera, index, night, mjd) for index, (night, mjd) in enumerate(starts)]


def _exposures_per_night(options: SurveyOptions) -> list[int]:
    """Spread the exposures: the reference's on the first night, the others evenly."""
    nights, total = options.nights, options.exposures
    if nights == 1:
        return [total]
    first = min(options.reference_exposures, total - (nights - 1))
    if options.reference_exposures == 0:
        return [total // nights + (i < total % nights) for i in range(nights)]
    rest = total - first
    return [first, *(rest // (nights - 1) + (i < rest % (nights - 1)) for i in range(nights - 1))]


def _first_night_mjd(options: SurveyOptions) -> float:
    """Return local midnight (UTC MJD) of the first night."""
    if options.start_date is not None:
        try:
            day = np.datetime64(options.start_date, "D")
        except ValueError:
            raise SettingsError(
                f"start_date is not a date: {options.start_date!r}", cure="write it as YYYY-MM-DD"
            ) from None
        evening = float((day - np.datetime64("1858-11-17", "D")).astype(int))
        return evening + 1.0 - options.site_longitude_deg / 360
    midnights = SEASON_MJD + np.arange(365.0) - options.site_longitude_deg / 360
    off = [
        abs((ephemeris.sidereal_deg(m, options.site_longitude_deg) - options.ra_deg + 180) % 360 - 180)
        for m in midnights
    ]
    return float(midnights[int(np.argmin(off))])


def _transit_near(mjd: float, options: SurveyOptions) -> float:
    """Return the time nearest to `mjd` when the field crosses the meridian."""
    ahead = (options.ra_deg - ephemeris.sidereal_deg(mjd, options.site_longitude_deg) + 180) % 360 - 180
    return mjd + ahead / 360.98564736629


def _airmass(options: SurveyOptions, mjd: float) -> float:
    site = options.site_latitude_deg, options.site_longitude_deg
    altitude = ephemeris.altitude_deg(options.ra_deg, options.dec_deg, mjd, *site)
    if altitude < LOWEST_ALTITUDE_DEG:
        raise SettingsError(
            f"the field is {altitude:.0f} deg above the horizon at MJD {mjd:.3f}",
            cure="change site_latitude_deg, dec_deg or start_date, or take fewer exposures a night",
        )
    sun_altitude = ephemeris.altitude_deg(*ephemeris.sun_position(mjd), mjd, *site)
    if sun_altitude > SUN_MUST_BE_BELOW_DEG:
        raise SettingsError(
            f"the Sun is at altitude {sun_altitude:.0f} deg at MJD {mjd:.3f}",
            cure="change start_date, take fewer exposures a night or shorten cadence_min",
        )
    return ephemeris.airmass_of(altitude)


def _seeing_pix(camera: Camera, index: int, airmass: float) -> float:
    """FWHM of an exposure: listed, or spread evenly over the range whatever the subset looked at."""
    options, scale = camera.options, camera.pixel_scale_arcsec
    if options.seeing_arcsec:
        return options.seeing_arcsec[index % len(options.seeing_arcsec)] / scale
    start = np.random.default_rng([options.seed, 202]).uniform()
    share = (start + index * 0.6180339887) % 1.0
    zenith = options.seeing_min_arcsec + share * (options.seeing_max_arcsec - options.seeing_min_arcsec)
    return float(np.hypot(zenith * airmass**0.6, camera.layout.blur_arcsec) / scale)


def _observe(camera: Camera, index: int, night: int, mjd: float) -> Observation:
    options = camera.options
    rng = np.random.default_rng([options.seed, 203, index])
    middle = mjd + options.exposure_time_s / 2 / 86400
    airmass = _airmass(options, middle)
    dither = rng.uniform(-1, 1, 2) * options.dither_arcsec
    header_ra, header_dec = deproject(dither[0], dither[1], options.ra_deg, options.dec_deg)
    error = rng.normal(0, 4.0, 2) * options.pointing_error
    ra, dec = deproject(error[0], error[1], float(header_ra), float(header_dec))
    rotation = camera.layout.rotation_deg
    rotation += 0.4 + float(rng.normal(0, 0.03)) if options.rotation else 0.0
    elongation, direction = rng.uniform(0, 0.06), rng.uniform(0, np.pi)
    elongation *= options.psf_ellipticity
    clouds = abs(float(rng.normal(0, 0.08))) if options.clouds else 0.0
    zp = camera.zero_point_mag(options.band) + 2.5 * np.log10(options.exposure_time_s) - clouds
    if options.extinction:
        zp -= ephemeris.EXTINCTION_MAG[options.band] * airmass
    sky_e, slope = _sky(camera, rng, middle, airmass)
    return Observation(
        index=index,
        night=night,
        mjd_start=float(np.round(mjd * 86400 * 1000) / 86400 / 1000),
        exposure_time_s=options.exposure_time_s,
        band=options.band,
        header_ra=float(header_ra),
        header_dec=float(header_dec),
        ra=float(ra),
        dec=float(dec),
        rotation_deg=rotation,
        airmass=airmass,
        fwhm_pix=_seeing_pix(camera, index, airmass),
        e1=float(elongation * np.cos(2 * direction)),
        e2=float(elongation * np.sin(2 * direction)),
        sky_e=sky_e,
        sky_slope=slope,
        zp=float(zp),
        cloud_waves=_cloud_waves(rng, clouds),
        trails=_trails(camera, rng),
    )


def _sky(
    camera: Camera, rng: np.random.Generator, mjd: float, airmass: float
) -> tuple[float, tuple[float, float]]:
    """Sky electrons per pixel, and its slope over the field."""
    options = camera.options
    area_s = options.exposure_time_s * camera.pixel_scale_arcsec**2
    nominal = camera.zero_point_mag(options.band) + 2.5 * np.log10(area_s)
    dark = 10 ** (-0.4 * (camera.layout.dark_sky[options.band] - nominal))
    ratio = float(rng.uniform(0.9, 1.1)) * (1 + 0.4 * (airmass - 1))
    moon = 0.0
    if options.moonlight:
        site = options.site_latitude_deg, options.site_longitude_deg
        moon = ephemeris.moonlight_ratio(options.ra_deg, options.dec_deg, mjd, *site)
    direction = float(rng.uniform(0, 2 * np.pi))
    slope = (0.01 + 0.02 * moon / (1 + moon)) if options.sky_gradient else 0.0
    return float(dark * (ratio + moon)), (slope * float(np.cos(direction)), slope * float(np.sin(direction)))


def _cloud_waves(rng: np.random.Generator, clouds: float) -> tuple[tuple[float, float, float, float], ...]:
    """Patches: waves of some per cent of the clouds' mean extinction, half a field and more across."""
    waves = []
    for _ in range(4):
        amplitude, angle = 0.04 * clouds * rng.uniform(), rng.uniform(0, 2 * np.pi)
        k, phase = rng.uniform(1.0, 5.0), rng.uniform(0, 2 * np.pi)
        waves.append((float(amplitude), float(k * np.cos(angle)), float(k * np.sin(angle)), float(phase)))
    return tuple(waves) if clouds > 0 else ()


def _trails(camera: Camera, rng: np.random.Generator) -> tuple[Trail, ...]:
    options = camera.options
    width, height = camera.extent_pix
    faint, bright = np.log(options.satellite_faint_e_pix), np.log(options.satellite_bright_e_pix)
    return tuple(
        Trail(
            float(rng.uniform(-0.5, 0.5) * width),
            float(rng.uniform(-0.5, 0.5) * height),
            float(rng.uniform(0, np.pi)),
            float(np.exp(rng.uniform(faint, bright))),
        )
        for _ in range(rng.poisson(options.satellites))
    )
