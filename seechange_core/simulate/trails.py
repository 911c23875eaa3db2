"""Trails of satellites and fast asteroids: straight lines blurred by the core of the PSF."""

from dataclasses import dataclass

import numpy as np

from seechange_core.simulate.psf import Float, PsfField, core_transform

#: Points that a trail with ends is drawn with, per FWHM of length.
_POINTS_PER_FWHM = 5


@dataclass(frozen=True)
class Trail:
    """A path over the mosaic: its middle, a direction, its light per pixel of length, and its length."""

    x: float
    y: float
    angle_rad: float
    flux_e_pix: float
    length_pix: float = np.inf


def draw_trail(image: Float, trail: Trail, psf: PsfField, offset: tuple[float, float] = (0.0, 0.0)) -> None:
    """Add a trail to a float64 image, in place.

    Parameters
    ----------
    image
        (H, W) float64, electrons.
    trail
        An endless one is drawn with the PSF of the middle of the field, without its aureole.
    psf
        What blurs it.
    offset
        What to add to image pixels to get the positions of the trail and of the PSF.
    """
    if np.isfinite(trail.length_pix):
        n = 1 + int(_POINTS_PER_FWHM * trail.length_pix / psf.fwhm_pix)
        t = ((np.arange(n) + 0.5) / n - 0.5) * trail.length_pix
        x, y = trail.x + t * np.cos(trail.angle_rad), trail.y + t * np.sin(trail.angle_rad)
        light = np.full(n, trail.flux_e_pix * trail.length_pix / n)
        psf.draw(image, x - offset[0], y - offset[1], light, offset)
        return
    x = np.arange(image.shape[1]) + offset[0] - trail.x
    y = (np.arange(image.shape[0]) + offset[1] - trail.y)[:, None]
    distance = np.abs(x * np.sin(trail.angle_rad) - y * np.cos(trail.angle_rad))
    reach = 8 * psf.fwhm_pix
    near = distance < reach
    if near.any():
        grid = np.linspace(0, reach, 400)
        profile = line_profile(grid / psf.fwhm_pix) / psf.fwhm_pix
        image[near] += trail.flux_e_pix * np.interp(distance[near], grid, profile)


def line_profile(distance_fwhm: Float) -> Float:
    """Return the light across a line of unit light per FWHM of length, at distances in FWHM.

    The sum of the core along a line: projection is a slice in Fourier space.
    """
    k = (np.arange(3000) + 0.5) * 0.01
    return np.asarray(np.cos(np.outer(distance_fwhm, k)) @ core_transform(k) * 0.01 / np.pi)
