"""Real nights: how many frames calibrate, how well, how bright stars repeat, and what is left of differences.

    SEECHANGE_REAL_DATA=FOLDER python -m benchmarks.real_data [NAME ...] [--method zogy] [--keep FOLDER]

Prints what it measures and writes it to ``docs/<name>.txt``: how a night calibrates and how stars repeat
(``docs/images/<name>_scatter.png``), of one with a known event a table of its differences
(``docs/images/<name>_lightcurves.png``), of one with a transit how deep it is on images and on differences
(``docs/images/<name>.png``). With ``--keep``, products stay in a folder, and what is there is not made again;
with another method of subtraction than the settings' own, text and pictures go there, too.
"""

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from matplotlib import rc_context
from sqlalchemy import select

from benchmarks import real_changes, transit
from seechange_assets.cli import run
from seechange_core import chain
from seechange_core.catalogs.store import installed
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
        ["reference", "build", "--leave-one-out", "-j", "1"],
        ["process", "--through", "subtraction", "-j", "1"],
    ),
    "kb13475": (
        ["ingest", "{data}/kb13475/*.fits.gz"],
        ["catalog", "bootstrap", "--name", "kb13475", "-j", "1"],
        ["process", "--through", "zero_point", "-j", "1"],
        ["reference", "build", "--leave-one-out", "-j", "1"],
        ["process", "-j", "1"],
    ),
}


@dataclass(frozen=True)
class Repeats:
    """Stars seen in most frames: mean magnitude, scatter and the scatter that the errors promise, mag."""

    mag: np.ndarray
    scatter: np.ndarray
    promised: np.ndarray


def process(name: str, data: Path, root: Path, method: str | None) -> Settings:
    """Process a night in a folder; return its settings."""
    options = yaml.safe_load((DOCS / f"{name}.yaml").read_text())
    options["path"]["data_root"] = str(root / "data")
    if method is not None:
        parameters = options["instruments"][name]["parameters"]
        parameters["subtract"] = {**parameters.get("subtract", {}), "method": method}
    config = root / f"{name}.yaml"
    config.write_text(yaml.safe_dump(options))
    settings = load_settings(config, environ={})
    with use_settings(settings):
        for command in (["init"], *COMMANDS[name]):
            if command[0] == "catalog" and installed(settings.data_root / "catalogs"):
                continue
            words = [word.format(data=data) for word in command]
            patterns = [Path(word) for word in words if "*" in word]
            files = [str(file) for p in patterns for file in sorted(p.parent.glob(p.name))]
            run([word for word in words if "*" not in word] + files)
    return settings


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


def step_seconds(settings: Settings) -> str:
    """Say how long each step took, the median over the frames; what else the machine does counts, too."""
    seconds: dict[str, list[float]] = {}
    for row in chain.status(settings):
        if row.current and row.status == "done":
            seconds.setdefault(row.step, []).append(row.metrics["seconds"])
    return ", ".join(f"{step} {np.median(of):.2f}" for step, of in seconds.items())


def report(name: str, folder: Path, settings: Settings, *, draws_docs: bool) -> None:
    """Print and write down what came of a night, and draw it."""
    docs = DOCS if draws_docs else folder
    pictures = docs / "images" if draws_docs else folder
    found, figures = repeats(settings)
    n = len(chain.exposures(settings))
    title = f"{name}: {len(found.mag)} stars in {figures['frames']:.0f} of {n} frames"
    draw(found, title, pictures / f"{name}_scatter.png")
    words = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
    lines = [f"{name}: {n} frames taken, {words}, {len(found.mag)} stars"]
    lines += [f"seconds of a step, whatever else the machine did: {step_seconds(settings)}"]
    if name in real_changes.EVENTS:
        picture = pictures / f"{name}_lightcurves.png"
        lines += real_changes.judge(settings, real_changes.EVENTS[name], picture)
    if name in transit.EPHEMERIDES:
        star = transit.EPHEMERIDES[name]
        lines += transit.judge(settings, star)
        place = ["--ra", str(star.ra), "--dec", str(star.dec), "--on", "image", "--ensemble"]
        with use_settings(settings):
            run(["lightcurve", *place, "--plot", str(pictures / f"{name}.png")])
    print(*lines, sep="\n")
    (docs / f"{name}.txt").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Process and judge the nights."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_data", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *COMMANDS])
    parser.add_argument("--method", choices=("zogy", "kernel"), help="of subtraction, not the settings' own")
    parser.add_argument("--keep", type=Path, help="folder for the products")
    asked = parser.parse_args()
    data = Path(os.environ["SEECHANGE_REAL_DATA"])
    for name in asked.names or list(COMMANDS):
        with tempfile.TemporaryDirectory() as temporary:
            folder = (asked.keep or Path(temporary)) / name
            folder.mkdir(parents=True, exist_ok=True)
            settings = process(name, data, folder.resolve(), asked.method)
            report(name, folder, settings, draws_docs=asked.method is None)


if __name__ == "__main__":
    main()
