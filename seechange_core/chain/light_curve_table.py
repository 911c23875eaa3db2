"""What a light curve is: fluxes of one place at every epoch, and what can be said of them."""

from dataclasses import dataclass, field, fields

import numpy as np

from seechange_core.catalogs.magnitudes import RELATIVE, ab_offset_mag, system_of
from seechange_core.constants import MAG_PER_RELATIVE
from seechange_core.flags import QualityFlag
from seechange_core.frames import Float, Table
from seechange_core.products.forced_flux import LIMIT_SIGMA

#: Zero point of a flux in microjansky, for AB magnitudes.
MICROJANSKY_ZP = 23.9

#: Columns of what was before: what they hold where nothing is known.
_UNKNOWN: dict[str, float | int | str] = {
    "reference_flux": np.nan,
    "reference_flux_err": np.nan,
    "in_reference_flux": 0.0,
    "in_reference_flux_err": 0.0,
    "n_reference": 0,
    "n_reference_later": 0,
    "band": "",
    "chi2": np.nan,
    "usable_fraction": np.nan,
    "depth_flux": np.nan,
    "quiet_before_mjd": np.nan,
}


def _not_given() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True, eq=False)
class LightCurveTable(Table):
    """Forced fluxes of one place, one row per exposure that covers it, in the order of time.

    Attributes
    ----------
    exposure, section, filter
        (n,) text.
    mjd_mid, bjd_tdb
        Middle of the exposure, UTC; barycentric, NaN where the site is unknown.
    flux, flux_err
        Electrons; of the difference from the reference, or of all light there.
    zp, zp_err
        ``mag = zp - 2.5 log10(flux)``, at the place in each image; of a difference, that of the references,
        as common stars bring it over. The error is common to all stars of an image and part of no other error
        here. NaN where an ensemble was asked for that does not tie the epoch to the others.
    flags
        `PixelFlag` bits near the place.
    quality
        `QualityFlag` bits of the image or difference.
    reference_flux, reference_flux_err
        PSF flux at the place in the very reference that was subtracted, electrons of this epoch; NaN where
        none was, or it is not known.
    in_reference_flux, in_reference_flux_err
        What to add to `flux` so that all epochs of a filter are counted from one level: what of the
        reference's flux is the object's own, or by what it differs from that of the other epochs' reference
        (see `reference_flux.with_references`). NaN where it is needed and not known. The error is that of
        the level before.
    n_reference, n_reference_later
        Of how many exposures the reference was made, and of how many at or after the first sighting.
    band
        The catalog's band that the zero point is of.
    chi2, usable_fraction
        Reduced chi square of the fit, and the share of the PSF's light on usable pixels.
    depth_flux
        How much brighter than the reference a source is that the search in the difference would have found
        there in half of all cases, electrons: as measured around (`SourceList.depth`), or as the error of the
        flux tells where other light shines (`could_see.found_in_half`). NaN where nothing was searched.
    quiet_before_mjd
        Before that the object is taken not to shine, MJD; NaN if nothing tells.
    """

    exposure: np.ndarray
    section: np.ndarray
    filter: np.ndarray
    mjd_mid: Float
    bjd_tdb: Float
    flux: Float
    flux_err: Float
    zp: Float
    zp_err: Float
    flags: np.ndarray
    quality: np.ndarray
    reference_flux: Float = field(default_factory=_not_given)
    reference_flux_err: Float = field(default_factory=_not_given)
    in_reference_flux: Float = field(default_factory=_not_given)
    in_reference_flux_err: Float = field(default_factory=_not_given)
    n_reference: np.ndarray = field(default_factory=_not_given)
    n_reference_later: np.ndarray = field(default_factory=_not_given)
    band: np.ndarray = field(default_factory=_not_given)
    chi2: Float = field(default_factory=_not_given)
    usable_fraction: Float = field(default_factory=_not_given)
    depth_flux: Float = field(default_factory=_not_given)
    quiet_before_mjd: Float = field(default_factory=_not_given)

    def __post_init__(self) -> None:
        for name, value in _UNKNOWN.items():
            if len(getattr(self, name)) != len(self):
                object.__setattr__(self, name, np.full(len(self), value))

    @property
    def own_flux(self) -> Float:
        """The object's flux, electrons: that of the difference, counted from one level at all epochs."""
        return np.asarray(self.flux + self.in_reference_flux, float)

    @property
    def own_flux_err(self) -> Float:
        """Its error."""
        return np.asarray(np.hypot(self.flux_err, self.in_reference_flux_err), float)

    @property
    def total_flux(self) -> Float:
        """Of all light at the place, electrons: the difference and the reference it is from.

        It does not depend on the reference, so exposures with different ones (such as those that each leave
        their own exposure out) are on one scale.
        """
        return np.asarray(self.flux + self.reference_flux, float)

    @property
    def total_flux_err(self) -> Float:
        """Its error: the reference's noise is in the difference already, and cancels out of the sum."""
        return self.flux_err

    @property
    def system(self) -> np.ndarray:
        """(n,) text: what the magnitudes are, AB, Vega, or relative where they have no physical zero."""
        relative = self.quality.astype(np.int64) & int(QualityFlag.RELATIVE) > 0
        return np.where(relative, RELATIVE, [system_of(band) for band in self.band.tolist()])

    @property
    def mag(self) -> Float:
        """Magnitude of the object's flux; NaN where it is not positive."""
        return _mag(self.own_flux, self.zp)

    @property
    def mag_err(self) -> Float:
        """Its error from that of the flux alone."""
        return _mag_err(self.own_flux, self.own_flux_err)

    @property
    def limiting_mag(self) -> Float:
        """Magnitude of 5 errors of the object's flux: the upper limit at a place that is known beforehand."""
        return _mag(LIMIT_SIGMA * self.own_flux_err, self.zp)

    @property
    def depth_mag(self) -> Float:
        """How bright the object is that the search, which knew of no place, finds in half of all cases.

        It is that of `depth_flux` and of its own light in the reference: what was not found was fainter in
        most cases, also where the difference would be as negative.
        """
        return _mag(self.depth_flux + self.in_reference_flux, self.zp)

    @property
    def total_mag(self) -> Float:
        """Magnitude of all light at the place."""
        return _mag(self.total_flux, self.zp)

    @property
    def total_mag_err(self) -> Float:
        """Its error from that of the flux alone."""
        return _mag_err(self.total_flux, self.total_flux_err)

    @property
    def ab_offset_mag(self) -> Float:
        """(n,) what to add to magnitudes to make them AB; NaN where they have no physical zero."""
        offset = np.array([ab_offset_mag(band) for band in self.band.tolist()], float)
        return np.where(self.system == RELATIVE, np.nan, offset)

    def microjansky(self, flux: Float) -> Float:
        """Convert electrons of each epoch to microjansky; NaN where magnitudes have no physical zero."""
        return np.asarray(flux * 10 ** (0.4 * (MICROJANSKY_ZP - self.zp - self.ab_offset_mag)), float)

    def measured(self) -> dict[str, np.ndarray]:
        """Return all columns by name: what was measured, and the magnitudes and fluxes that follow."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        followed = ("mag", "mag_err", "limiting_mag", "depth_mag", "total_mag", "total_mag_err")
        return {
            **known,
            "system": self.system,
            **{name: getattr(self, name) for name in followed},
            "flux_ujy": self.microjansky(self.own_flux),
            "flux_err_ujy": self.microjansky(self.own_flux_err),
            "total_ujy": self.microjansky(self.total_flux),
            "total_err_ujy": self.microjansky(self.total_flux_err),
        }


def _mag(flux: Float, zp: Float) -> Float:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(flux > 0, zp - 2.5 * np.log10(flux), np.nan))


def _mag_err(flux: Float, flux_err: Float) -> Float:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(flux > 0, MAG_PER_RELATIVE * flux_err / flux, np.nan))
