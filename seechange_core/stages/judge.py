"""Judge images and solutions: what is bad there, as `QualityFlag` bits with the figures that say so.

A flag never changes a product, and most never stop a section: a trailed or clouded image still has sources
that somebody may want, and who does not want them asks for ``bitflag = 0``. A section stops, with a typed
reason, only where going on makes no sense; the stages themselves raise that: no light at all
(`DeadSection`), too few stars for a PSF or a match (`NoStars`), nothing to match with (`NoCatalog`), no match
beyond chance or one that fits badly (`NoSolution`), more extinction than
``photometry.max_extinction_mag`` against the expected zero point (`Clouded`). `flags_of_stop` says which bits
such a reason stands for.

The limits of each step are its own class, so that changing one makes again what it is about and nothing
before it; the settings block ``quality`` holds all of them.
"""

from typing import NamedTuple

import numpy as np

from seechange_core.flags import UNUSABLE, PixelFlag, QualityFlag
from seechange_core.frames import (
    Background,
    CommonStars,
    Depth,
    Float,
    ImageFrame,
    PsfModel,
    Sources,
    WcsSolution,
    ZeroPointSolution,
)
from seechange_core.params import Params, param

CODE_VERSION = "1"

#: Extinction of clear air by the start of a band's name, mag per airmass (sites of 1 to 3 km).
TYPICAL_EXTINCTION_MAG = {
    **{"u": 0.45, "g": 0.18, "r": 0.10, "i": 0.07, "z": 0.06, "y": 0.06},
    **{"U": 0.50, "B": 0.25, "V": 0.15, "R": 0.10, "I": 0.06, "BP": 0.20, "RP": 0.09, "G": 0.14},
}
#: Share of a night's exposures whose zero points may be too high by mistake.
_TOO_HIGH = 0.2
#: What the clear sky itself varies by.
_CLEAR_MAG = 0.01
#: S/N of stars whose shapes are looked at.
_SHAPE_SNR = 20.0
#: With fewer stars their mean shape says little.
_SHAPE_STARS = 5
#: So many in a section are no crowd, however small it is.
_FEW_DETECTIONS = 30


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


class Verdict(NamedTuple):
    """What is bad, and why.

    Attributes
    ----------
    flags
        Bits; 0 is good.
    reasons
        One sentence for each bit, with the figure and its limit.
    """

    flags: QualityFlag
    reasons: tuple[str, ...] = ()

    def __or__(self, other: "Verdict") -> "Verdict":
        return Verdict(self.flags | other.flags, self.reasons + other.reasons)

    @property
    def words(self) -> str:
        """All reasons in one line."""
        return "; ".join(self.reasons)


GOOD = Verdict(QualityFlag(0))

_STOPS = {
    "no_stars": QualityFlag.TOO_FEW_SOURCES,
    "trailed": QualityFlag.TRAILED,
    "no_catalog": QualityFlag.NO_CATALOG,
    "no_answer": QualityFlag.NO_CATALOG,
    "no_solution": QualityFlag.MATCH_FAILED,
    "clouded": QualityFlag.CLOUDS,
}


def flags_of_stop(step: str, reason: str) -> QualityFlag:
    """Return the bits that a step's typed reason for stopping stands for; 0 if it is not about quality.

    Without stars there is no PSF either, which is what `source_list` wanted them for.
    """
    starless = step == "source_list" and reason in ("no_stars", "trailed")
    return _STOPS.get(reason, QualityFlag(0)) | (QualityFlag.PSF_FAILED if starless else QualityFlag(0))


def judge_image(image: ImageFrame, limits: ImageLimits) -> Verdict:
    """Judge a calibrated image by its lost pixels and its sky.

    The sky is the median of the usable pixels, so it counts some starlight in a crowd.

    Returns
    -------
    Verdict
        `MANY_PIXELS_LOST`, `BRIGHT_SKY` or nothing.
    """
    # One pixel in some fifty is plenty; steps without a common divisor with any amplifier's width.
    sample = np.s_[::7, ::7]
    usable = (image.weight[sample] > 0) & (image.flags[sample] & np.uint16(UNUSABLE) == 0)
    lost = float(1 - usable.mean())
    verdict = _above(
        QualityFlag.MANY_PIXELS_LOST, "the share of lost pixels is", lost, limits.max_lost_fraction
    )
    if not usable.any():
        return verdict
    sky_e = float(np.median(image.data[sample][usable]))
    share = sky_e / image.saturation_e
    verdict |= _above(QualityFlag.BRIGHT_SKY, "the sky over saturation is", share, limits.max_sky_share)
    if limits.max_sky_e_s is not None and image.exposure_time_s > 0:
        rate = sky_e / image.exposure_time_s
        verdict |= _above(QualityFlag.BRIGHT_SKY, "the sky is", rate, limits.max_sky_e_s, "e-/s/pix")
    return verdict


def judge_psf(psf: PsfModel, limits: SourceLimits) -> Verdict:
    """Judge a PSF by how well it fits its own stars: `PSF_FAILED` or nothing."""
    return _above(QualityFlag.PSF_FAILED, "the PSF's relative error is", psf.floor, limits.max_psf_floor)


def judge_sources(sources: Sources, psf: PsfModel, background: Background, limits: SourceLimits) -> Verdict:
    """Judge sources by their number and by the shape that all stars share.

    Parameters
    ----------
    sources, psf, background
        Of the section.
    limits
        To judge by.

    Returns
    -------
    Verdict
        `TOO_FEW_SOURCES`, `TOO_MANY_SOURCES`, `TRAILED` or nothing.
    """
    n, pixels = len(sources), background.shape[0] * background.shape[1]
    verdict = GOOD
    if n < limits.min_sources:
        words = f"{n} sources, at least {limits.min_sources} wanted"
        verdict = Verdict(QualityFlag.TOO_FEW_SOURCES, (words,))
    crowding = n * psf.fwhm_pix**2 / pixels
    verdict |= _above(
        QualityFlag.TOO_MANY_SOURCES, "the sources on FWHM^2 are", crowding, limits.max_crowding
    )
    elongation = common_elongation(sources)
    return verdict | _above(
        QualityFlag.TRAILED, "the stars' common elongation is", elongation, limits.max_elongation
    )


def noise_over_predicted(image: ImageFrame, background: Background) -> float:
    """Return the sky's measured scatter, sources masked, over what the weights say; NaN without weights.

    Where it is not 1, every error of a faint source is off by as much: a wrong gain or read noise, or noise
    that pixels share.
    """
    known = image.weight[image.weight > 0]
    predicted = 1 / np.sqrt(np.median(known)) if known.size else np.nan
    return float(np.median(background.rms) / predicted)


def judge_noise(ratio: float, limits: SourceLimits) -> Verdict:
    """Judge the noise by its measured over its predicted value: `NOISE_WRONG` or nothing."""
    why = "undetected sources, or gain and readout noise" if ratio > 1 else "gain and readout noise"
    what = f"the sky's noise is {ratio:.3g} times the predicted one ({why}): off by a share of"
    return _above(QualityFlag.NOISE_WRONG, what, abs(ratio - 1), limits.max_noise_off)


def common_elongation(sources: Sources) -> float:
    """Measure the elongation that the stars of a section have in common.

    The medians over the stars of the two components of ellipticity ``(a^2 - b^2) / (a^2 + b^2)`` times
    ``cos 2 theta`` and ``sin 2 theta`` are those of a trail, which points the same way everywhere. Galaxies,
    pairs and a PSF that the optics elongate outwards point in all directions and leave no median.

    Returns
    -------
    float
        Ratio of axes, at least 1; NaN with too few stars.
    """
    spoiled = int(UNUSABLE | PixelFlag.NON_LINEAR)
    clean = ((sources.flags & spoiled) == 0) & np.isfinite(sources.elongation) & (sources.elongation >= 1)
    clean &= (sources.snr > _SHAPE_SNR) & np.isfinite(sources.theta_rad)
    for choosier in (sources.is_star, ~sources.blended):
        if np.count_nonzero(clean & choosier) >= _SHAPE_STARS:
            clean = clean & choosier
    if np.count_nonzero(clean) < _SHAPE_STARS:
        return float("nan")
    square = sources.elongation[clean] ** 2
    ellipticity, angle = (square - 1) / (square + 1), 2 * sources.theta_rad[clean]
    common = np.hypot(np.median(ellipticity * np.cos(angle)), np.median(ellipticity * np.sin(angle)))
    return float(np.sqrt((1 + common) / (1 - common)))


def judge_wcs(wcs: WcsSolution, limits: AstrometryLimits) -> Verdict:
    """Judge an astrometric solution by its residuals and its error: `BIG_RESIDUALS` or nothing."""
    mas_pix = 1e3 * wcs.pixel_scale_arcsec
    rms, error = wcs.rms_mas / mas_pix, wcs.error_mas / mas_pix
    flag = QualityFlag.BIG_RESIDUALS
    verdict = _above(flag, "the residuals per axis are", rms, limits.max_wcs_rms_pix, "pix")
    return verdict | _above(flag, "the solution's error is", error, limits.max_wcs_error_pix, "pix")


def judge_zero_point(zero_point: ZeroPointSolution, limits: ZeroPointLimits) -> Verdict:
    """Judge a photometric solution by the scatter of its stars and its error: `BIG_RESIDUALS` or nothing."""
    flag = QualityFlag.BIG_RESIDUALS
    verdict = _above(flag, "the scatter is", zero_point.scatter_mag, limits.max_zp_scatter_mag, "mag")
    return verdict | _above(flag, "the error is", zero_point.zp_err, limits.max_zp_err_mag, "mag")


def cloud_extinction(
    zp: Float,
    zp_err: Float | float,
    exposure_times_s: Float,
    airmasses: Float,
    band: str,
    limits: ZeroPointLimits,
) -> Float:
    """Tell how much light the clouds took in each exposure of a night of one section in one filter.

    Clouds only ever take light, so the clear sky is the upper envelope of the zero points, reduced to one
    second and to airmass 0. Its level is that of the value that a fifth of the exposures exceed (the highest
    where there are up to five): so many may be too high by mistake, and all others may be clouded. The level
    is the mean of all that agree with that value, or its noise would have it too high. It depends on the set
    of exposures and not on their order.

    Parameters
    ----------
    zp
        (n,) zero points of whole exposures, mag; the airmass is in them.
    zp_err
        (n,), or one for all.
    exposure_times_s, airmasses
        (n,) each; an airmass that is not known (finite) is taken as the mean of the others. A time that is
        not above 0 tells nothing: that exposure is left out.
    band
        Name of the catalog's band, for its typical extinction.
    limits
        To judge by; here, `extinction_mag`.

    Returns
    -------
    ndarray
        (n,) magnitudes below the level of the clear sky; 0 or less where it is clear, 0 of what is left out.
    """
    told = exposure_times_s > 0
    lost = np.zeros(len(zp))
    if not told.any():
        return lost
    clear = zp[told] - clear_zero_point(0.0, exposure_times_s[told], airmasses[told], band, limits)
    error = np.hypot(np.broadcast_to(zp_err, len(zp))[told], _CLEAR_MAG)
    top = np.argsort(-clear, kind="stable")[int(_TOO_HIGH * (len(clear) - 1))]
    alike = np.sort(clear[np.abs(clear - clear[top]) <= 2 * np.hypot(error, error[top])])
    lost[told] = alike.mean() - clear
    return lost


def clear_zero_point(
    one_second_mag: float, exposure_times_s: Float, airmasses: Float, band: str, limits: ZeroPointLimits
) -> Float:
    """Give the zero points of exposures in a clear sky.

    Parameters
    ----------
    one_second_mag
        Zero point of one second at airmass 0.
    exposure_times_s, airmasses
        (n,) each; an airmass that is not known (finite) is taken as the mean of the others, or as 1.
    band
        Name of the catalog's band, for its typical extinction.
    limits
        Here, `extinction_mag`.

    Returns
    -------
    ndarray
        (n,) mag; NaN where the time is not above 0.
    """
    known = np.isfinite(airmasses)
    filled = np.where(known, airmasses, airmasses[known].mean() if known.any() else 1.0)
    times = np.where(exposure_times_s > 0, exposure_times_s, np.nan)
    return np.asarray(one_second_mag + 2.5 * np.log10(times) - _extinction_mag(band, limits) * filled)


def judge_clouds(extinction_mag: float, zp_err: float, limits: ZeroPointLimits) -> Verdict:
    """Judge an exposure by what the clouds took: `CLOUDS` or nothing.

    What is within twice the zero point's error of the limit is given the benefit of the doubt.
    """
    limit = limits.max_cloud_mag + 2 * zp_err
    return _above(QualityFlag.CLOUDS, "the clouds took", extinction_mag, limit, "mag")


def judge_registration(stars: CommonStars, zp_err: float, limits: SubtractionLimits) -> Verdict:
    """Judge how an image and its reference were brought together: `MISREGISTERED` or nothing.

    Parameters
    ----------
    stars
        What their common stars say.
    zp_err
        Error of the difference of both zero points, mag; NaN is not judged by.
    limits
        To judge by.
    """
    flag = QualityFlag.MISREGISTERED
    sigma_pix = max(stars.sigma_x_pix, stars.sigma_y_pix)
    if stars.n_stars == 0:
        # The solutions may do without.
        if sigma_pix <= limits.max_registration_pix:
            return GOOD
        return Verdict(flag, ("too few common stars tell shift and flux ratio to the reference",))
    verdict = _above(flag, "the registration's error is", sigma_pix, limits.max_registration_pix, "pixels")
    off_mag = abs(2.5 * np.log10(stars.flux_ratio))
    own_mag = 2.5 / np.log(10) * stars.flux_ratio_err / stars.flux_ratio
    limit_mag = limits.max_flux_ratio_sigma * float(np.hypot(zp_err, own_mag))
    return verdict | _above(flag, "flux ratio and zero points differ by", off_mag, limit_mag, "mag")


def judge_detections(n_detections: int, depth: Depth, limits: DetectionLimits) -> Verdict:
    """Judge the detections of a difference by their number: `TOO_DENSE` or nothing.

    In a small section a few tens are no crowd, however dense they are.
    """
    searched_mpix = depth.searched_fraction * depth.shape[0] * depth.shape[1] / 1e6
    if not searched_mpix > 0:
        return GOOD
    limit = max(limits.max_density_mpix, _FEW_DETECTIONS / searched_mpix)
    density = n_detections / searched_mpix
    return _above(QualityFlag.TOO_DENSE, "the detections are", density, limit, "per million pixels")


def _extinction_mag(band: str, limits: ZeroPointLimits) -> float:
    if limits.extinction_mag is not None:
        return limits.extinction_mag
    known = (band[:length] for length in (2, 1))
    # Of a band without a name we know: green light.
    return next((TYPICAL_EXTINCTION_MAG[name] for name in known if name in TYPICAL_EXTINCTION_MAG), 0.15)


def _above(flag: QualityFlag, words: str, value: float, limit: float, unit: str = "") -> Verdict:
    """Return the flag if a figure is above its limit; a figure that is not known is not judged."""
    if not value > limit:
        return GOOD
    return Verdict(flag, (f"{words} {value:.3g}{' ' if unit else ''}{unit}, at most {limit:g} wanted",))
