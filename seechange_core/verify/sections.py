"""One section of a simulated exposure against its truth."""

from dataclasses import dataclass

import numpy as np
from sqlalchemy import select

from seechange_core.chain.light_curves import Epoch
from seechange_core.chain.steps_force import measure_difference
from seechange_core.frames import Bool, Float, Sources, WcsSolution
from seechange_core.numerics.sky import separation
from seechange_core.products.image import Image
from seechange_core.products.measurement import Measurement
from seechange_core.products.sighting import Sighting
from seechange_core.products.source_list import SourceList
from seechange_core.qa.score import nearest
from seechange_core.settings import Settings
from seechange_core.stages.force import ForceParams
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session

#: Two positions are the same source within this; half the width of good seeing.
MATCH_PIX = 2.5
#: Stars that judge a zero point: bright enough that their own noise does not matter.
BRIGHT_SNR = 50.0


@dataclass(frozen=True, eq=False)
class TruthRows:
    """The truth of one section: one entry per object that lies on it.

    Attributes
    ----------
    object_id, kind
        The simulator's number and word for it.
    x, y, ra, dec
        Pixels and ICRS deg at that moment.
    flux_e
        Electrons, all of the light.
    masked, saturated
        On a defect; saturated.
    zp
        Magnitude of one electron: a number for the section.
    """

    object_id: np.ndarray
    kind: np.ndarray
    x: Float
    y: Float
    ra: Float
    dec: Float
    flux_e: Float
    masked: Bool
    saturated: Bool
    zp: float

    def of(self, *kinds: str) -> "TruthRows":
        """Return the rows of certain kinds."""
        return self.rows(np.isin(self.kind, kinds))

    def rows(self, keep: np.ndarray) -> "TruthRows":
        """Return some rows."""
        columns = {name: getattr(self, name)[keep] for name in self.__dataclass_fields__ if name != "zp"}
        return TruthRows(**columns, zp=self.zp)

    @property
    def xy(self) -> Float:
        """(n, 2) pixels."""
        return np.column_stack([self.x, self.y])


def position_errors_mas(wcs: WcsSolution, truth: TruthRows) -> Float:
    """Return the errors of the astrometric solution at the true positions of the stars, (2 n,) mas.

    Not of our centroids: the truth's pixels go through our solution and are compared with its sky.
    """
    stars = truth.of("star")
    ra, dec = wcs.to_sky(stars.x, stars.y)
    east = separation(stars.ra, dec, ra, dec) * np.sign(np.mod(ra - stars.ra + 180, 360) - 180)
    return np.concatenate([east, dec - stars.dec]) * 3.6e6


def zero_point_error_mag(sources: Sources, zp: float, truth: TruthRows) -> tuple[float, float]:
    """Return by how much calibrated magnitudes of bright, lone stars are off: median and its error.

    Taken from the magnitudes themselves, so that the shares of light that PSF fluxes leave out and
    the zero point puts back cancel, as they do for a user. Both zero points are means over the section:
    the patches of clouds are in the electrons of both.
    """
    stars = truth.of("star")
    stars = stars.rows(~stars.masked & ~stars.saturated)
    good = sources.select(
        (sources.snr > BRIGHT_SNR) & (sources.flags == 0) & ~sources.blended & sources.is_star
    )
    index = nearest(np.column_stack([good.x, good.y]), stars.xy, 1.0)
    found = index >= 0
    ours = zp - 2.5 * np.log10(good.flux_psf[found])
    true = truth.zp - 2.5 * np.log10(stars.flux_e[index[found]])
    if found.sum() < 3:
        return np.nan, np.nan
    spread = 0.7413 * np.subtract(*np.percentile(ours - true, [75, 25]))
    return float(np.median(ours - true)), float(1.25 * spread / np.sqrt(found.sum()))


@dataclass(frozen=True, eq=False)
class TransientEpochs:
    """Every injected transient on one difference, and what was made of it.

    Attributes
    ----------
    object_id, kind
        Of the simulator.
    true_flux_e
        On the flux scale of our photometry.
    flux_e, flux_err_e
        Forced at the true position; NaN where no pixel is usable.
    snr
        True signal to noise; where nothing could be measured, with the section's median error.
    found
        A good measurement lies there.
    """

    object_id: np.ndarray
    true_flux_e: Float
    flux_e: Float
    flux_err_e: Float
    snr: Float
    found: Bool


@dataclass(frozen=True, eq=False)
class Changes:
    """What was found on one difference.

    Attributes
    ----------
    transients
        All injected ones, lit or not.
    n_false_positive, n_false_negative
        Good measurements where nothing changed, brightened or faded.
    false_snr
        Their scores.
    """

    transients: TransientEpochs
    n_false_positive: int
    n_false_negative: int
    false_snr: Float


def judge_changes(settings: Settings, epoch: Epoch, truth: TruthRows) -> Changes:
    """Judge one difference against its truth."""
    measured, score = _good_measurements(settings, epoch)
    changing = truth.of("transient", "variable", "asteroid")
    lit = changing.rows(changing.flux_e > 0)
    is_true = nearest(measured, lit.xy, MATCH_PIX) >= 0
    false = score[~is_true]
    return Changes(
        # A transient brightens: the dark lobe of a residual beside it is no find.
        _transients(settings, epoch, truth.of("transient"), measured[score > 0]),
        int(np.sum(false > 0)),
        int(np.sum(false < 0)),
        false,
    )


def _transients(settings: Settings, epoch: Epoch, truth: TruthRows, measured: Float) -> TransientEpochs:
    if epoch.difference is None:
        raise ValueError("an epoch without a difference")
    frame = epoch.difference.read_subtraction(Archive(settings))
    params = settings.params(ForceParams, "force", epoch.exposure.instrument)
    forced = measure_difference(
        frame.image, frame.psf, epoch.rows.wcs.solution(), truth.ra, truth.dec, params
    )
    # Ours and the truth's fluxes differ by the zero points: theirs counts all light, ours what the PSF holds.
    # These are means over the section, as the patches of clouds are in the electrons of both.
    true_flux = truth.flux_e * 10 ** (0.4 * (epoch.rows.zero_point.zp - truth.zp))
    typical = float(np.nanmedian(forced.flux_err)) if np.isfinite(forced.flux_err).any() else np.nan
    error = np.where(np.isfinite(forced.flux_err), forced.flux_err, typical)
    return TransientEpochs(
        truth.object_id,
        true_flux,
        forced.flux,
        forced.flux_err,
        true_flux / error,
        nearest(truth.xy, measured, MATCH_PIX) >= 0,
    )


def _good_measurements(settings: Settings, epoch: Epoch) -> tuple[Float, Float]:
    """Return the pixels (n, 2) and scores of the good measurements of a difference."""
    image = epoch.difference
    query = (
        select(Measurement.x, Measurement.y, Sighting.score)
        .join(Sighting, Sighting.id == Measurement.sighting_id)
        .join(SourceList, SourceList.id == Sighting.source_list_id)
        .join(Image, Image.id == SourceList.image_id)
        .where(Image.id == (image.id if image is not None else None), Measurement.is_bad.is_(False))
    )
    with open_session(settings, read_only=True) as session:
        rows = [(x, y, score) for x, y, score in session.execute(query)]
    table = np.array(rows, float).reshape(-1, 3)
    return table[:, :2], table[:, 2]
