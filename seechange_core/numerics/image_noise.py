"""Sky and background variance of an image that has been calibrated."""

from dataclasses import replace

import numpy as np

from seechange_core.flags import CalibrationStep
from seechange_core.frames import Bool, Float32, Masters
from seechange_core.numerics.coarse_sky import SkyMesh, coarse_sky, neighbour_noise
from seechange_core.numerics.linearity import noise_slope, table_of
from seechange_core.numerics.noise_model import DarkCharge, NoiseModel, strips
from seechange_core.numerics.stats import mad_sigma
from seechange_core.numerics.working_image import WorkingImage

#: Measured and predicted variance of a prepared image may differ by this factor.
_PREDICTABLE = 1.5


def map_skies(work: WorkingImage, cell_pix: int) -> list[SkyMesh]:
    """Map sky level and scatter, each amplifier by itself (their levels may differ)."""
    usable = work.usable()
    meshes = []
    for amplifier, read_e2 in zip(work.raw.amplifiers, work.read_e2, strict=True):
        place = amplifier.image.slices
        # Others may have averaged what they prepared: then even the read noise is less.
        floor = 0.0 if work.raw.prepared is not None else np.sqrt(read_e2)
        meshes.append(coarse_sky(work.data[place], usable[place], cell_pix, float(floor)))
    known = [mesh for mesh in meshes if np.isfinite(mesh.level).all()]
    if known:
        level = float(np.median(np.concatenate([mesh.level.ravel() for mesh in known])))
        sigma = float(np.median(np.concatenate([mesh.sigma.ravel() for mesh in known])))
    else:
        pixels = work.data[usable]
        level, sigma = float(np.median(pixels)), mad_sigma(pixels)
    return [
        mesh
        if np.isfinite(mesh.level).all()
        else replace(mesh, level=np.full_like(mesh.level, level), sigma=np.full_like(mesh.sigma, sigma))
        for mesh in meshes
    ]


def background_variance(
    work: WorkingImage,
    skies: list[SkyMesh],
    masters: Masters,
    *,
    measured: bool,
    holds_pedestal: bool,
    cell_pix: int,
    least_response: float,
) -> Float32:
    """Return the background variance of each pixel, and fill what is no number with the sky.

    Predicted by `numerics.noise_model.NoiseModel`, unless the sky's level says nothing about its noise:
    where a zero level is still in the data, and in a prepared image without weights whose scatter
    differs from the prediction by more than a factor 1.5 in variance (its sky was subtracted, or
    its units are not what they are said to be). There the scatter between neighbouring dark pixels counts,
    which stars do not enter. When asked, the scatter of the whole sky counts: that of images whose
    neighbouring pixels share noise.

    Parameters
    ----------
    work
        Calibrated; the holes in its data are filled.
    skies
        From `map_skies`.
    masters
        Those that were asked for.
    measured
        Whether to use the scatter of the sky in any case.
    holds_pedestal
        Whether the zero level is still in the data.
    cell_pix
        Mesh of the dark's level.
    least_response
        Responses below it were not divided by.

    Returns
    -------
    ndarray
        (H, W) float32, electrons^2.
    """
    variance = np.zeros_like(work.data)
    usable = work.usable() if masters.dark is not None else np.ones((1, 1), dtype=np.bool_)
    for index, (amplifier, mesh) in enumerate(zip(work.raw.amplifiers, skies, strict=True)):
        model = _noise_model(work, index, mesh, masters, usable, cell_pix, least_response)
        noise = mesh if measured else _measured_instead(work, index, model, mesh, holds_pedestal)
        for place, rows in strips(amplifier.image):
            sky = mesh.level_rows(rows)
            if noise is not None:
                variance[place] = noise.sigma_rows(rows) ** 2
            else:
                variance[place] = model.variance(place, rows, sky, _given(work, place, amplifier.gain))
            hole = ~np.isfinite(work.data[place])
            work.data[place][hole] = sky[hole]
    if sum(a.image.shape[0] * a.image.shape[1] for a in work.raw.amplifiers) < work.data.size:
        # Pixels that no amplifier reads.
        work.data[~np.isfinite(work.data)] = np.median(np.concatenate([m.level.ravel() for m in skies]))
    return variance


def _given(work: WorkingImage, place: tuple[slice, slice], gain: float) -> Float32 | None:
    """Return the variance that came with a prepared image, electrons^2; NaN where it has no weight."""
    prepared = work.raw.prepared
    if prepared is None or prepared.weight is None:
        return None
    weight = prepared.weight[place]
    known: Float32 = np.where(weight > 0, weight, np.float32(np.nan))
    return np.float32(gain**2) / known


def _noise_model(
    work: WorkingImage,
    index: int,
    mesh: SkyMesh,
    masters: Masters,
    usable: Bool,
    cell_pix: int,
    least_response: float,
) -> NoiseModel:
    amplifier = work.raw.amplifiers[index]
    dark = None
    if masters.dark is not None:
        time_s = work.raw.exposure_time_s
        dark = DarkCharge.of(masters.dark, usable, amplifier.image, time_s, 2 * cell_pix)
    slope = 1.0
    if masters.linearity is not None:
        sigma_adu = float(np.median(mesh.sigma)) / amplifier.gain
        level_adu = float(np.median(mesh.level)) / amplifier.gain
        slope = noise_slope(table_of(masters.linearity, amplifier.name), level_adu, sigma_adu)
    if masters.dark is not None and masters.dark.holds_pedestal:
        masters = replace(masters, bias=None)
    done = bool(work.steps & CalibrationStep.FRINGE) and masters.fringe is not None
    return NoiseModel(
        masters=masters,
        exposure_time_s=work.raw.exposure_time_s,
        readout_e2=(work.read_e2[index] + work.pedestal_e2[index]) * slope**2,
        dark=dark,
        fringe_e=work.fringe.scale * work.fringe.sky_e if done else 0.0,
        least_response=least_response,
    )


def _measured_instead(
    work: WorkingImage, index: int, model: NoiseModel, mesh: SkyMesh, holds_pedestal: bool
) -> SkyMesh | None:
    """Return the noise measured between neighbours where the sky's level says nothing about it."""
    prepared = work.raw.prepared
    if not holds_pedestal and (prepared is None or prepared.weight is not None):
        return None
    place = work.raw.amplifiers[index].image.slices
    noise = replace(mesh, sigma=neighbour_noise(work.data[place], work.usable()[place], mesh))
    if holds_pedestal:
        return noise
    predicted = model.readout_e2 + max(float(np.median(mesh.level)), 0.0)
    ratio = float(np.median(noise.sigma)) ** 2 / max(predicted, 1e-6)
    return None if 1 / _PREDICTABLE < ratio < _PREDICTABLE else noise
