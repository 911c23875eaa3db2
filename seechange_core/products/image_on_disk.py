"""Images that stay on disk: their arrays are read where they are sliced, so that many fit in memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from seechange_core.storage.fits_io import read_fits

Span = tuple[slice, slice]


class ArrayOnDisk:
    """One array of an image, (H, W); slicing it by rows and columns gives an array.

    Parameters
    ----------
    rows
        What reads it, and the others of the same image.
    name
        Of the array.
    shape
        Of the image.
    """

    def __init__(self, rows: "_Rows", name: str, shape: tuple[int, int]) -> None:
        self._rows, self._name, self.shape = rows, name, shape

    def __getitem__(self, span: Span) -> npt.NDArray[Any]:
        start, stop, step = span[0].indices(self.shape[0])
        read = self._rows.read(self._name, slice(start, stop))
        return np.ascontiguousarray(read[::step, span[1]])


class _Rows:
    """Reads rows of all arrays of an image at once: who slices one will slice the others alike."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths
        self._span = slice(0, 0)
        self._waiting: dict[str, npt.NDArray[Any]] = {}

    def read(self, name: str, rows: slice) -> npt.NDArray[Any]:
        """Return rows of an array; those of the others wait until they are asked for, once."""
        if rows != self._span or name not in self._waiting:
            self._span, self._waiting = rows, {}
            for path in dict.fromkeys(self._paths.values()):
                names = [n for n, own in self._paths.items() if own == path]
                self._waiting |= read_fits(path, names, rows)[0]
        return self._waiting.pop(name)


def arrays_on_disk(paths: Mapping[str, Path], shape: tuple[int, int]) -> dict[str, npt.NDArray[Any]]:
    """Return stand-ins for the arrays of an image that are read where they are sliced.

    Parameters
    ----------
    paths
        Files by the names of the arrays.
    shape
        Of the image.
    """
    rows = _Rows(paths)
    return {name: cast(npt.NDArray[Any], ArrayOnDisk(rows, name, shape)) for name in paths}
