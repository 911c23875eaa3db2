"""What a simulated survey is made of: every number and switch that can be asked for."""

from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from seechange_core.params import Params, param


class SurveyOptions(Params):
    """Options of `simulate_survey`; the same options, seed included, give the same files bit for bit."""

    camera: Literal["demo", "decam", "ls4"] = param(
        "demo", "Whose files are written: demo, decam or ls4 (its filters are an array)"
    )
    section_names: tuple[str, ...] = param(
        (), "CCDs that are in the files, e.g. N4,S4 of decam or NE_A of ls4; none: all"
    )
    window_pix: tuple[int, int] | None = param(
        None, "Width and height of the window in the middle of each CCD that is read out; none: all of it",
        unit="pix",
    )  # fmt: skip
    seed: int = param(1, "Seed of everything random", ge=0)
    exposures: int = param(12, "Science exposures", ge=1, le=10_000)
    nights: int = param(4, "Nights they are spread over", ge=1)
    reference_exposures: int = param(
        4, "Exposures of the first night, all taken before any transient goes off", ge=0
    )
    night_gap_days: int = param(2, "Days from one night to the next", unit="d", ge=1)
    cadence_min: float = param(9.0, "Time between exposures of a night", unit="min", gt=0)
    start_date: str | None = param(
        None, "Evening date YYYY-MM-DD of the first night; none: when the field is up at midnight in 2026"
    )
    exposure_time_s: float = param(60.0, "Open-shutter time", unit="s", gt=0)
    band: Literal["g", "r", "i", "z"] = param("r", "Filter (ls4 has its own)")

    ra_deg: float = param(150.1, "Right ascension of the field's centre", unit="deg", ge=0, lt=360)
    dec_deg: float = param(2.2, "Declination of the field's centre", unit="deg", ge=-90, le=90)
    site_latitude_deg: float = param(-30.17, "Latitude of the site", unit="deg", ge=-90, le=90)
    site_longitude_deg: float = param(-70.81, "Its longitude, east positive", unit="deg", ge=-180, le=180)
    site_elevation_m: float = param(2200.0, "Elevation of the site", unit="m")

    sections: int = param(
        4, "Sections of the demo camera; they fill the mosaic row by row from the lower left", ge=1, le=100
    )
    section_size_pix: int = param(
        1024, "Side of a section of the demo camera; even", unit="pix", ge=64, le=8192
    )
    gap_pix: int = param(40, "Gap between sections of the demo camera", unit="pix", ge=0)
    dead_sections: tuple[str, ...] = param((), "Sections that give no signal, only bias and read noise")
    bad_amplifiers: tuple[str, ...] = param(
        (), "Amplifiers that give no signal, by section and name, e.g. S7-B"
    )
    pixel_scale_arcsec: float = param(0.27, "Pixel scale of the demo camera", unit="arcsec", gt=0)
    zero_point_mag: float | None = param(
        None, "Magnitude that gives one electron a second above the atmosphere; none: the camera's own, "
              "25.9 for demo", unit="mag",
    )  # fmt: skip
    gain_e_adu: float = param(
        2.0, "Mean gain of the demo camera; each amplifier has its own, within 5 %", unit="e-/ADU", gt=0
    )
    read_noise_e: float = param(
        5.0, "Mean read noise of the demo camera; 0 switches it off in any", unit="e-", ge=0
    )

    seeing_min_arcsec: float = param(
        0.85, "Best seeing at the zenith (FWHM); ls4's optics blur it further", unit="arcsec", gt=0
    )
    seeing_max_arcsec: float = param(1.35, "Worst seeing at the zenith (FWHM)", unit="arcsec", gt=0)
    seeing_arcsec: tuple[float, ...] = param(
        (),
        "Delivered FWHM of each exposure in turn instead of the range; repeats",
        unit="arcsec",
    )
    dither_arcsec: float = param(8.0, "Largest dither along each axis", unit="arcsec", ge=0)
    parity: Literal[1, -1] = param(1, "Of the demo camera; 1: north up, east left; -1: mirrored")

    star_density: float = param(9.5, "Stars brighter than r = 23.2", unit="arcmin^-2", ge=0)
    galaxy_density: float = param(5.0, "Galaxies brighter than r = 23", unit="arcmin^-2", ge=0)
    faint_mag: float | None = param(None, "Faintest star or galaxy; none: 24.0, of ls4 22.5", unit="mag")
    transients: int = param(24, "Transients: on galaxy cores and arms, near bright stars, near edges, "
                            "on bad pixels and hostless, in turn", ge=0)  # fmt: skip
    transient_bright_mag: float = param(18.5, "Brightest peak of a transient", unit="mag")
    transient_faint_mag: float = param(22.0, "Faintest peak of a transient", unit="mag")
    variables: int = param(16, "Variable stars", ge=0)
    asteroids: int = param(4, "Asteroids; each crosses the field in one night after the reference's", ge=0)
    asteroid_slow_arcsec_h: float = param(8.0, "Motion of the slowest asteroid", unit="arcsec/h", gt=0)
    asteroid_fast_arcsec_h: float = param(
        60.0, "Motion of the fastest; near the Earth some thousands", unit="arcsec/h", gt=0
    )

    n_bias: int = param(9, "Bias frames", ge=0)
    n_dark: int = param(5, "Dark frames", ge=0)
    n_flat: int = param(7, "Dome flats", ge=0)
    n_twilight: int = param(0, "Twilight flats, each fainter than the one before, some stars in them", ge=0)
    dark_time_s: float = param(120.0, "Exposure time of a dark", unit="s", gt=0)
    flat_level_e: float = param(40_000.0, "Level of a dome flat", unit="e-", gt=0)
    flat_gradient: float = param(
        0.003,
        "Error of the dome's illumination from one corner of the mosaic to the opposite; 0 switches it off",
    )
    flat_radial: float = param(
        0.0,
        "By how much more the dome lights the mosaic's middle than its corners, relative to the sky",
        ge=0,
    )
    calibrators: bool = param(
        False,
        "Write the true crosstalk, linearity, fringes and illumination as files under truth/calibrators",
    )

    catalog_faint_mag: float = param(21.0, "Limit of the reference catalog", unit="mag")
    catalog_errors: bool = param(True, "Errors of position, motion and magnitude in the catalog")
    catalog_missing: float = param(0.03, "Fraction of stars missing from the catalog", ge=0, le=1)
    catalog_spurious: float = param(0.01, "Entries with nothing on the sky, per real entry", ge=0, le=1)
    catalog_outliers: float = param(0.01, "Fraction of entries much further off than they say", ge=0, le=1)
    catalog_galaxies_as_stars: float = param(0.15, "Fraction of its galaxies listed as stars", ge=0, le=1)

    photon_noise: bool = param(True, "Poisson noise of the light")
    proper_motions: bool = param(True, "Proper motions of stars")
    psf_variation: bool = param(True, "PSF that varies over the field")
    psf_ellipticity: bool = param(True, "PSF elongated by guiding, differently in each exposure")
    psf_aureole: bool = param(True, "Wide wings of scattered light")
    distortion: bool = param(True, "Optical distortion")
    pointing_error: bool = param(True, "Pointing that differs from the header's by some arcseconds")
    rotation: bool = param(True, "Camera rotated by up to a degree")
    extinction: bool = param(True, "Atmospheric extinction with airmass")
    color_term: bool = param(True, "Filter that differs from the catalog's")
    clouds: bool = param(True, "Thin patchy clouds")
    sky_gradient: bool = param(True, "Sky brightness with a gradient")
    moonlight: bool = param(True, "Moonlight")
    flat_structure: bool = param(True, "Vignetting, dust and pixel-to-pixel response")
    edge_roll_off: bool = param(True, "Response that rolls off within some pixels of a section's edges")
    bias_structure: bool = param(True, "Fixed pattern and drift of the bias level")
    dark_current: bool = param(True, "Dark current, hot pixels included")
    bad_pixels: bool = param(True, "Dead pixels and columns, and hot pixels if there is dark current")
    saturation: bool = param(True, "Full wells that bleed along columns")
    nonlinearity: bool = param(False, "Amplifiers that lose 2 % at the saturation level, those of decam "
                                      "and ls4 1 to 3 %")  # fmt: skip
    crosstalk: float = param(
        0.0, "Signal of an amplifier that its neighbour reads too, of typical amplifiers", ge=0, le=0.1
    )
    fringing: float = param(
        0.0, "Amplitude of fringes in science exposures, relative to the sky", ge=0, le=0.5
    )
    cosmic_rays: float = param(0.4, "Cosmic-ray hits; 0 switches them off", unit="s^-1 Mpix^-1", ge=0)
    satellites: float = param(0.15, "Satellite trails per exposure; 0 switches them off", ge=0)
    satellite_faint_e_pix: float = param(
        300.0, "Light of the faintest trail per pixel of its length", unit="e-", gt=0
    )
    satellite_bright_e_pix: float = param(6000.0, "Light of the brightest trail", unit="e-", gt=0)

    @field_validator("dead_sections", "section_names", mode="before")
    @classmethod
    def _as_names(cls, value: Any) -> Any:
        """Take section numbers as names."""
        return tuple(str(v) for v in value) if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.section_size_pix % 2:
            raise ValueError("section_size_pix must be even: two amplifiers share a section")
        if self.seeing_min_arcsec > self.seeing_max_arcsec:
            raise ValueError("seeing_min_arcsec is larger than seeing_max_arcsec")
        if any(value <= 0 for value in self.seeing_arcsec):
            raise ValueError("seeing_arcsec must be positive")
        if self.satellite_faint_e_pix > self.satellite_bright_e_pix:
            raise ValueError("satellite_faint_e_pix is more than satellite_bright_e_pix")
        if self.asteroid_slow_arcsec_h > self.asteroid_fast_arcsec_h:
            raise ValueError("asteroid_slow_arcsec_h is more than asteroid_fast_arcsec_h")
        if self.transient_bright_mag > self.transient_faint_mag:
            raise ValueError("transient_bright_mag is fainter than transient_faint_mag")
        if self.cadence_min * 60 < self.exposure_time_s + 1:
            raise ValueError(
                f"cadence_min is shorter than an exposure of {self.exposure_time_s} s and its readout"
            )
        if self.nights > self.exposures:
            raise ValueError(
                f"{self.nights} nights need at least as many exposures, not {self.exposures}: "
                "ask for fewer nights or more exposures"
            )
        self._check_camera()
        return self

    def _check_camera(self) -> None:
        """Refuse sections, amplifiers and windows that the camera does not have."""
        # Known to this function only, so that the names and help of the options need none of it.
        from seechange_core.simulate.cameras import chosen_sections, layout_of  # noqa: PLC0415

        chosen_sections(self)
        layout = layout_of(self)
        amplifiers = [f"{ccd.section}-{name}" for ccd in layout.ccds for name in ccd.amplifiers]
        strange = [name for name in self.bad_amplifiers if name not in amplifiers]
        if strange:
            raise ValueError(
                f"{self.camera} has no amplifier {', '.join(strange)}: "
                f"they are {amplifiers[0]} to {amplifiers[-1]}"
            )
        if self.window_pix is not None:
            for size, full in zip(self.window_pix, (layout.width, layout.height), strict=True):
                if not 64 <= size <= full or size % 2:
                    raise ValueError(f"window_pix must be even, from 64 to {layout.width} x {layout.height}")
