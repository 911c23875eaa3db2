"""How the numbers of a frame travel in the header of its file, next to the camera's own cards."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from seechange_core.frames import Background, Float32, ImageFrame, MasterFrame, PsfModel

Arrays = dict[str, npt.NDArray[Any]]

#: Our cards, which are not the camera's: left out of a frame's header when it is read back.
OWN = frozenset(
    (
        *("BUNIT", "SCEXPT", "SCGAIN", "SCSATUR", "SCCALIB", "SCRESAMP", "SCREFCOV"),
        *("PSFDEG", "PSFX0", "PSFY0", "PSFXSCAL", "PSFYSCAL", "PSFFWHM", "PSFNSTAR", "PSFFLOOR"),
        *("BKGSTEP", "BKGNX", "BKGNY"),
    )
)


def image_arrays(frame: ImageFrame) -> Arrays:
    """Return the arrays of an image by the names its file gives them."""
    return {"data": frame.data, "weight": frame.weight, "flags": frame.flags}


def image_cards(frame: ImageFrame) -> dict[str, Any]:
    """Return the camera's cards and the image's numbers."""
    return {
        **frame.header,
        "BUNIT": "electron",
        "SCEXPT": frame.exposure_time_s,
        "SCGAIN": frame.gain,
        "SCSATUR": frame.saturation_e if np.isfinite(frame.saturation_e) else None,
        "SCCALIB": frame.calibration_steps,
        "SCRESAMP": frame.resamplings,
    }


def to_image(arrays: Mapping[str, npt.NDArray[Any]], cards: Mapping[str, Any]) -> ImageFrame:
    """Undo `image_arrays` and `image_cards`."""
    saturation = cards["SCSATUR"]
    return ImageFrame(
        data=arrays["data"],
        weight=arrays["weight"],
        flags=arrays["flags"],
        exposure_time_s=float(cards["SCEXPT"]),
        gain=float(cards["SCGAIN"]),
        saturation_e=np.inf if saturation is None else float(saturation),
        calibration_steps=int(cards["SCCALIB"]),
        resamplings=int(cards["SCRESAMP"]),
        header={key: value for key, value in cards.items() if key not in OWN},
    )


def master_arrays(frame: MasterFrame) -> Arrays:
    """Return the arrays of a master frame by the names its file gives them."""
    return {"data": frame.data, "variance": frame.variance, "flags": frame.flags}


def master_cards(frame: MasterFrame) -> dict[str, Any]:
    """Return the numbers of a master frame."""
    return {
        "SCKIND": frame.kind,
        "SCNFRAME": frame.n_frames,
        "SCEXPT": frame.exposure_time_s,
        "SCPEDEST": frame.holds_pedestal,
    }


def to_master(arrays: Mapping[str, npt.NDArray[Any]], cards: Mapping[str, Any]) -> MasterFrame:
    """Undo `master_arrays` and `master_cards`."""
    exposure_time = cards["SCEXPT"]
    return MasterFrame(
        kind=str(cards["SCKIND"]),
        data=arrays["data"],
        variance=arrays["variance"],
        flags=arrays["flags"],
        n_frames=int(cards["SCNFRAME"]),
        exposure_time_s=np.nan if exposure_time is None else float(exposure_time),
        holds_pedestal=bool(cards["SCPEDEST"]),
    )


def psf_cards(psf: PsfModel) -> dict[str, Any]:
    """Return the numbers of a PSF model that go with its coefficients."""
    return {
        "PSFDEG": psf.degree,
        "PSFX0": psf.centre[0],
        "PSFY0": psf.centre[1],
        "PSFXSCAL": psf.scale[0],
        "PSFYSCAL": psf.scale[1],
        "PSFFWHM": psf.fwhm_pix,
        "PSFNSTAR": psf.n_stars,
        "PSFFLOOR": psf.floor,
    }


def to_psf(coefficients: Float32, cards: Mapping[str, Any]) -> PsfModel:
    """Make a PSF model of its coefficients and `psf_cards`."""
    return PsfModel(
        coefficients=coefficients,
        degree=int(cards["PSFDEG"]),
        centre=(float(cards["PSFX0"]), float(cards["PSFY0"])),
        scale=(float(cards["PSFXSCAL"]), float(cards["PSFYSCAL"])),
        fwhm_pix=float(cards["PSFFWHM"]),
        n_stars=int(cards["PSFNSTAR"]),
        floor=float(cards["PSFFLOOR"]),
    )


def background_cards(background: Background) -> dict[str, Any]:
    """Return the numbers of a background that go with its meshes."""
    height, width = background.shape
    return {"BUNIT": "electron", "BKGSTEP": background.step_pix, "BKGNX": width, "BKGNY": height}


def to_background(level: Float32, rms: Float32, cards: Mapping[str, Any]) -> Background:
    """Make a background of its meshes and `background_cards`."""
    return Background(
        level=level,
        rms=rms,
        step_pix=int(cards["BKGSTEP"]),
        shape=(int(cards["BKGNY"]), int(cards["BKGNX"])),
    )
