import io
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.markers import CARETDOWN, CARETDOWNBASE
from PIL import Image

from seechange_core.errors import UserError
from seechange_core.qa.lightcurve import LightCurve, plot, plot_object
from seechange_core.qa.style import to_png


def supernova(seed, peak_mag=19.5, bands=("g", "r"), label="obj26abc"):
    rng = np.random.default_rng(seed)
    days = np.sort(rng.uniform(0, 40, 36))
    mjd = 61041.3 + days
    zp = rng.normal(30, 0.1, days.size)
    band = np.array(bands)[np.arange(days.size) % len(bands)]
    truth_days = np.linspace(0, 40, 200)

    def mag(t):
        rise = np.where(t > 10, 1 - np.exp(-np.maximum(t - 10, 0) / 3), 1e-9)
        return peak_mag - 2.5 * np.log10(rise * np.exp(-np.maximum(t - 16, 0) / 15))

    flux = 10 ** (0.4 * (zp - mag(days)))
    err = rng.uniform(150, 400, days.size)
    truth = np.where(mag(truth_days) < 24, mag(truth_days), np.nan)
    measured = flux + rng.normal(0, err)
    return LightCurve(label, mjd, measured, err, zp, band, 61041.3 + truth_days, truth)


def drawn(ax, *, limits):
    """Count the points with error bars, or the upper limits."""
    bars = [b for b in ax.containers if (b.lines[0].get_marker() == "_") == limits]
    return sum(len(b.lines[0].get_xdata()) for b in bars)


def read(figure, tmp_path, name):
    png = to_png(figure)
    (tmp_path / f"{name}.png").write_bytes(png)
    assert len(png) < 500_000
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


def test_one_light_curve(tmp_path):
    curve = supernova(1)
    figure = plot([curve], title="A supernova")
    assert read(figure, tmp_path, "one").shape[1] > 900
    ax = figure.axes[0]
    assert ax.yaxis_inverted()
    snr = curve.flux / curve.flux_err
    assert drawn(ax, limits=True) == np.sum(snr < 3)
    assert 0 < drawn(ax, limits=True) < len(snr)
    assert drawn(ax, limits=False) == np.sum(snr >= 3)
    assert ax.get_xlabel() == f"MJD − {int(curve.time.min())} [days]"


def test_magnitudes_and_limits_are_right():
    curve = LightCurve(
        "x", np.array([1.0, 2.0]), np.array([1000.0, 10.0]), np.array([10.0, 100.0]),
        np.array([25.0, 25.0]), np.array(["r", "r"]),
    )  # fmt: skip
    ax = plot([curve]).axes[0]
    assert ax.containers[0].lines[0].get_ydata()[0] == pytest.approx(25 - 7.5)
    limit = next(b for b in ax.containers if b.lines[0].get_marker() == "_")
    assert limit.lines[0].get_ydata()[0] == pytest.approx(25 - 2.5 * np.log10(500))
    (arrow,) = [line for line in limit.lines[1] if len(line.get_xdata())][:1]
    assert arrow.get_marker() in (CARETDOWN, CARETDOWNBASE)  # on the page, whichever way the axis goes
    flux = plot([curve], quantity="flux").axes[0].containers[0].lines[0].get_ydata()
    np.testing.assert_allclose(flux, np.array([1000, 10]) * 10 ** (0.4 * (23.9 - 25)))


def test_many_panels(tmp_path):
    curves = [supernova(k, 18 + k / 2, label=f"obj26aa{chr(97 + k)}") for k in range(7)]
    for quantity in ("mag", "flux"):
        figure = plot(curves, quantity=quantity, title="Seven transients")
        read(figure, tmp_path, f"many_{quantity}")
        assert len(figure.axes) == 7
        assert [bool(ax.get_xlabel()) for ax in figure.axes] == [False] * 4 + [True] * 3


def test_epochs_without_a_flux_are_left_out_and_nothing_is_an_error():
    curve = supernova(2)
    curve.flux[:5] = np.nan
    plot([curve])
    curve.flux[:] = np.nan
    with pytest.raises(UserError, match="obj26abc"):
        plot([curve])
    with pytest.raises(UserError, match="nothing to plot"):
        plot([])


def test_global_state_is_left_alone():
    before = dict(mpl.rcParams)
    to_png(plot([supernova(3)]), dpi=40)
    assert dict(mpl.rcParams) == before


def test_an_object_is_drawn_with_its_own_light_and_all_light(tmp_path):
    curve = supernova(4)
    host = 10 ** (0.4 * (curve.zp - 19.0))
    whole = replace(curve, total_flux=curve.flux + host, total_flux_err=curve.flux_err)
    figure = plot_object(whole)
    read(figure, tmp_path, "object")
    own, total = figure.axes
    assert own.yaxis_inverted() and total.yaxis_inverted()
    assert drawn(own, limits=True) > 0
    assert (drawn(total, limits=True), drawn(total, limits=False)) == (0, len(curve.time))
    assert total.get_xlabel() == f"MJD (UTC) − {int(curve.time.min())} [days]"
    assert total.containers[0].lines[0].get_ydata().max() < 19.1
    assert len(plot_object(curve).axes) == 1
    faded = plot_object(replace(whole, flux=-whole.flux)).axes[0]
    assert faded.get_ylabel() == "Flux [µJy]" and not faded.yaxis_inverted()
    with pytest.raises(UserError, match="obj26abc"):
        plot_object(replace(curve, flux=np.full(36, np.nan)))


def test_magnitudes_are_called_what_they_are():
    """Vega magnitudes are drawn as they are, their fluxes in microjansky; relative ones have neither."""
    curve = supernova(4)
    vega = replace(curve, system="Vega", ab_offset_mag=np.full(len(curve.time), 0.45))
    assert plot_object(vega).axes[0].get_ylabel() == "Magnitude (Vega)"
    assert vega.scaled("mag")[0] == pytest.approx(curve.scaled("mag")[0], nan_ok=True)
    assert vega.scaled("flux")[0] == pytest.approx(curve.scaled("flux")[0] * 10**-0.18, nan_ok=True)
    relative = replace(curve, system="relative", ab_offset_mag=np.nan)
    assert plot_object(relative).axes[0].get_ylabel() == "Magnitude (instrumental)"
    assert plot_object(replace(relative, flux=-curve.flux)).axes[0].get_ylabel() == "Flux [relative]"
