"""The verdict: every threshold is kept, and says so in words."""

from dataclasses import replace

import numpy as np
import pytest

from seechange_core.qa.score import fraction
from seechange_core.verify import Summary, checks, screen


def summary(**changes) -> Summary:
    """A survey as good as it should be."""
    good = Summary(
        exposures=12,
        sections=48,
        subtracted_sections=32,
        astrometric_rms_mas=7.0,
        zero_point_error_mmag=4.0,
        zero_point_worst_mmag=11.0,
        completeness={
            **{"3-5": fraction(0, 9), "5-7": fraction(2, 9), "7-10": fraction(8, 10)},
            **{"10-20": fraction(30, 30), "20+": fraction(0, 0)},
        },
        false_per_section=0.4,
        false_positive=9,
        false_negative=4,
        flux_pull_median=0.05,
        flux_pull_width=1.03,
        flux_pull_median_err=0.05,
        flux_pull_width_err=0.04,
        flux_pull_n=700,
        flux_pull_outliers=0.005,
        light_curve_pull_median=0.1,
        light_curve_pull_width=1.1,
        light_curve_pull_n=150,
        transients_found=20,
        transients_injected=22,
        curves=(),
    )
    return replace(good, **changes)


def failed(**changes) -> list[str]:
    return [check.name for check in checks(summary(**changes)) if not check.passed]


def test_a_good_survey_passes():
    assert failed() == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"astrometric_rms_mas": 20.1}, "astrometric rms"),
        ({"astrometric_rms_mas": np.nan}, "astrometric rms"),
        ({"zero_point_error_mmag": 21.0}, "zero-point error"),
        ({"completeness": {"5-7": fraction(9, 9), "7-10": fraction(6, 10)}}, "completeness at S/N > 7"),
        ({"false_per_section": 2.1}, "false detections per section"),
        ({"flux_pull_median": -0.26}, "median flux pull"),
        ({"flux_pull_median": np.nan}, "median flux pull"),
        ({"flux_pull_width": 1.21}, "width of flux pulls"),
        ({"flux_pull_width": 0.79}, "width of flux pulls"),
        ({"transients_found": 16}, "transients found"),
        ({"flux_pull_outliers": 0.05}, "flux pulls beyond 4"),
        ({"light_curve_pull_width": 1.4}, "width of light-curve pulls"),
    ],
)
def test_each_figure_can_fail_alone(changes, name):
    assert failed(**changes) == [name]


def test_statistical_room_grows_with_the_errors():
    assert failed(flux_pull_median=0.3, flux_pull_median_err=0.1) == []
    assert failed(flux_pull_width=1.4, flux_pull_width_err=0.12) == []


def test_the_screen_says_what_failed_and_why():
    bad = summary(astrometric_rms_mas=33.0)
    text = screen(bad, checks(bad), 61.4)
    assert "12 exposures, 48 sections calibrated, 32 subtracted, in 61 s" in text
    assert "BAD astrometric rms                33 mas             <= 20 mas" in text
    assert "astrometric rms is worse than <= 20 mas: " in text
    assert "30 / 30" in text and "0 / 0" in text
    assert len(text.splitlines()) <= 24


def test_json_has_the_figures_and_no_arrays():
    plain = summary().to_json()
    assert plain["astrometric_rms_mas"] == 7.0
    assert plain["completeness"]["7-10"]["value"] == 0.8
    assert plain["completeness"]["20+"]["value"] is None
    assert "curves" not in plain
