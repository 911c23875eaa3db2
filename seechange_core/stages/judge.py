"""Judge images and solutions: what is bad there, as `QualityFlag` bits with the figures that say so.

A flag never changes a product, and most never stop a section: a trailed or clouded image still has sources
that somebody may want, and who does not want them asks for ``bitflag = 0``. A section stops, with a typed
reason, only where going on makes no sense; the stages themselves raise that: no light at all
(`DeadSection`), too few stars for a PSF or a match (`NoStars`), nothing to match with (`NoCatalog`), no match
beyond chance or one that fits badly (`NoSolution`), more extinction than
``photometry.max_extinction_mag`` against the expected zero point (`Clouded`). `flags_of_stop` says which bits
such a reason stands for.
"""

from typing import NamedTuple

import numpy as np

from seechange_core.constants import MAG_PER_RELATIVE
from seechange_core.flags import UNUSABLE, PixelFlag, QualityFlag
from seechange_core.frames import (
    Background,
    CommonStars,
    Depth,
    ImageFrame,
    PsfModel,
    Sources,
    WcsSolution,
    ZeroPointSolution,
)
from seechange_core.stages.quality_limits import (
    AstrometryLimits,
    DetectionLimits,
    ImageLimits,
    SourceLimits,
    SubtractionLimits,
    ZeroPointLimits,
)

CODE_VERSION = "1"

#: S/N of stars whose shapes are looked at.
_SHAPE_SNR = 20.0
#: With fewer stars their mean shape says little.
_SHAPE_STARS = 5
#: So many in a section are no crowd, however small it is.
_FEW_DETECTIONS = 30


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
    verdict = above(
        QualityFlag.MANY_PIXELS_LOST, "the share of lost pixels is", lost, limits.max_lost_fraction
    )
    if not usable.any():
        return verdict
    sky_e = float(np.median(image.data[sample][usable]))
    share = sky_e / image.saturation_e
    verdict |= above(QualityFlag.BRIGHT_SKY, "the sky over saturation is", share, limits.max_sky_share)
    if limits.max_sky_e_s is not None and image.exposure_time_s > 0:
        rate = sky_e / image.exposure_time_s
        verdict |= above(QualityFlag.BRIGHT_SKY, "the sky is", rate, limits.max_sky_e_s, "e-/s/pix")
    return verdict


def judge_psf(psf: PsfModel, limits: SourceLimits) -> Verdict:
    """Judge a PSF by how well it fits its own stars: `PSF_FAILED` or nothing."""
    return above(QualityFlag.PSF_FAILED, "the PSF's relative error is", psf.floor, limits.max_psf_floor)


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
    verdict |= above(QualityFlag.TOO_MANY_SOURCES, "the sources on FWHM^2 are", crowding, limits.max_crowding)
    elongation = common_elongation(sources)
    return verdict | above(
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
    return above(QualityFlag.NOISE_WRONG, what, abs(ratio - 1), limits.max_noise_off)


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
    verdict = above(flag, "the residuals per axis are", rms, limits.max_wcs_rms_pix, "pix")
    return verdict | above(flag, "the solution's error is", error, limits.max_wcs_error_pix, "pix")


def judge_zero_point(zero_point: ZeroPointSolution, limits: ZeroPointLimits) -> Verdict:
    """Judge a photometric solution by the scatter of its stars and its error: `BIG_RESIDUALS` or nothing."""
    flag = QualityFlag.BIG_RESIDUALS
    verdict = above(flag, "the scatter is", zero_point.scatter_mag, limits.max_zp_scatter_mag, "mag")
    return verdict | above(flag, "the error is", zero_point.zp_err, limits.max_zp_err_mag, "mag")


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
    verdict = above(flag, "the registration's error is", sigma_pix, limits.max_registration_pix, "pixels")
    off_mag = abs(2.5 * np.log10(stars.flux_ratio))
    own_mag = MAG_PER_RELATIVE * stars.flux_ratio_err / stars.flux_ratio
    limit_mag = limits.max_flux_ratio_sigma * float(np.hypot(zp_err, own_mag))
    return verdict | above(flag, "flux ratio and zero points differ by", off_mag, limit_mag, "mag")


def judge_detections(n_detections: int, depth: Depth, limits: DetectionLimits) -> Verdict:
    """Judge the detections of a difference by their number: `TOO_DENSE` or nothing.

    In a small section a few tens are no crowd, however dense they are.
    """
    searched_mpix = depth.searched_fraction * depth.shape[0] * depth.shape[1] / 1e6
    if not searched_mpix > 0:
        return GOOD
    limit = max(limits.max_density_mpix, _FEW_DETECTIONS / searched_mpix)
    density = n_detections / searched_mpix
    return above(QualityFlag.TOO_DENSE, "the detections are", density, limit, "per million pixels")


def above(flag: QualityFlag, words: str, value: float, limit: float, unit: str = "") -> Verdict:
    """Return the flag if a figure is above its limit; a figure that is not known is not judged.

    Parameters
    ----------
    flag
        What it is then.
    words
        Before the figure, in the reason.
    value, limit, unit
        The figure.
    """
    if not value > limit:
        return GOOD
    return Verdict(flag, (f"{words} {value:.3g}{' ' if unit else ''}{unit}, at most {limit:g} wanted",))
