"""The variance of a calibrated image's background, from what is known about the detector."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit

from seechange_core.frames import Bool, Box, Float32, MasterFrame, Masters
from seechange_core.numerics.coarse_sky import SkyMesh, coarse_sky

Place = tuple[slice, slice]


def strips(box: Box, rows: int = 128) -> Iterator[tuple[Place, slice]]:
    """Cut a box into strips that fit into a processor's cache.

    Yields
    ------
    place, rows
        Index of the strip in the image, and its rows within the box.
    """
    for y0 in range(box.y0, box.y1, rows):
        y1 = min(y0 + rows, box.y1)
        yield (slice(y0, y1), slice(box.x0, box.x1)), slice(y0 - box.y0, y1 - box.y0)


@njit(cache=True, nogil=True)
def divide(data: Float32, response: Float32, least: float) -> None:
    """Divide by a response, in place; where it is below `least` or no number, nothing is done."""
    for y in range(data.shape[0]):
        for x in range(data.shape[1]):
            if response[y, x] >= least:
                data[y, x] /= response[y, x]


@dataclass(frozen=True, eq=False)
class DarkCharge:
    """Dark charge in one amplifier of an exposure, for its photon-like noise.

    A dark pixel's own value is used only where it stands out: elsewhere the smooth level is, for the
    master's noise must not enter the weights of the very pixels that it shifts.

    Attributes
    ----------
    dark
        The master, electrons per second.
    mesh
        Its level and scatter in this amplifier.
    pedestal_e_s
        What in it is no charge (a zero level it holds).
    time_s
        Exposure time.
    """

    dark: MasterFrame
    mesh: SkyMesh
    pedestal_e_s: float
    time_s: float

    @classmethod
    def of(cls, dark: MasterFrame, usable: Bool, box: Box, time_s: float, cell_pix: int) -> "DarkCharge":
        """Measure the smooth level of a dark in one amplifier; `usable` is of the whole section."""
        mesh = coarse_sky(dark.data[box.slices], usable[box.slices], cell_pix, step=4)
        pedestal = float(np.median(mesh.level)) if dark.holds_pedestal else 0.0
        return cls(dark, mesh, pedestal, time_s)

    def rows(self, place: Place, rows: slice) -> Float32:
        """Return the charge, electrons, at least 0, of a strip."""
        smooth = self.mesh.level_rows(rows)
        own = self.dark.data[place]
        hot = own - smooth > 5 * self.mesh.sigma_rows(rows)
        rate = np.where(hot, own, smooth) - np.float32(self.pedestal_e_s)
        charge: Float32 = np.maximum(rate * np.float32(self.time_s), np.float32(0))
        return np.nan_to_num(charge, copy=False, nan=0.0, posinf=0.0)


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """What the variance of one amplifier's background is made of.

    Attributes
    ----------
    masters
        Those that were applied; the others None.
    exposure_time_s
        Scales the dark's own variance.
    readout_e2
        Variance of reading, of the zero level taken off, and of rounding, electrons^2 before the flat.
    dark
        Its charge; None if no dark was taken off.
    fringe_e
        Electrons of fringe per unit of pattern that were taken off.
    least_response
        As for `divide`.
    """

    masters: Masters
    exposure_time_s: float
    readout_e2: float
    dark: DarkCharge | None
    fringe_e: float
    least_response: float

    def variance(self, place: Place, rows: slice, sky: Float32, given_e2: Float32 | None = None) -> Float32:
        """Return the background variance of a strip of the calibrated image, electrons^2.

        ``(readout + dark charge + sky response + the bias's and dark's own variance) / response^2
        + sky^2 (relative variance of the flat and of the illumination) + fringe^2 var(pattern)``.

        Parameters
        ----------
        place, rows
            As `strips` gives them.
        sky
            (rows, width) float32, level of the calibrated image.
        given_e2
            Variance that came with the pixels, in place of readout and photons.
        """
        masters = self.masters
        light = sky.copy()
        if self.fringe_e and masters.fringe is not None:
            _add(light, masters.fringe.data[place], self.fringe_e)
        np.maximum(light, np.float32(0), out=light)
        responses = [m for m in (masters.flat, masters.illumination) if m is not None]
        relative = np.zeros_like(light)
        response = np.ones_like(light)
        for master in responses:
            _collect(response, relative, master.data[place], master.variance[place], self.least_response)
        total = self._before_the_flat(place, rows, light * response) if given_e2 is None else given_e2.copy()
        if masters.bias is not None:
            _add(total, masters.bias.variance[place], 1.0)
        if masters.dark is not None:
            _add(total, masters.dark.variance[place], self.exposure_time_s**2)
        if responses:
            _finish(total, response, relative, light)
        if self.fringe_e and masters.fringe is not None:
            _add(total, masters.fringe.variance[place], self.fringe_e**2)
        return total

    def _before_the_flat(self, place: Place, rows: slice, light: Float32) -> Float32:
        """Return what reading, light and dark charge give, electrons^2."""
        total = light + np.float32(self.readout_e2)
        if self.dark is not None:
            total += self.dark.rows(place, rows)
        return total


@njit(cache=True, nogil=True)
def _collect(response: Float32, relative: Float32, data: Float32, variance: Float32, least: float) -> None:
    """Multiply a response by another one, and add its relative variance."""
    for y in range(data.shape[0]):
        for x in range(data.shape[1]):
            value = data[y, x]
            if value >= least:
                response[y, x] *= value
                if variance[y, x] > 0:
                    relative[y, x] += variance[y, x] / (value * value)


@njit(cache=True, nogil=True)
def _add(total: Float32, values: Float32, factor: float) -> None:
    """Add values times a factor, in place; what is no number counts nothing."""
    for y in range(total.shape[0]):
        for x in range(total.shape[1]):
            if not np.isnan(values[y, x]):
                total[y, x] += np.float32(factor) * values[y, x]


@njit(cache=True, nogil=True)
def _finish(total: Float32, response: Float32, relative: Float32, light: Float32) -> None:
    """Bring a variance behind the flat, in place, and add what the flat's own error does to the sky."""
    for y in range(total.shape[0]):
        for x in range(total.shape[1]):
            own = light[y, x] * light[y, x] * relative[y, x]
            total[y, x] = total[y, x] / (response[y, x] * response[y, x]) + own
