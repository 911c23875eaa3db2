"""One section of one exposure: from the sky to raw counts, with its truth."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.table import Table

from seechange_core.simulate.camera import OVERSCAN_PIX, SATURATION_ADU, Camera, Detector
from seechange_core.simulate.charge import add_cosmic_rays, bleed, read_out
from seechange_core.simulate.galaxies import draw_galaxies
from seechange_core.simulate.geometry import SkyMap
from seechange_core.simulate.observation import COLOR_TERM, COLOR_ZERO, Observation, Trail
from seechange_core.simulate.psf import Float, Float32, PsfField, core_transform
from seechange_core.simulate.sky import Sky

#: Objects are drawn when they lie within this many pixels of the section.
_NEARBY_PIX = 160.0


class RawSection(NamedTuple):
    """What `simulate_section` returns.

    Attributes
    ----------
    raw
        (H, W + 48) uint16, ADU: ``[A data][A overscan 24][B overscan 24][B data]``.
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


def section_rng(camera: Camera, stream: int, index: int, section: int) -> np.random.Generator:
    """Return the generator of a frame's noise: its own for every frame and section."""
    return np.random.default_rng([camera.options.seed, stream, index, section])


def simulate_section(
    camera: Camera, sky: Sky, observation: Observation, section: int, rng: np.random.Generator | None = None
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
        0 to N - 1.
    rng
        Of all noise; by default the frame's own, so that sections can be made in any order.

    Returns
    -------
    raw, cards, truth and summary.
    """
    rng = section_rng(camera, 1, observation.index, section) if rng is None else rng
    options, detector = camera.options, camera.detector(section)
    sky_map, psf, offset = (
        observation.sky_map(camera, section),
        observation.psf_field(camera),
        camera.focal_offset(section),
    )
    zp = section_zero_point(camera, observation, section)
    truth = _true_sources(camera, sky, observation, section, zp)
    expected = sky_level(camera, observation, section)
    if not detector.dead:
        _draw_points(expected, camera, sky, observation, section, truth, psf)
        galaxies = np.flatnonzero((truth["kind"] == "galaxy") & (truth["flux_e"] > 0))
        rows = truth[galaxies]
        draw_galaxies(
            expected, sky_map, psf, offset, np.asarray(rows["ra"]), np.asarray(rows["dec"]),
            np.asarray(rows["flux_e"]), sky.objects[rows["id"]],
        )  # fmt: skip
        for trail in observation.trails:
            _draw_trail(expected, trail, psf, offset)
    charge = collect(expected, detector, options.exposure_time_s, rng, photon_noise=options.photon_noise)
    add_cosmic_rays(charge, cosmic_ray_hits(camera, observation.exposure_time_s), rng)
    if options.saturation:
        bleed(charge, detector)
    raw = read_out(charge, detector, rng)
    on_chip = _on_chip(truth, camera.size)
    truth = truth[on_chip]
    truth["on_masked"] = _touches(detector.bad, truth["x"], truth["y"])
    truth["saturated"] = options.saturation & _touches(_full(charge, detector), truth["x"], truth["y"])
    return RawSection(
        raw, section_cards(camera, section), truth, _summary(camera, observation, section, zp, psf)
    )


def section_zero_point(camera: Camera, observation: Observation, section: int) -> float:
    """Return the true magnitude of one electron on the section (see `simulate_section`)."""
    throughput = camera.detector(section).throughput
    if throughput == 0:
        return float("nan")
    return float(observation.zp + 2.5 * np.log10(throughput) - _mean_cloud_mag(camera, observation, section))


def _mean_cloud_mag(camera: Camera, observation: Observation, section: int) -> float:
    """Mean of the clouds' patchiness over a section, on a grid of 16 x 16."""
    points = (np.arange(16) + 0.5) / 16 * camera.size - 0.5
    dx, dy = camera.focal_offset(section)
    X, Y = np.meshgrid(points + dx, points + dy)
    return float(observation.cloud_mag(X, Y, camera.half_diagonal_pix).mean())


def sky_level(camera: Camera, observation: Observation, section: int) -> Float:
    """Return the expected sky, (H, W) float64 electrons in the flat-fielded system."""
    dx, dy = camera.focal_offset(section)
    R = camera.half_diagonal_pix
    x, y = (np.arange(camera.size) + dx) / R, (np.arange(camera.size) + dy)[:, None] / R
    level = observation.sky_e * camera.detector(section).throughput
    return np.asarray(level * (1 + observation.sky_slope[0] * x + observation.sky_slope[1] * y))


def _true_sources(camera: Camera, sky: Sky, observation: Observation, section: int, zp: float) -> Table:
    """All objects on or near the section, with true positions and fluxes."""
    ra, dec = sky.positions(observation.mjd_mid)
    x, y = observation.sky_map(camera, section).to_pixels(ra, dec)
    limit = camera.size + _NEARBY_PIX
    near = np.flatnonzero((x > -_NEARBY_PIX) & (x < limit) & (y > -_NEARBY_PIX) & (y < limit))
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
    section: int,
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


def _draw_trail(image: Float, trail: Trail, psf: PsfField, offset: tuple[float, float]) -> None:
    """Draw a satellite: an endless line blurred by the core of the PSF."""
    x = np.arange(image.shape[1]) + offset[0] - trail.x
    y = (np.arange(image.shape[0]) + offset[1] - trail.y)[:, None]
    distance = np.abs(x * np.sin(trail.angle_rad) - y * np.cos(trail.angle_rad))
    reach = 8 * psf.fwhm_pix
    near = distance < reach
    if near.any():
        grid = np.linspace(0, reach, 400)
        profile = _line_profile(grid / psf.fwhm_pix) / psf.fwhm_pix
        image[near] += trail.flux_e_pix * np.interp(distance[near], grid, profile)


def _line_profile(distance: Float) -> Float:
    """Sum the core along a line, at distances in FWHM (projection is a slice in Fourier space)."""
    k = (np.arange(3000) + 0.5) * 0.01
    return np.asarray(np.cos(np.outer(distance, k)) @ core_transform(k) * 0.01 / np.pi)


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
    return float(camera.options.cosmic_rays * time_s * camera.size**2 / 1e6)


def _on_chip(truth: Table, size: int) -> npt.NDArray[np.bool_]:
    x, y = truth["x"], truth["y"]
    return np.asarray((x >= -0.5) & (x < size - 0.5) & (y >= -0.5) & (y < size - 0.5))


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
        full[:, columns] = charge[:, columns] >= (SATURATION_ADU - amplifier.bias_adu) * amplifier.gain
    return full


def section_cards(camera: Camera, section: int) -> dict[str, Any]:
    """Return the FITS cards of a section: amplifiers, gains and where their pixels are (1-based)."""
    size, half, over = camera.size, camera.size // 2, OVERSCAN_PIX
    cards: dict[str, Any] = {"EXTNAME": f"SEC{section:02d}", "SECID": section}
    columns = {
        "A": ((1, half), (half + 1, half + over), (1, half)),
        "B": ((half + 2 * over + 1, size + 2 * over), (half + over + 1, half + 2 * over), (half + 1, size)),
    }
    for amplifier in camera.detector(section).amplifiers:
        name = amplifier.name
        for keyword, (x1, x2) in zip(("DATASEC", "BIASSEC", "CCDSEC"), columns[name], strict=True):
            cards[f"{keyword}{name}"] = f"[{x1}:{x2},1:{size}]"
        cards[f"GAIN{name}"] = amplifier.gain
        cards[f"RDNOISE{name}"] = amplifier.read_noise_e
        cards[f"SATURAT{name}"] = SATURATION_ADU
    return cards


def _summary(
    camera: Camera, observation: Observation, section: int, zp: float, psf: PsfField
) -> dict[str, Any]:
    """Row of the table of exposures."""
    sky_map: SkyMap = observation.sky_map(camera, section)
    middle = (camera.size - 1) / 2
    ra, dec = sky_map.to_sky(middle, middle)
    dx, dy = camera.section_offset(section)
    fwhm, e1, e2 = psf.shape_at(dx, dy)
    scale = camera.options.pixel_scale_arcsec
    return {
        "section": section, "mjd_mid": observation.mjd_mid, "filter": observation.band,
        "zp": zp, "color_term": COLOR_TERM[observation.band] if camera.options.color_term else 0.0,
        "color_zero": COLOR_ZERO, "seeing_fwhm_pix": float(fwhm), "e1": float(e1), "e2": float(e2),
        "enclosed_4arcsec": psf.enclosed(4 / scale), "enclosed_8arcsec": psf.enclosed(8 / scale),
        "sky_e": observation.sky_e * camera.detector(section).throughput,
        "airmass": observation.airmass, "night": observation.night,
        "ra_center": float(ra), "dec_center": float(dec), "rotation_deg": observation.rotation_deg,
    }  # fmt: skip
