"""A whole processed survey against its truth, in numbers and light curves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from seechange_core.chain.light_curve_table import LightCurveTable
from seechange_core.chain.light_curves import (
    Epoch,
    all_epochs,
    object_light_curve,
    present_provenances,
)
from seechange_core.frames import Float
from seechange_core.numerics.sky import separation
from seechange_core.products.object import Object
from seechange_core.qa.score import Fraction, Pulls, completeness, nearest, pulls
from seechange_core.settings import Settings, use_settings
from seechange_core.simulate import SurveyTruth, load_truth
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session
from seechange_core.verify.sections import (
    Changes,
    TruthRows,
    judge_changes,
    position_errors_mas,
    zero_point_error_mag,
)

SNR_EDGES = (3.0, 5.0, 7.0, 10.0, 20.0)
#: A transient counts as injected if it was ever this significant on a difference: others can't be found.
FINDABLE_SNR = 7.0
#: An object is the transient within this.
SAME_PLACE_ARCSEC = 0.8


@dataclass(frozen=True, eq=False)
class TransientCurve:
    """A found transient: our light curve and the true one.

    Attributes
    ----------
    name, truth_id
        Ours and the simulator's.
    measured
        Forced fluxes on differences.
    true_mjd, true_mag
        Of each exposure, by the section's mean zero point; NaN before it went off.
    """

    name: str
    truth_id: int
    measured: LightCurveTable
    true_mjd: Float
    true_mag: Float


@dataclass(frozen=True, eq=False)
class Summary:
    """What came out, in figures; see `to_json` for their names and units."""

    exposures: int
    sections: int
    subtracted_sections: int
    astrometric_rms_mas: float
    zero_point_error_mmag: float
    zero_point_worst_mmag: float
    completeness: dict[str, Fraction]
    false_per_section: float
    false_positive: int
    false_negative: int
    flux_pull_median: float
    flux_pull_width: float
    flux_pull_median_err: float
    flux_pull_width_err: float
    flux_pull_n: int
    flux_pull_outliers: float
    light_curve_pull_median: float
    light_curve_pull_width: float
    light_curve_pull_n: int
    transients_found: int
    transients_injected: int
    curves: tuple[TransientCurve, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        plain: dict[str, Any] = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in {"curves", "completeness"}
        }
        plain = {k: round(v, 4) if isinstance(v, float) else v for k, v in plain.items()}
        plain["completeness"] = {
            name: {**asdict(f), "value": None if f.total == 0 else round(f.value, 4)}
            for name, f in self.completeness.items()
        }
        return plain


def summarise(settings: Settings, survey: Path) -> Summary:
    """Compare everything a survey's processing made with the simulator's truth.

    Parameters
    ----------
    settings
        Of the processing.
    survey
        Folder that the simulator wrote.
    """
    truth = load_truth(survey)
    archive = Archive(settings)
    with use_settings(settings):
        images = all_epochs(settings, "image")
        differences = all_epochs(settings, "difference")
        offsets, zero_points = [], []
        for epoch, rows in _paired(images, truth):
            sources, wcs = epoch.sources(archive)
            offsets.append(position_errors_mas(wcs, rows))
            zero_points.append(zero_point_error_mag(sources, epoch.rows.zero_point.zp, rows)[0])
        changes = [judge_changes(settings, epoch, rows) for epoch, rows in _paired(differences, truth)]
        curves = tuple(_curves(settings, truth))
        mean_zp = {(e.exposure.name, e.rows.image.section_id): e.rows.zero_point.zp for e in differences}
    return _summary(images, offsets, np.array(zero_points), changes, curves, curve_pulls(curves, mean_zp))


def _summary(
    images: list[Epoch],
    offsets: list[Float],
    zero_points: Float,
    changes: list[Changes],
    curves: tuple[TransientCurve, ...],
    curve_pull: Pulls,
) -> Summary:
    all_offsets = np.concatenate(offsets) if offsets else np.array([np.nan])
    joined = {
        name: np.concatenate([getattr(c.transients, name) for c in changes] or [np.empty(0)])
        for name in ("object_id", "true_flux_e", "flux_e", "flux_err_e", "snr", "found")
    }
    lit = joined["true_flux_e"] > 0
    # Fluxes are judged wherever they were forced, lit or not, found or not: nothing selects them.
    pull = pulls(joined["flux_e"], joined["flux_err_e"], joined["true_flux_e"])
    findable = np.unique(joined["object_id"][joined["snr"] >= FINDABLE_SNR])
    found = {c.truth_id for c in curves} & {int(i) for i in findable}
    n_positive = sum(c.n_false_positive for c in changes)
    n_negative = sum(c.n_false_negative for c in changes)
    return Summary(
        exposures=len({e.exposure.name for e in images}),
        sections=len(images),
        subtracted_sections=len(changes),
        astrometric_rms_mas=float(np.sqrt(np.mean(all_offsets**2))),
        zero_point_error_mmag=float(1000 * np.sqrt(np.nanmean(zero_points**2)))
        if len(zero_points)
        else np.nan,
        zero_point_worst_mmag=float(1000 * np.nanmax(np.abs(zero_points))) if len(zero_points) else np.nan,
        completeness=completeness(joined["snr"][lit], joined["found"][lit].astype(bool), SNR_EDGES),
        false_per_section=(n_positive + n_negative) / max(1, len(changes)),
        false_positive=n_positive,
        false_negative=n_negative,
        flux_pull_median=pull.median,
        flux_pull_width=pull.width,
        flux_pull_median_err=pull.median_err,
        flux_pull_width_err=pull.width_err,
        flux_pull_n=pull.n,
        flux_pull_outliers=_outliers(joined["flux_e"], joined["flux_err_e"], joined["true_flux_e"]),
        light_curve_pull_median=curve_pull.median,
        light_curve_pull_width=curve_pull.width,
        light_curve_pull_n=curve_pull.n,
        transients_found=len(found),
        transients_injected=len(findable),
        curves=curves,
    )


def _outliers(flux: Float, error: Float, true: Float) -> float:
    """Return the fraction of pulls beyond 4: the tails that a robust width does not see."""
    pull = (flux - true) / error
    pull = pull[np.isfinite(pull)]
    return float(np.mean(np.abs(pull) > 4)) if len(pull) else 0.0


def curve_pulls(curves: Sequence[TransientCurve], mean_zp: Mapping[tuple[str, str], float]) -> Pulls:
    """Return the pulls of the light curves as stored: at our own positions, of what was found.

    Parameters
    ----------
    curves
        True magnitudes go by the true mean zero point of a section, with the patches of clouds still in
        them, as in our electrons.
    mean_zp
        Ours by exposure and section, which makes electrons of them: not that at the place.
    """
    columns: list[tuple[Float, Float, Float]] = []
    for curve in curves:
        table = curve.measured
        index = nearest(table.mjd_mid[:, None], curve.true_mjd[:, None], 1e-4)
        known = index >= 0
        places = zip(table.exposure[known].tolist(), table.section[known].tolist(), strict=True)
        zp = np.array([mean_zp.get(p, own) for p, own in zip(places, table.zp[known].tolist(), strict=True)])
        true = 10 ** (-0.4 * (curve.true_mag[index[known]] - zp))
        columns.append((table.flux[known], table.flux_err[known], np.nan_to_num(true)))
    if not columns:
        return pulls([], [], [])
    flux, error, expected = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return pulls(flux, error, expected)


def _stem(file: object) -> str:
    """Return a raw file's name without what says how it is written: the exposure's name."""
    return Path(str(file)).name.removesuffix(".fz").removesuffix(".fits")


def _paired(epochs: list[Epoch], truth: SurveyTruth) -> Iterator[tuple[Epoch, TruthRows]]:
    """Yield each epoch with its truth."""
    stems = np.array([_stem(f) for f in truth.exposures["file"]])
    table = truth.epochs
    rows_of = np.array([_stem(f) for f in np.unique(table["file"])])
    index = dict(zip(rows_of, np.unique(table["file"]), strict=True))
    for epoch in epochs:
        name, section = epoch.exposure.name, epoch.rows.image.section_id
        here = (stems == name) & (np.asarray(truth.exposures["section"]).astype(str) == section)
        in_section = np.asarray(table["section"]).astype(str) == section
        rows = table[(table["file"] == index[name]) & in_section]
        yield (
            epoch,
            TruthRows(
                object_id=np.asarray(rows["id"]),
                kind=np.asarray(rows["kind"]).astype(str),
                x=np.asarray(rows["x"], float),
                y=np.asarray(rows["y"], float),
                ra=np.asarray(rows["ra"], float),
                dec=np.asarray(rows["dec"], float),
                flux_e=np.asarray(rows["flux_e"], float),
                masked=np.asarray(rows["on_masked"], bool),
                saturated=np.asarray(rows["saturated"], bool),
                zp=float(truth.exposures["zp"][here][0]),
            ),
        )


def _curves(settings: Settings, truth: SurveyTruth) -> Iterator[TransientCurve]:
    """Yield the light curves of the injected transients that became objects, the brightest first."""
    with open_session(settings, read_only=True) as session:
        present = present_provenances(session, settings, "measurement")
        query = select(Object).where(Object.n_sightings > 0, Object.provenance_id.in_(present))
        objects = list(session.scalars(query))
    if not objects:
        return
    ra, dec = np.array([o.ra for o in objects]), np.array([o.dec for o in objects])
    injected = truth.objects[truth.objects["kind"] == "transient"]
    injected.sort("mag_r")
    zero_points = {(str(r["file"]), str(r["section"])): r for r in truth.exposures}
    for row in injected:
        distance = separation(float(row["ra"]), float(row["dec"]), ra, dec) * 3600
        best = int(np.argmin(distance))
        if distance[best] > SAME_PLACE_ARCSEC:
            continue
        seen = truth.epochs[truth.epochs["id"] == row["id"]]
        facts = [zero_points[str(r["file"]), str(r["section"])] for r in seen]
        with np.errstate(divide="ignore"):
            mags = np.array(
                [f["zp"] - 2.5 * np.log10(r["flux_e"]) for f, r in zip(facts, seen, strict=True)], float
            )
        yield TransientCurve(
            objects[best].name,
            int(row["id"]),
            object_light_curve(settings, objects[best].name),
            np.array([f["mjd_mid"] for f in facts], float),
            np.where(np.isfinite(mags), mags, np.nan),
        )
