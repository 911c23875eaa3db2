"""One section of many raw exposures, each file read once, with bounded memory."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, overload

import numpy as np
import numpy.typing as npt

from seechange_core.errors import BadDataError, PipelineError
from seechange_core.frames import RawFrame
from seechange_core.instrument import SectionId
from seechange_core.products.exposure import Exposure

#: Pixels kept in memory before the rest goes to a scratch file.
IN_MEMORY_MB = 16


@dataclass(frozen=True, eq=False)
class _Kept:
    """A frame that was read; its pixels are in `frame`, or in the scratch file from `offset` on."""

    frame: RawFrame
    offset: int | None = None
    shape: tuple[int, ...] = ()


class _Scratch:
    """Frames by number: the first ones in memory, the others in a file without a name.

    The file has no name from the start, so the system takes its space back however the process ends.
    """

    def __init__(self, folder: Path | None, in_memory_mb: float) -> None:
        self._folder = folder
        self._room = in_memory_mb * 2**20
        self._frames: dict[int, _Kept | BadDataError] = {}
        self._file: IO[bytes] | None = None

    def __contains__(self, number: int) -> bool:
        return number in self._frames

    def put(self, number: int, frame: RawFrame | BadDataError) -> None:
        if isinstance(frame, BadDataError):
            self._frames[number] = frame
            return
        pixels = np.ascontiguousarray(frame.data)
        if pixels.nbytes <= self._room:
            self._room -= pixels.nbytes
            self._frames[number] = _Kept(replace(frame, data=pixels))
            return
        empty = replace(frame, data=np.empty((0, 0), dtype=pixels.dtype))
        self._frames[number] = _Kept(empty, self._write(pixels), pixels.shape)

    def get(self, number: int) -> RawFrame:
        kept = self._frames[number]
        if isinstance(kept, BadDataError):
            raise kept
        if kept.offset is None or self._file is None:
            return kept.frame
        # Mapped anew each time: the pages leave this process's memory with the frame.
        pixels = np.memmap(self._file, kept.frame.data.dtype, mode="r", offset=kept.offset, shape=kept.shape)
        return replace(kept.frame, data=pixels)

    def close(self) -> None:
        self._frames.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, pixels: npt.NDArray[Any]) -> int:
        """Append pixels; written, not mapped, so that a full disk is an error and not a crash."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="seechange-frames-", dir=self._folder)  # noqa: SIM115
            offset = self._file.seek(0, 2)
            self._file.write(pixels.data)
            self._file.flush()
        except OSError as error:
            raise PipelineError(
                f"no room for raw frames in {self._folder or tempfile.gettempdir()}: {error}",
                cure="free some space there, or let TMPDIR name a folder on a larger disk",
            ) from None
        return offset


class RawFrames(Sequence[RawFrame]):
    """One section of several exposures; each file is read once, when it is first asked for.

    Reading a compressed section costs more than all that is done to it, and masters are combined in
    strips of all frames: so decompressed pixels are kept, as the camera wrote them, the first ones in
    memory and the others in a scratch file that is gone when this object is closed.
    A file that cannot be used raises the same `BadDataError` whenever it is asked for.

    Parameters
    ----------
    exposures
        Whose.
    section_id
        Which section.
    scratch
        Folder of the scratch file; the system's own by default (``TMPDIR`` names it).
    in_memory_mb
        Most to keep in memory.

    Examples
    --------
    >>> with RawFrames(exposures, "N4") as frames:  # doctest: +SKIP
    ...     master, quality = combine("bias", frames, Masters(), CombineParams())
    """

    def __init__(
        self,
        exposures: Sequence[Exposure],
        section_id: SectionId,
        *,
        scratch: Path | None = None,
        in_memory_mb: float = IN_MEMORY_MB,
    ) -> None:
        self.exposures = exposures
        self.section_id = section_id
        self._numbers = list(range(len(exposures)))
        self._scratch = _Scratch(scratch, in_memory_mb)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> RawFrame: ...
    @overload
    def __getitem__(self, index: slice) -> "RawFrames": ...

    def __getitem__(self, index: int | slice) -> "RawFrame | RawFrames":
        if isinstance(index, slice):
            part = RawFrames(self.exposures, self.section_id)
            part._numbers, part._scratch = self._numbers[index], self._scratch
            return part
        number = self._numbers[index]
        if number not in self._scratch:
            self._scratch.put(number, self._read(number))
        return self._scratch.get(number)

    def _read(self, number: int) -> RawFrame | BadDataError:
        try:
            return self.exposures[number].load_raw_frame(self.section_id)
        except BadDataError as error:
            return error

    def close(self) -> None:
        """Forget all frames and give the scratch file's space back."""
        self._scratch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
