"""Real nights: how many frames calibrate, how well, how bright stars repeat, and what is left of differences.

    SEECHANGE_REAL_DATA=FOLDER python -m benchmarks.real_data [tres1] [kb13475]

Draws ``docs/images/<name>_scatter.png`` and prints one line for each night; of a night with a known event it
also prints a table of its differences and draws ``docs/images/<name>_lightcurves.png``.
"""

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from sqlalchemy import select

from benchmarks import real_changes
from seechange_assets.cli import run
from seechange_core import chain
from seechange_core.chain.load import CalibratedRows, rows_of_zero_points
from seechange_core.frames import Sources, WcsSolution
from seechange_core.numerics.matching import match_sky
from seechange_core.products import ZeroPoint
from seechange_core.qa.style import BLUE, STYLE, VERMILION, Figure
from seechange_core.settings import Settings, load_settings, use_settings
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session

DOCS = Path(__file__).parents[1] / "docs"
#: What a person would type after `init`.
COMMANDS = {
    "tres1": (
        ["catalog", "import", "{data}/catalogs/tres1_tycho2.ecsv", "--as", "tycho2"],
        ["ingest", "{data}/tres1/*.fit.gz"],
        ["process", "--through", "zero_point", "-j", "1"],
    ),
    "kb13475": (
        ["ingest", "{data}/kb13475/*.fits.gz"],
        ["catalog", "bootstrap", "--name", "kb13475", "-j", "1"],
        ["process", "--through", "zero_point", "-j", "1"],
        ["reference", "build", "--leave-one-out", "-j", "1"],
        ["process", "--through", "measurement", "-j", "1"],
    ),
}


@dataclass(frozen=True)
class Repeats:
    """Stars seen in most frames: mean magnitude, scatter and the scatter that the errors promise, mag."""

    mag: np.ndarray
    scatter: np.ndarray
    promised: np.ndarray


def cpu_s() -> float:
    """Return the CPU seconds of this process and of the workers it has had."""
    return sum(os.times()[:4])


def process(name: str, data: Path, root: Path) -> tuple[Settings, float]:
    """Process a night in a folder; return its settings and the CPU seconds it took."""
    config = root / f"{name}.yaml"
    text = (DOCS / f"{name}.yaml").read_text()
    config.write_text(text.replace(f"../seechange_data/{name}", str(root / "data")))
    settings = load_settings(config, environ={})
    start = cpu_s()
    with use_settings(settings):
        for command in (["init"], *COMMANDS[name]):
            words = [word.format(data=data) for word in command]
            patterns = [Path(word) for word in words if "*" in word]
            files = [str(file) for p in patterns for file in sorted(p.parent.glob(p.name))]
            run([word for word in words if "*" not in word] + files)
    return settings, cpu_s() - start


def repeats(settings: Settings) -> tuple[Repeats, dict[str, float]]:
    """Compare what the calibrated frames say of the stars of the best one."""
    with use_settings(settings), open_session(settings, read_only=True) as session:
        present = chain.provenances(settings, chain.exposures(settings)[0].instrument)["zero_point"].id
        query = select(ZeroPoint.id).where(ZeroPoint.provenance_id == present)
        rows = rows_of_zero_points(session, list(session.scalars(query)))
        seen = [_clean(row, Archive(settings)) for row in rows]
    stars, there = max(seen, key=lambda own: len(own[0]))
    star_ra, star_dec = there.to_sky(stars.x, stars.y)
    mags = np.full((len(rows), len(stars)), np.nan)
    errors = mags.copy()
    for i, (s, wcs) in enumerate(seen):
        pairs = match_sky(*wcs.to_sky(s.x, s.y), star_ra, star_dec, 1.5 * wcs.pixel_scale_arcsec)
        zp = rows[i].zero_point.solution().zp_at(s.x[pairs.first], s.y[pairs.first])
        mags[i, pairs.second] = zp - 2.5 * np.log10(s.flux_psf[pairs.first])
        errors[i, pairs.second] = 1.0857 / s.snr[pairs.first]
    often = np.count_nonzero(np.isfinite(mags), axis=0) >= 0.7 * len(rows)
    mags, errors = mags[:, often], errors[:, often]
    mean = np.nanmedian(mags, axis=0)
    best = mean <= np.sort(mean)[min(50, len(mean) - 1)]
    # The frames are tied together by their brightest stars, as an ensemble does.
    mags -= np.nanmedian((mags - mean)[:, best], axis=1, keepdims=True)
    mean = np.nanmedian(mags, axis=0)
    scatter = 1.4826 * np.nanmedian(np.abs(mags - mean), axis=0)
    figures = {
        "frames": len(rows),
        "rms_mas_median": float(np.median([r.wcs.rms_mas for r in rows])),
        "rms_mas_max": float(np.max([r.wcs.rms_mas for r in rows])),
        "matched_min": float(min(r.wcs.n_matched for r in rows)),
        "zp_err_mmag_median": 1e3 * float(np.median([r.zero_point.zp_err for r in rows])),
        "scatter_10_brightest_mmag": 1e3 * float(np.median(scatter[np.argsort(mean)[:10]])),
        "scatter_50_brightest_mmag": 1e3 * float(np.median(scatter[np.argsort(mean)[:50]])),
    }
    return Repeats(mean, scatter, np.nanmedian(errors, axis=0)), figures


def _clean(row: CalibratedRows, archive: Archive) -> tuple[Sources, WcsSolution]:
    s = row.source_list.read(archive)
    return s.select((s.flags == 0) & (s.snr > 5)), row.wcs.solution()


def draw(found: Repeats, title: str, path: Path) -> None:
    """Plot scatter against magnitude, with what the error bars promise."""
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.semilogy(found.mag, 1e3 * found.scatter, ".", ms=4, color=BLUE, label="scatter of a star")
        order = np.argsort(found.mag)
        axes.semilogy(
            found.mag[order], 1e3 * found.promised[order], lw=1.5, color=VERMILION, label="its error bar"
        )
        axes.set(xlabel="magnitude", ylabel="frame to frame [mmag]", title=title, ylim=(1, 1000))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3, lw=0.5)
        axes.legend(frameon=False, loc="upper left")
        figure.savefig(path, dpi=120)


def main(names: list[str]) -> None:
    """Process and judge the nights."""
    data = Path(os.environ["SEECHANGE_REAL_DATA"])
    for name in names or list(COMMANDS):
        with tempfile.TemporaryDirectory() as folder:
            settings, seconds = process(name, data, Path(folder))
            found, figures = repeats(settings)
            n = len(chain.exposures(settings))
            title = f"{name}: {len(found.mag)} stars in {figures['frames']:.0f} of {n} frames"
            draw(found, title, DOCS / "images" / f"{name}_scatter.png")
            if name in real_changes.EVENTS:
                picture = DOCS / "images" / f"{name}_lightcurves.png"
                print(*real_changes.judge(settings, real_changes.EVENTS[name], picture), sep="\n")
        words = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
        print(f"{name}: {n} frames taken, {words}, {len(found.mag)} stars, {seconds / n:.2f} CPU s per frame")


if __name__ == "__main__":
    main(sys.argv[1:])
