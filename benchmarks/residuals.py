"""What the corrections leave in an image, against what is known to have been put in.

Each effect of the detector adds a known pattern to the image. All patterns are fitted together, with
the noise's own weights, to image minus truth: an effect that was not corrected comes out as 1, one that was
as 0, within its error. "Before" is the same image made without that one correction.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import select

from seechange_core.frames import Float, ImageFrame, Masters, RawFrame
from seechange_core.products.calibrator import Calibrator
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import Image
from seechange_core.settings import Settings
from seechange_core.simulate import Camera, SurveyTruth, make_world
from seechange_core.simulate.camera import true_crosstalk
from seechange_core.simulate.section import expected_light
from seechange_core.simulate.truth import fringe_pattern, true_illumination, true_sky_e
from seechange_core.stages.preprocess import PreprocessParams, preprocess
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session

CORRECTIONS = ("bias", "dark", "flat", "crosstalk", "linearity", "fringe", "illumination")
#: Pixels fitted: every so many along each axis.
STEP = 2
#: Where sources add less than this fraction of the noise, the sky is blank.
BLANK = 0.1


class _Section(NamedTuple):
    raw: RawFrame
    masters: Masters
    params: PreprocessParams
    expected: Float
    sky: Float
    patterns: dict[str, Float]


def residuals(settings: Settings, truth: SurveyTruth, exposure: str) -> list[dict[str, Any]]:
    """Compare the images of an exposure with the truth, section by section.

    Returns
    -------
    list of dict
        Rows: correction, section, before, after, error (of both), what.
    """
    world = make_world(truth.options)
    rows: list[dict[str, Any]] = []
    for section in truth.options.section_names:
        made = _load(settings, world, exposure, section)
        frame = preprocess(made.raw, made.masters, made.params)
        left, errors = _fit(frame, made)
        for name in CORRECTIONS:
            params = made.params.model_copy(update={f"do_{name}": False})
            without = preprocess(made.raw, _believed(made.masters), params)
            before, _ = _fit(without, made)
            rows.append(
                _row(name, section, before[name], left[name], errors[name], "share of the effect left")
            )
        rows += _amplifiers(frame, made, section)
    return rows


def _believed(masters: Masters) -> Masters:
    """Return masters that nobody knows how they were read out: what is compared here is unlike on purpose."""
    unknown = {
        kind: replace(master, calibration_steps=None)
        for kind in ("flat", "dark")
        if (master := getattr(masters, kind)) is not None
    }
    return replace(masters, **unknown)


def _row(correction: str, section: str, before: float | None, after: float, error: float, what: str) -> Any:
    return {
        "correction": correction, "section": section, "before": before, "after": after, "error": error,
        "what": what,
    }  # fmt: skip


def _load(settings: Settings, world: Any, exposure: str, section: str) -> _Section:
    archive = Archive(settings)
    with open_session(settings, read_only=True) as session:
        row = session.scalars(select(Exposure).where(Exposure.name == exposure)).one()
        image = session.scalars(
            select(Image).where(Image.exposure_id == row.id, Image.section_id == section)
        ).one()
        ids = {k: getattr(image, f"{k}_id") for k in Masters.__dataclass_fields__}
        used = {k: session.get_one(Calibrator, i) for k, i in ids.items() if i is not None}
        raw = row.load_raw_frame(section)
        masters = Masters(**{kind: calibrator.read(archive) for kind, calibrator in used.items()})
    camera, observation = world.camera, world.observations[0]
    light = expected_light(camera, world.sky, observation, section)
    fringed_sky = true_sky_e(camera, observation, section)
    sky = fringed_sky / (1 + fringe_pattern(camera, section))
    params = settings.params(PreprocessParams, "preprocess", row.instrument)
    patterns = _patterns(camera, section, raw.exposure_time_s, light)
    patterns["fringe"] = fringed_sky - sky
    return _Section(raw, masters, params, light - patterns["fringe"], sky, patterns)


def _patterns(camera: Camera, section: str, seconds: float, light: Float) -> dict[str, Float]:
    """Return what the detector's effects add to the finished image, electrons, (H, W) float64."""
    detector = camera.detector(section)
    response = np.where(detector.bad, np.nan, detector.response)
    charge = light * detector.response + detector.dark_e_s * seconds
    added = {
        "bias": np.zeros(camera.shape),
        "dark": detector.dark_e_s * seconds / response,
        "flat": light * (response - 1),
        "crosstalk": np.zeros(camera.shape),
        "linearity": np.zeros(camera.shape),
        "illumination": light * (true_illumination(camera, section) - 1),
    }
    ghosts = true_crosstalk(camera, section)
    halves = [area.image.slices for area in camera.raw_areas(section)]
    for victim, source in ((0, 1), (1, 0)):
        here, there = halves[victim], halves[source]
        mine, other = camera.amplifiers(section)[victim], camera.amplifiers(section)[source]
        signal_adu = np.minimum(charge[there], other.full_well_e)[:, ::-1] / other.gain
        added["bias"][here] = detector.bias_adu[here] * mine.gain / response[here]
        added["crosstalk"][here] = ghosts[victim, source] * signal_adu * mine.gain / response[here]
        added["linearity"][here] = -mine.curvature * charge[here] ** 2 / response[here]
    return added


def _fit(frame: ImageFrame, made: _Section) -> tuple[dict[str, float], dict[str, float]]:
    """Fit all patterns, and the light itself, to image minus truth."""
    every = (slice(None, None, STEP), slice(None, None, STEP))
    good = (frame.weight[every] > 0) & np.isfinite(made.patterns["bias"][every])
    expected = made.expected[every][good]
    extra = np.maximum(expected - made.sky[every][good], 0)
    sigma = np.sqrt(1 / frame.weight[every][good].astype(float) + extra)
    design = np.stack([made.patterns[name][every][good] / sigma for name in CORRECTIONS] + [expected / sigma])
    target = (frame.data[every][good] - expected) / sigma
    # Outliers are cosmic rays that were missed: one look at the scatter is enough.
    kept = np.abs(target - np.median(target)) < 6
    normal = design[:, kept] @ design[:, kept].T
    values = np.linalg.solve(normal, design[:, kept] @ target[kept])
    errors = np.sqrt(np.diag(np.linalg.inv(normal)))
    names = (*CORRECTIONS, "light")
    return dict(zip(names, values.tolist(), strict=True)), dict(zip(names, errors.tolist(), strict=True))


def _amplifiers(frame: ImageFrame, made: _Section, section: str) -> list[dict[str, Any]]:
    """Compare the noise in blank sky with the weights, and the two amplifiers' electrons with each other."""
    rows, scales = [], []
    for amplifier in made.raw.amplifiers:
        place = amplifier.image.slices
        weight, expected, sky = frame.weight[place], made.expected[place], made.sky[place]
        sigma = 1 / np.sqrt(np.where(weight > 0, weight, np.nan))
        blank = (weight > 0) & (expected - sky < BLANK * sigma) & (frame.flags[place] == 0)
        pulls = ((frame.data[place] - expected) / sigma)[blank]
        pulls = pulls[np.abs(pulls - np.median(pulls)) < 5]
        what = f"noise / predicted noise in blank sky, amplifier {amplifier.name}"
        rows.append(_row("weight", section, None, float(pulls.std()), (2 * pulls.size) ** -0.5, what))
        share = float(np.mean((frame.data[place] / expected)[blank]))
        scales.append((share, float(np.mean(sigma[blank] / expected[blank]) / np.sqrt(pulls.size))))
    (left, left_error), (right, right_error) = scales
    what = "right amplifier's electrons / left's - 1, truth divided out"
    raw = made.raw.amplifiers
    rows.append(
        _row("gain", section, raw[0].gain / raw[1].gain - 1, right / left - 1,
             float(np.hypot(left_error, right_error)), what)
    )  # fmt: skip
    return rows
