"""The files of an image: all arrays in one, or one for each, as the settings say."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy.orm import Mapped, mapped_column

from seechange_core.errors import FileDamagedError
from seechange_core.frames import Flags, Float32, ImageFrame, PsfModel, SubtractionFrame, ZeroPointSolution
from seechange_core.products.cards import (
    Arrays,
    image_arrays,
    image_cards,
    psf_cards,
    subtraction_cards,
    to_common_stars,
    to_image,
    to_psf,
    to_zp_change,
)
from seechange_core.products.image_on_disk import arrays_on_disk
from seechange_core.products.place import Place
from seechange_core.storage.archive import Archive
from seechange_core.storage.fits_io import read_cards, read_fits, write_fits
from seechange_core.storage.orm import JSON_OR_NULL


class ImageFiles:
    """Mixin of `Image`: writing, reading and lazy loading of its arrays."""

    __allow_unmapped__ = True

    type: Mapped[str]
    data_version: Mapped[str]
    filepath: Mapped[str | None]
    checksum: Mapped[str | None]

    width_pix: Mapped[int | None] = mapped_column(doc="Columns of its arrays.")
    height_pix: Mapped[int | None] = mapped_column(doc="Rows of its arrays.")
    exposure_time_s: Mapped[float] = mapped_column(doc="The time its flux scale refers to, seconds.")
    gain: Mapped[float] = mapped_column(default=1.0, doc="Electrons collected per unit of its data.")
    saturation_e: Mapped[float | None] = mapped_column(doc="Level of saturation, electrons; None if unknown.")
    calibration_steps: Mapped[int] = mapped_column(
        default=0, doc="`CalibrationStep` bits: what was done to it."
    )
    reference_coverage: Mapped[float | None] = mapped_column(
        doc="Of a difference: fraction of the usable pixels that the reference covers, 0 to 1."
    )
    zp_change_mag: Mapped[list[float] | None] = mapped_column(
        JSON_OR_NULL,
        doc="Of a difference: what to add to its new image's zero point so that it is its references', by "
        "the flux ratio that was subtracted with; coefficients of 1 and how it varies. None: not measured.",
    )
    zp_err: Mapped[float | None] = mapped_column(
        doc="Of a difference: error of that zero point, mag: the references', and the flux ratio's."
    )
    components: Mapped[list[str] | None] = mapped_column(
        JSON_OR_NULL, doc="Names of the arrays in its file or files."
    )
    component_checksums: Mapped[dict[str, str] | None] = mapped_column(
        JSON_OR_NULL,
        doc="With one file per array: SHA-256 of each by the array's name, which completes `filepath` to "
        "``filepath.name.fits``. None when all are in one file.",
    )

    # --- Write and read ---

    def write(self, archive: Archive, frame: ImageFrame, place: Place) -> None:
        """Write an image's arrays, and note where and how large they are."""
        self._write(archive, image_arrays(frame), image_cards(frame), place)
        self._describe(frame)

    def write_subtraction(self, archive: Archive, frame: SubtractionFrame, place: Place) -> None:
        """Write a difference with its score image, its PSF and the aligned reference."""
        arrays = image_arrays(frame.image)
        arrays |= {"score": frame.score, "psf": frame.psf.coefficients, "reference": frame.reference}
        if frame.reference_weight is not None and frame.reference_flags is not None:
            arrays |= {"reference_weight": frame.reference_weight, "reference_flags": frame.reference_flags}
        if frame.translient is not None:
            arrays["translient"] = frame.translient
        cards = image_cards(frame.image) | psf_cards(frame.psf) | subtraction_cards(frame)
        self._write(archive, arrays, cards, place)
        self._describe(frame.image)
        self.reference_coverage = frame.reference_coverage
        self.zp_change_mag = list(frame.zp_change_mag) or None
        self.zp_err = frame.zp_err if np.isfinite(frame.zp_err) else None

    def read(self, archive: Archive) -> ImageFrame:
        """Read the image.

        Raises
        ------
        FileNotFoundError
            If its file is nowhere.
        FileDamagedError
            If it is damaged.
        """
        arrays, cards = self._read(archive, ("data", "weight", "flags"))
        return to_image(arrays, cards)

    def open(self, archive: Archive) -> ImageFrame:
        """Return the image without reading it: slicing one of its arrays reads the rows of that slice.

        Raises what `read` does.
        """
        paths = self.fullpaths(archive)
        names = ("data", "weight", "flags")
        if self.height_pix is None or self.width_pix is None or not set(names) <= paths.keys():
            return self.read(archive)
        arrays = arrays_on_disk({name: paths[name] for name in names}, (self.height_pix, self.width_pix))
        return to_image(arrays, read_cards(paths[names[0]]))

    def open_subtraction(self, archive: Archive) -> tuple[ImageFrame, PsfModel]:
        """Return the difference without reading it, as `open` does, and its PSF. Raises what `read` does."""
        arrays, cards = self._read(archive, ("psf",))
        return self.open(archive), to_psf(arrays["psf"], cards)

    def read_subtraction(self, archive: Archive) -> SubtractionFrame:
        """Read the difference, its score image, PSF and aligned reference. Raises what `read` does."""
        names: tuple[str, ...] = ("data", "weight", "flags", "score", "reference", "psf")
        # Those written before these were kept have none, nor those for which no dipoles were asked for.
        optional = ("reference_weight", "reference_flags", "translient")
        names += tuple(name for name in optional if name in (self.components or ()))
        arrays, cards = self._read(archive, names)
        return SubtractionFrame(
            image=to_image(arrays, cards),
            score=arrays["score"],
            psf=to_psf(arrays["psf"], cards),
            reference=arrays["reference"],
            reference_coverage=float(cards["SCREFCOV"]),
            reference_weight=arrays.get("reference_weight"),
            reference_flags=arrays.get("reference_flags"),
            translient=arrays.get("translient"),
            common_stars=to_common_stars(cards),
            zp_change_mag=to_zp_change(cards),
            zp_err=float(cards.get("SCZPERR", np.nan)),
        )

    def zero_point(self, new: ZeroPointSolution) -> ZeroPointSolution:
        """Return the zero point of its fluxes, given its own, or that of a difference's new image.

        A difference is counted from its references, and is on their scale as well as common stars tell it:
        better than any catalog ties a single image to the sky.
        """
        if not self.zp_change_mag or self.zp_err is None:
            return new
        return new.moved(self.zp_change_mag, self.zp_err)

    def fullpaths(self, archive: Archive) -> dict[str, Path]:
        """Return the local path of each array's file by the array's name, fetched if need be."""
        paths = {relpath: archive.find(relpath, checksum=checksum) for relpath, checksum in self._files()}
        if self.component_checksums is None:
            return dict.fromkeys(self.components or (), next(iter(paths.values())))
        return dict(zip(self.component_checksums, paths.values(), strict=True))

    @property
    def relative_paths(self) -> list[str]:
        """The paths of its files relative to the data root."""
        return [relpath for relpath, _ in self._files()]

    def _files(self) -> list[tuple[str, str | None]]:
        """Return path and SHA-256 of each file, in the order of `component_checksums`."""
        if self.filepath is None:
            raise FileNotFoundError("the image has no file yet: write it first")
        if self.component_checksums is None:
            return [(self.filepath, self.checksum)]
        return [(f"{self.filepath}.{name}.fits", sha) for name, sha in self.component_checksums.items()]

    def _describe(self, frame: ImageFrame) -> None:
        self.height_pix, self.width_pix = frame.shape
        self.exposure_time_s, self.gain = frame.exposure_time_s, frame.gain
        self.saturation_e = frame.saturation_e if np.isfinite(frame.saturation_e) else None
        self.calibration_steps = frame.calibration_steps

    # --- Lazy attributes ---

    @property
    def data(self) -> Float32:
        """Pixel values, (H, W) float32, electrons."""
        return self._lazy("data")

    @property
    def weight(self) -> Float32:
        """1 / background variance, (H, W) float32, e-^-2; 0 where unusable."""
        return self._lazy("weight")

    @property
    def flags(self) -> Flags:
        """`PixelFlag` bits, (H, W) uint16."""
        return self._lazy("flags")

    @property
    def score(self) -> Float32 | None:
        """Matched-filtered image, (H, W) float32, sigma; None if it has none."""
        return self._lazy("score") if "score" in (self.components or ()) else None

    @property
    def psf(self) -> Float32 | None:
        """Coefficients of its PSF model, (n_terms, size, size) float32; None if not calculated.

        That of a difference is in its file; that of another image is a product of its own, `Psf`,
        and can be put here.
        """
        held: Float32 | None = self.__dict__.get("_loaded", {}).get("psf")
        return self._lazy("psf") if held is None and "psf" in (self.components or ()) else held

    @psf.setter
    def psf(self, value: Float32 | None) -> None:
        self.__dict__.setdefault("_loaded", {})["psf"] = value

    @property
    def raw_header(self) -> dict[str, Any]:
        """All cards of its file, upper case, the same for each of its arrays."""
        loaded = self.__dict__.setdefault("_loaded", {})
        if "raw_header" not in loaded:
            first = next(iter(self.fullpaths(Archive()).values()))
            loaded["raw_header"] = read_cards(first)
        cards: dict[str, Any] = loaded["raw_header"]
        return cards

    def _lazy(self, name: str) -> npt.NDArray[Any]:
        loaded = self.__dict__.setdefault("_loaded", {})
        if name not in loaded:
            loaded[name] = self._read(Archive(), (name,))[0][name]
        array: npt.NDArray[Any] = loaded[name]
        return array

    # --- How ---

    def _write(self, archive: Archive, arrays: Arrays, cards: dict[str, Any], place: Place) -> None:
        product = "image" if self.type == "science" else self.type
        base = place.path(archive.settings, product, self.data_version, extension="")
        self.components = list(arrays)
        self.__dict__.pop("_loaded", None)
        if archive.settings.storage.images.single_file:
            self.filepath = f"{base}.fits"
            self.checksum = archive.write(self.filepath, partial(write_fits, contents=arrays, cards=cards))
            self.component_checksums = None
            return
        sums = {}
        for name, array in arrays.items():
            writer = partial(write_fits, contents={name: array}, cards=cards)
            sums[name] = archive.write(f"{base}.{name}.fits", writer)
        self.filepath, self.component_checksums = base, sums
        self.checksum = hashlib.sha256("".join(sums.values()).encode()).hexdigest()

    def _read(self, archive: Archive, names: tuple[str, ...]) -> tuple[Arrays, dict[str, Any]]:
        paths = self.fullpaths(archive)
        missing = [name for name in names if name not in paths]
        if missing:
            raise FileDamagedError(
                f"the image has no {', '.join(missing)}, only {', '.join(paths)}", file=self.filepath
            )
        if self.component_checksums is None:
            return read_fits(paths[names[0]], names)
        arrays: Arrays = {}
        cards: dict[str, Any] = {}
        for name in names:
            found, cards = read_fits(paths[name], (name,))
            arrays |= found
        return arrays, cards
