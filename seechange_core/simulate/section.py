"""One section of one exposure: from the sky to raw counts, with its truth."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.table import Table

from seechange_core.simulate.camera import Camera, Detector
from seechange_core.simulate.cameras.layout import SectionId
from seechange_core.simulate.charge import add_cosmic_rays, bleed, read_out
from seechange_core.simulate.galaxies import draw_galaxies
from seechange_core.simulate.geometry import SkyMap
from seechange_core.simulate.observation import COLOR_TERM, COLOR_ZERO, Observation
from seechange_core.simulate.psf import Float, Float32, PsfField
from seechange_core.simulate.sky import Sky
from seechange_core.simulate.trails import draw_trail

#: Objects are drawn when they lie within this many pixels of the section.
_NEARBY_PIX = 160.0


class RawSection(NamedTuple):
    """What `simulate_section` returns.

    Attributes
    ----------
    raw
        uint16, ADU, in the orientation of the CCD, overscans included; of the demo camera (H, W + 48):
        ``[A data][A overscan 24][B overscan 24][B data]``.
    cards
        FITS cards of the section, 1-based.
    truth
        One row per object on the section: id, kind, x, y (0-based trimmed pixels), ra, dec (deg, at
        mid-exposure), flux_e, on_masked, saturated.
    summary
        True numbers of the section: zp, color_term, color_zero, sky_e, seeing_fwhm_pix, ...
    """

    raw: npt.NDArray[np.uint16]
    cards: dict[str, Any]
    truth: Table
    summary: dict[str, Any]


def section_rng(camera: Camera, stream: int, index: int, number: int) -> np.random.Generator:
    """Return the generator of a frame's noise: its own for every frame and CCD number."""
    return np.random.default_rng([camera.options.seed, stream, index, number])


def simulate_section(
    camera: Camera,
    sky: Sky,
    observation: Observation,
    section: SectionId,
    rng: np.random.Generator | None = None,
) -> RawSection:
    """Expose and read out one section.

    The flux scale of the truth is that of a perfectly flat-fielded image, with a flat whose median
    over the section is 1: ``flux_e`` is the expected number of electrons of the whole source, wings
    included, that a pixel of median response would have collected (airmass, clouds, mirrors, vignetting
    of the section's median pixel and the filter included). On this scale
    ``natural mag = zp - 2.5 log10(flux_e)`` with the section's own `zp` and ``natural mag = mag +
    color_term (g - r - color_zero)``; what is left is the clouds' patchiness, some hundredths of their
    extinction, which is in `flux_e` but not in `zp`, their mean over the section.

    Parameters
    ----------
    camera, sky, observation
        See `make_camera`, `make_sky`, `plan_observations`.
    section
        Its name: 0 to N - 1, ``N4``, ``NE_A``.
    rng
        Of all noise; by default the frame's own, so that sections can be made in any order.

    Returns
    -------
    raw, cards, truth and summary.
    """
    number = camera.ccd(section).number
    rng = section_rng(camera, 1, observation.index, number) if rng is None else rng
    observation = observation.under(camera, section)
    options, detector = camera.options, camera.detector(section)
    psf = observation.psf_field(camera)
    zp = section_zero_point(camera, observation, section)
    truth = _true_sources(camera, sky, observation, section, zp)
    expected = _draw_light(camera, sky, observation, section, truth)
    charge = collect(expected, detector, options.exposure_time_s, rng, photon_noise=options.photon_noise)
    add_cosmic_rays(charge, cosmic_ray_hits(camera, observation.exposure_time_s), rng)
    if options.saturation:
        bleed(charge, detector)
    raw = read_out(charge, detector, rng)
    on_chip = _on_chip(truth, camera.shape)
    truth = truth[on_chip]
    truth["on_masked"] = _touches(detector.bad, truth["x"], truth["y"])
    truth["saturated"] = options.saturation & _touches(_full(charge, detector), truth["x"], truth["y"])
    return RawSection(
        raw, camera.section_cards(section), truth, _summary(camera, observation, section, zp, psf)
    )


def expected_light(camera: Camera, sky: Sky, observation: Observation, section: SectionId) -> Float:
    """Return what a perfect detector would collect on the mean: sky, fringes and all sources.

    Returns
    -------
    (H, W) float64, electrons in the flat-fielded system.
    """
    observation = observation.under(camera, section)
    zp = section_zero_point(camera, observation, section)
    truth = _true_sources(camera, sky, observation, section, zp)
    return _draw_light(camera, sky, observation, section, truth)


def _draw_light(
    camera: Camera, sky: Sky, observation: Observation, section: SectionId, truth: Table
) -> Float:
    """Draw sky, fringes and sources; of a dead section, sky alone."""
    expected = sky_level(camera, observation, section)
    if camera.options.fringing > 0:
        expected *= 1 + fringe_pattern(camera, section)
    if camera.detector(section).dead:
        return expected
    psf, offset = observation.psf_field(camera), camera.focal_offset(section)
    _draw_points(expected, camera, sky, observation, section, truth, psf)
    galaxies = np.flatnonzero((truth["kind"] == "galaxy") & (truth["flux_e"] > 0))
    rows = truth[galaxies]
    draw_galaxies(
        expected, observation.sky_map(camera, section), psf, offset, np.asarray(rows["ra"]),
        np.asarray(rows["dec"]), np.asarray(rows["flux_e"]), sky.objects[rows["id"]],
    )  # fmt: skip
    for trail in observation.trails:
        draw_trail(expected, trail, psf, offset)
    return expected


def section_zero_point(camera: Camera, observation: Observation, section: SectionId) -> float:
    """Return the true magnitude of one electron on the section (see `simulate_section`)."""
    throughput = camera.detector(section).throughput
    if throughput == 0:
        return float("nan")
    return float(observation.zp + 2.5 * np.log10(throughput) - _mean_cloud_mag(camera, observation, section))


def _mean_cloud_mag(camera: Camera, observation: Observation, section: SectionId) -> float:
    """Mean of the clouds' patchiness over a section, on a grid of 16 x 16."""
    share = (np.arange(16) + 0.5) / 16
    dx, dy = camera.focal_offset(section)
    X, Y = np.meshgrid(share * camera.width - 0.5 + dx, share * camera.height - 0.5 + dy)
    return float(observation.cloud_mag(X, Y, camera.half_diagonal_pix).mean())


def sky_level(camera: Camera, observation: Observation, section: SectionId) -> Float:
    """Return the expected sky, (H, W) float64 electrons in the flat-fielded system."""
    dx, dy = camera.focal_offset(section)
    R = camera.half_diagonal_pix
    x, y = (np.arange(camera.width) + dx) / R, (np.arange(camera.height) + dy)[:, None] / R
    level = observation.sky_e * camera.detector(section).throughput
    return np.asarray(level * (1 + observation.sky_slope[0] * x + observation.sky_slope[1] * y))


def fringe_pattern(camera: Camera, section: SectionId) -> Float:
    """Return the fringes, (H, W) float64 per electron of sky in the flat-fielded system, median 0.

    The night sky's lines interfere in the silicon: wood grain along lines of equal thickness, some 60
    pixels apart, the same in every exposure.
    """
    rng = np.random.default_rng([camera.options.seed, 503, camera.ccd(section).number])
    x0, y0 = camera.window_origin
    x, y = np.arange(x0, x0 + camera.width) / 1000, np.arange(y0, y0 + camera.height)[:, None] / 1000
    # Wavelengths of thickness over a CCD: a tilt and slow undulations.
    phase = rng.uniform(8, 14) * x + rng.uniform(-6, 6) * y + np.zeros(camera.shape)
    for _ in range(4):
        kx, ky, start = rng.uniform(1, 4), rng.uniform(1, 4), rng.uniform(0, 2 * np.pi)
        phase += rng.uniform(0.5, 1.5) * np.cos(kx * x + ky * y + start)
    phase *= 2 * np.pi
    pattern = np.cos(phase) + 0.3 * np.cos(2 * phase + 1.0)
    pattern -= np.median(pattern)
    return np.asarray(camera.options.fringing * pattern)


def _true_sources(camera: Camera, sky: Sky, observation: Observation, section: SectionId, zp: float) -> Table:
    """All objects on or near the section, with true positions and fluxes."""
    ra, dec = sky.positions(observation.mjd_mid)
    x, y = observation.sky_map(camera, section).to_pixels(ra, dec)
    right, top = camera.width + _NEARBY_PIX, camera.height + _NEARBY_PIX
    near = np.flatnonzero((x > -_NEARBY_PIX) & (x < right) & (y > -_NEARBY_PIX) & (y < top))
    dx, dy = camera.focal_offset(section)
    clouds = observation.cloud_mag(x[near] + dx, y[near] + dy, camera.half_diagonal_pix)
    mean_cloud = _mean_cloud_mag(camera, observation, section)
    mag = sky.natural_mag(observation.band, color_term=camera.options.color_term)
    flux = sky.brightness(observation.mjd_mid)[near] * 10 ** (-0.4 * (mag[near] + clouds - mean_cloud - zp))
    flux = np.nan_to_num(flux) if np.isnan(zp) else flux
    return Table({
        "id": np.asarray(sky.objects["id"])[near], "kind": np.asarray(sky.objects["kind"])[near],
        "x": x[near], "y": y[near], "ra": ra[near], "dec": dec[near], "flux_e": flux,
    })  # fmt: skip


def _draw_points(
    image: Float,
    camera: Camera,
    sky: Sky,
    observation: Observation,
    section: SectionId,
    truth: Table,
    psf: PsfField,
) -> None:
    """Draw stars, variables and transients as points, and asteroids as the trails of moving points."""
    offset = camera.focal_offset(section)
    still = (truth["kind"] != "galaxy") & (truth["kind"] != "asteroid")
    psf.draw(image, truth["x"][still], truth["y"][still], truth["flux_e"][still], offset)
    sky_map = observation.sky_map(camera, section)
    half_days = observation.exposure_time_s / 2 / 86400
    for row in truth[truth["kind"] == "asteroid"]:
        ends = [sky.positions(observation.mjd_mid + t) for t in (-half_days, half_days)]
        (x0, y0), (x1, y1) = (sky_map.to_pixels(ra[row["id"]], dec[row["id"]]) for ra, dec in ends)
        n = 1 + int(np.hypot(x1 - x0, y1 - y0) / (0.25 * observation.fwhm_pix))
        share = (np.arange(n) + 0.5) / n
        psf.draw(image, x0 + share * (x1 - x0), y0 + share * (y1 - y0), np.full(n, row["flux_e"] / n), offset)


def collect(
    expected: Float, detector: Detector, time_s: float, rng: np.random.Generator, *, photon_noise: bool = True
) -> Float32:
    """Turn expected flat-fielded electrons into collected charge: response, dark current, photon noise.

    Parameters
    ----------
    expected
        (H, W) electrons in the flat-fielded system.
    detector
        Response and dark current.
    time_s
        Dark time.
    rng
        Generator.
    photon_noise
        False gives the mean itself.

    Returns
    -------
    (H, W) float32, electrons.
    """
    mean = np.maximum(expected, 0.0) * detector.response + detector.dark_e_s * np.float32(time_s)
    return (rng.poisson(mean) if photon_noise else mean).astype(np.float32)


def cosmic_ray_hits(camera: Camera, time_s: float) -> float:
    """Return the mean number of cosmic rays that a section collects in a time."""
    return float(camera.options.cosmic_rays * time_s * (camera.width * camera.height) / 1e6)


def _on_chip(truth: Table, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    x, y = truth["x"], truth["y"]
    return np.asarray((x >= -0.5) & (x < shape[1] - 0.5) & (y >= -0.5) & (y < shape[0] - 0.5))


def _touches(mask: npt.NDArray[np.bool_], x: Float, y: Float) -> npt.NDArray[np.bool_]:
    """Tell whether any of the 3 x 3 pixels around each position is set."""
    i, j = np.rint(np.asarray(x)).astype(int), np.rint(np.asarray(y)).astype(int)
    padded = np.pad(mask, 1)
    found = np.zeros(i.size, bool)
    for dj in (0, 1, 2):
        for di in (0, 1, 2):
            found |= padded[j + dj, i + di]
    return found


def _full(charge: Float32, detector: Detector) -> npt.NDArray[np.bool_]:
    """Pixels that read at or above the header's saturation level."""
    full = np.empty(charge.shape, bool)
    half = charge.shape[1] // 2
    for amplifier, columns in zip(detector.amplifiers, (slice(0, half), slice(half, None)), strict=True):
        full[:, columns] = charge[:, columns] >= amplifier.saturation_e
    return full


def _summary(
    camera: Camera, observation: Observation, section: SectionId, zp: float, psf: PsfField
) -> dict[str, Any]:
    """Row of the table of exposures."""
    sky_map: SkyMap = observation.sky_map(camera, section)
    ra, dec = sky_map.to_sky((camera.width - 1) / 2, (camera.height - 1) / 2)
    dx, dy = camera.section_offset(section)
    fwhm, e1, e2 = psf.shape_at(dx, dy)
    scale = camera.pixel_scale_arcsec
    return {
        "section": section, "mjd_mid": observation.mjd_mid, "filter": observation.band,
        "zp": zp, "color_term": COLOR_TERM[observation.band] if camera.options.color_term else 0.0,
        "color_zero": COLOR_ZERO, "seeing_fwhm_pix": float(fwhm), "e1": float(e1), "e2": float(e2),
        "enclosed_4arcsec": psf.enclosed(4 / scale), "enclosed_8arcsec": psf.enclosed(8 / scale),
        "sky_e": observation.sky_e * camera.detector(section).throughput,
        "airmass": observation.airmass, "night": observation.night,
        "ra_center": float(ra), "dec_center": float(dec), "rotation_deg": observation.rotation_deg,
    }  # fmt: skip
