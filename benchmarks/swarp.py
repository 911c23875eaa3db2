"""Aligning with SWarp, whose distortions are TPV: what upstream and most surveys do."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS

from benchmarks.peers import Cost, program, run_program
from seechange_core.frames import WcsSolution

Float32 = npt.NDArray[np.float32]

#: Powers of (x, y) of PV1_0, 1, 2, 4 ... 10; of PV2 with x and y exchanged. Number 3 is of the radius.
_TERMS = {
    0: (0, 0), 1: (1, 0), 2: (0, 1), 4: (2, 0), 5: (1, 1), 6: (0, 2),
    7: (3, 0), 8: (2, 1), 9: (1, 2), 10: (0, 3),
}  # fmt: skip


def tpv_cards(wcs: WcsSolution) -> dict[str, float | str]:
    """Return the cards of the same solution as a TPV of degree 3, fitted on a grid over the image."""
    cards = wcs.cards
    kept = {k: cards[k] for k in ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")}
    height, width = wcs.shape
    gx, gy = np.meshgrid(np.linspace(0, width - 1, 33), np.linspace(0, height - 1, 33))
    ra, dec = wcs.to_sky(gx.ravel(), gy.ravel())
    plane = WCS(naxis=2)
    plane.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    plane.wcs.crval = [kept["CRVAL1"], kept["CRVAL2"]]
    plane.wcs.cd = np.eye(2)
    true = plane.all_world2pix(np.c_[ra, dec], 1)
    cd = np.array([[kept["CD1_1"], kept["CD1_2"]], [kept["CD2_1"], kept["CD2_2"]]])
    linear = np.c_[gx.ravel() + 1 - kept["CRPIX1"], gy.ravel() + 1 - kept["CRPIX2"]] @ cd.T
    unit = np.abs(linear).max()
    cards = {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "CUNIT1": "deg", "CUNIT2": "deg", **kept}
    for axis, (u, v) in enumerate(((linear[:, 0], linear[:, 1]), (linear[:, 1], linear[:, 0])), start=1):
        basis = np.stack([(u / unit) ** a * (v / unit) ** b for a, b in _TERMS.values()], axis=1)
        found = np.linalg.lstsq(basis, true[:, axis - 1], rcond=None)[0]
        for (number, (a, b)), value in zip(_TERMS.items(), found, strict=True):
            cards[f"PV{axis}_{number}"] = float(value / unit ** (a + b))
    return cards


def swarp(
    data: Float32, weight: Float32, source: WcsSolution, target: WcsSolution, kernel: str = "LANCZOS3"
) -> tuple[Float32, Float32, Cost] | None:
    """Resample an image and its weight onto a target's pixels; None where SWarp is not installed.

    Parameters
    ----------
    data, weight
        (H, W), background removed.
    source, target
        Of the pixels to read and to make.
    kernel
        Its RESAMPLING_TYPE.
    """
    return swarp_coadd([(data, weight, source, 1.0)], target, "WEIGHTED", kernel)


def swarp_coadd(
    images: Iterable[tuple[Float32, Float32, WcsSolution, float]],
    target: WcsSolution,
    combine: str = "CLIPPED",
    kernel: str = "LANCZOS3",
) -> tuple[Float32, Float32, Cost] | None:
    """Resample and combine images; None where SWarp is not installed.

    Parameters
    ----------
    images
        Of each: pixels without background, weight, WCS, and the factor that brings it to the common scale.
    target
        Of the pixels to make.
    combine, kernel
        Its COMBINE_TYPE and RESAMPLING_TYPE.

    Returns
    -------
    Pixels and weight on the target's, and the cost: reading and writing files included.
    """
    path = program("SWarp", "swarp")
    if path is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = []
        for number, (data, weight, source, scale) in enumerate(images):
            header = fits.Header({**tpv_cards(source), "FLXSCALE": scale})
            fits.writeto(folder / f"in{number}.fits", np.asarray(data, np.float32), header)
            fits.writeto(folder / f"in{number}.weight.fits", np.asarray(weight, np.float32), header)
            names.append(f"in{number}.fits")
        wanted = fits.Header(
            {"NAXIS": 2, "NAXIS1": target.shape[1], "NAXIS2": target.shape[0], **tpv_cards(target)}
        )
        (folder / "out.head").write_text(wanted.tostring(sep="\n", endcard=True, padding=False))
        (folder / "empty").write_text("")
        options = {
            "IMAGEOUT_NAME": "out.fits", "WEIGHTOUT_NAME": "out.weight.fits", "WEIGHT_TYPE": "MAP_WEIGHT",
            "RESCALE_WEIGHTS": "N", "SUBTRACT_BACK": "N", "COMBINE": "Y", "COMBINE_TYPE": combine,
            "RESAMPLING_TYPE": kernel, "FSCALASTRO_TYPE": "VARIABLE", "FSCALE_KEYWORD": "FLXSCALE",
            "NTHREADS": 1, "VERBOSE_TYPE": "QUIET", "WRITE_XML": "N", "DELETE_TMPFILES": "Y",
        }  # fmt: skip
        words = [word for key, value in options.items() for word in (f"-{key}", str(value))]
        cost = run_program([path, *names, "-c", "empty", *words], folder)
        out = [np.asarray(fits.getdata(folder / f), np.float32) for f in ("out.fits", "out.weight.fits")]
    return out[0], out[1], cost
