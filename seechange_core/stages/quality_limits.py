"""Limits that images and solutions are judged by: the settings block ``quality``.

The limits of each step are its own class, so that changing one makes again what it is about and nothing
before it; the settings block holds all of them.
"""

from seechange_core.params import Params, param


class ImageLimits(Params):
    """Limits that a calibrated image is judged by."""

    max_lost_fraction: float = param(
        0.3, "Of a section's pixels; with more unusable it is flagged.", gt=0, le=1
    )
    max_sky_share: float = param(
        0.5, "Sky level above this share of the saturation level is flagged as bright.", gt=0, le=1
    )
    max_sky_e_s: float | None = param(
        None, "A brighter sky is flagged; None judges by max_sky_share alone.", unit="e-/s/pix", gt=0
    )


class SourceLimits(Params):
    """Limits that sources and PSF are judged by."""

    min_sources: int = param(10, "A section with fewer sources is flagged.", ge=0)
    max_crowding: float = param(0.2, "More sources than this on the area of FWHM^2 are flagged.", gt=0)
    max_elongation: float = param(
        1.4, "Ratio of axes of the stars' mean shape; above it the image is flagged as trailed.", gt=1
    )
    max_psf_floor: float = param(
        0.05, "A PSF with a larger relative error of fluxes is flagged as failed.", gt=0
    )
    max_noise_off: float = param(
        0.2, "Sky noise off by a larger share of what the weights say is flagged as wrong.", gt=0
    )


class AstrometryLimits(Params):
    """Limits that an astrometric solution is judged by."""

    max_wcs_rms_pix: float = param(
        0.3, "Larger residuals per axis of the stars used are flagged.", unit="pix", gt=0
    )
    max_wcs_error_pix: float = param(
        0.1, "A larger error of the solution in the middle is flagged.", unit="pix", gt=0
    )


class ZeroPointLimits(Params):
    """Limits that a photometric solution is judged by."""

    max_zp_scatter_mag: float = param(
        0.15, "More scatter of the bright stars used is flagged as big residuals.", unit="mag", gt=0
    )
    max_zp_err_mag: float = param(0.05, "A larger error is flagged as big residuals.", unit="mag", gt=0)
    max_cloud_mag: float = param(
        0.3, "A zero point so far below the night's clear ones, or the expected one, is flagged as clouded.",
        unit="mag", gt=0,
    )  # fmt: skip
    extinction_mag: float | None = param(
        None, "Extinction of clear air per airmass; None takes what is typical of the band.", unit="mag", ge=0
    )


class SubtractionLimits(Params):
    """Limits that the registration of a difference is judged by."""

    max_registration_pix: float = param(
        0.1, "A larger error of the registration by common stars is flagged.", unit="pix", gt=0
    )
    max_flux_ratio_sigma: float = param(
        3.0, "A flux ratio further off the zero points than so many times their errors is flagged.", gt=0
    )


class DetectionLimits(Params):
    """Limits that what was detected in a difference is judged by."""

    max_density_mpix: float = param(
        100.0, "More detections per million searched pixels are flagged; they make no objects or candidates.",
        unit="1/Mpix", gt=0,
    )  # fmt: skip


class QualityParams(
    ImageLimits, SourceLimits, AstrometryLimits, ZeroPointLimits, SubtractionLimits, DetectionLimits
):
    """All limits: the settings block `quality`."""
