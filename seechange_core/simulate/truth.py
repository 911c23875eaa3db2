"""What is true of the detectors: the answers that calibrations should find, as arrays and as files.

The files are calibrators as an observatory would supply them; a survey holds them under
``truth/calibrators`` when its option `calibrators` asks for them.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from astropy.table import Table

from seechange_core.simulate.calibration import dome_illumination
from seechange_core.simulate.camera import Camera, SimulatedAmplifier, true_crosstalk
from seechange_core.simulate.cameras import Unit
from seechange_core.simulate.cameras.layout import SectionId
from seechange_core.simulate.files import write_ecsv, write_raw
from seechange_core.simulate.observation import Observation
from seechange_core.simulate.psf import Float
from seechange_core.simulate.section import fringe_pattern, sky_level
from seechange_core.simulate.trails import draw_trail

__all__ = [
    "fringe_pattern",
    "true_crosstalk",
    "true_illumination",
    "true_linearity",
    "true_sky_e",
    "true_trails_e",
    "write_calibrators",
]

#: Points of a linearity table: straight lines between them are right to some thousandths of an ADU.
LINEARITY_POINTS = 257


def true_linearity(camera: Camera, section: SectionId) -> tuple[Float, Float]:
    """Return what a section's amplifiers read and what they should have read.

    Returns
    -------
    Two (2, 257) float64, the left amplifier first: measured and true ADU above the zero level, from 0 to
    the full well.
    """
    measured, true = zip(*map(_linearity, camera.amplifiers(section)), strict=True)
    return np.array(measured), np.array(true)


def _linearity(amplifier: SimulatedAmplifier) -> tuple[Float, Float]:
    true = np.linspace(0.0, amplifier.full_well_adu - amplifier.bias_adu, LINEARITY_POINTS)
    return true * (1 - amplifier.curvature * amplifier.gain * true), true


def true_illumination(camera: Camera, section: SectionId) -> Float:
    """Return the smooth response to the sky that a perfect dome flat leaves, (H, W), median 1."""
    left = 1 / dome_illumination(camera, section)
    return np.asarray(left / np.median(left))


def true_sky_e(camera: Camera, observation: Observation, section: SectionId) -> Float:
    """Return the expected sky, fringes included, (H, W) electrons in the flat-fielded system."""
    level = sky_level(camera, observation.under(camera, section), section)
    return level * (1 + fringe_pattern(camera, section)) if camera.options.fringing > 0 else level


def true_trails_e(camera: Camera, observation: Observation, section: SectionId) -> Float:
    """Return the expected light of satellites alone, (H, W) electrons in the flat-fielded system."""
    light = np.zeros(camera.shape)
    psf = observation.under(camera, section).psf_field(camera)
    for trail in observation.trails:
        draw_trail(light, trail, psf, camera.focal_offset(section))
    return light


def write_calibrators(folder: Path, camera: Camera) -> list[Path]:
    """Write the truth about every effect that is switched on as supplied calibrator files.

    ``fringe.fits`` (per electron of sky) and ``illumination.fits`` hold a float32 image per section,
    EXTNAME being its name; ``linearity.ecsv`` has the columns section, amplifier, measured_adu, true_adu
    (ADU above the zero level), ``crosstalk.ecsv`` section, victim, source, coefficient.

    Parameters
    ----------
    folder
        Where; made if missing.
    camera
        Whose sections.

    Returns
    -------
    The files written.
    """
    options = camera.options
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    images: dict[str, tuple[bool, Callable[[Camera, SectionId], Float]]] = {
        "fringe": (options.fringing > 0, fringe_pattern),
        "illumination": (options.flat_gradient > 0 or options.flat_radial > 0, true_illumination),
    }
    for kind, (is_on, make) in images.items():
        if is_on:
            cards = {"OBSTYPE": kind, "CAMERA": camera.layout.name, "NEXTEND": len(camera.sections)}
            path = folder / f"{kind}.fits"
            write_raw(path, cards, _images(camera, make), compressed=False)
            written.append(path)
    tables = {
        "linearity": (options.nonlinearity, _linearity_rows),
        "crosstalk": (options.crosstalk > 0, _crosstalk_rows),
    }
    for kind, (is_on, rows) in tables.items():
        if is_on:
            path = folder / f"{kind}.ecsv"
            write_ecsv(Table(rows=list(rows(camera))), path)
            written.append(path)
    return written


def _images(camera: Camera, make: Callable[[Camera, SectionId], Float]) -> Iterator[Unit]:
    for section in camera.sections:
        cards = {"EXTNAME": str(section), "FILTER": camera.band(section)}
        yield make(camera, section).astype(np.float32), cards


def _linearity_rows(camera: Camera) -> Iterator[dict[str, object]]:
    for section in camera.sections:
        for amplifier in camera.amplifiers(section):
            for measured, true in zip(*_linearity(amplifier), strict=True):
                yield {
                    "section": str(section), "amplifier": amplifier.name,
                    "measured_adu": float(measured), "true_adu": float(true),
                }  # fmt: skip


def _crosstalk_rows(camera: Camera) -> Iterator[dict[str, object]]:
    for section in camera.sections:
        coefficients = true_crosstalk(camera, section)
        names = camera.ccd(section).amplifiers
        for victim, source in ((0, 1), (1, 0)):
            yield {
                "section": str(section), "victim": names[victim], "source": names[source],
                "coefficient": float(coefficients[victim, source]),
            }  # fmt: skip
