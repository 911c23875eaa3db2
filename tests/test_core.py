"""The modules at the root of the core: errors, parameters, flags, provenance, frames."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seechange_core import errors, flags
from seechange_core.errors import FileDamagedError, NoStars, SeeChangeError, SettingsError, Stop
from seechange_core.flags import PixelFlag
from seechange_core.frames import Box, Detections, WcsSolution
from seechange_core.params import Params, changes_results, param
from seechange_core.provenance import ProvenanceKey, digest


class SomeParams(Params):
    size_pix: int = param(3, "Side of the box.", unit="pixel", ge=1)
    threads: int = param(1, "Threads.", results=False)


def all_errors():
    kinds = [SeeChangeError]
    for kind in kinds:
        kinds += [k for k in kind.__subclasses__() if k.__module__ == errors.__name__]
    return kinds


@pytest.mark.parametrize("kind", all_errors())
def test_errors_cross_process_borders_whole(kind):
    error = kind("what", cure="do it", exposure="e1", section=3, file="f.fits")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error) == "exposure e1, section 3, file f.fits: what (do it)"


def test_reasons_are_single_words_and_differ():
    reasons = [kind.reason for kind in all_errors()]
    assert len(set(reasons)) == len(reasons)
    assert all(reason.replace("_", "").isalpha() for reason in reasons)


def test_a_stop_is_no_bad_data():
    assert issubclass(NoStars, Stop)
    assert not issubclass(FileDamagedError, Stop)


def test_parameters_are_frozen_and_checked():
    with pytest.raises(SettingsError, match=r"extract\.sise_pix.*size_pix"):
        SomeParams.checked({"sise_pix": 3}, "extract")
    with pytest.raises(SettingsError, match=r"extract\.size_pix.*got 0"):
        SomeParams.checked({"size_pix": 0}, "extract")
    with pytest.raises(ValueError, match="frozen"):
        SomeParams().size_pix = 4


def test_only_what_changes_results_is_critical():
    assert SomeParams(threads=8).critical() == {"size_pix": 3}
    assert changes_results(SomeParams, "size_pix")
    assert not changes_results(SomeParams, "threads")


def test_every_pixel_flag_has_a_meaning_and_fits():
    assert set(flags.PIXEL_FLAG_MEANINGS) == set(PixelFlag)
    assert max(PixelFlag) < 2**16
    assert flags.names(PixelFlag.SATURATED | PixelFlag.BLEED) == ["saturated", "bleed"]


def test_provenance_depends_on_each_part_and_on_no_order():
    key = ProvenanceKey("image", "1", {"a": 1, "b": 2}, ("x", "y"))
    assert key.id == ProvenanceKey("image", "1", {"b": 2, "a": 1}, ("y", "x")).id
    others = [
        ProvenanceKey("images", "1", {"a": 1, "b": 2}, ("x", "y")),
        ProvenanceKey("image", "2", {"a": 1, "b": 2}, ("x", "y")),
        ProvenanceKey("image", "1", {"a": 1, "b": 3}, ("x", "y")),
        ProvenanceKey("image", "1", {"a": 1, "b": 2}, ("x",)),
    ]
    assert len({key.id, *(other.id for other in others)}) == 5


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none()))
def test_digests_are_stable(values):
    again = dict(reversed(list(values.items())))
    assert digest(values) == digest(again)
    assert len(digest(values)) == 20


def test_boxes():
    box = Box(1, 4, 2, 7)
    assert box.shape == (3, 5)
    assert np.zeros((10, 10))[box.slices].shape == box.shape


def test_tables_select_rows():
    table = Detections(*(np.arange(4.0) + i for i in range(7)), np.arange(4))
    chosen = table.select(table.x > 1)
    assert len(chosen) == 2
    assert list(chosen.flags) == [2, 3]


def test_a_solution_goes_to_the_sky_and_back():
    cards = {
        **{"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 0.001, "CRVAL2": 85.0, "CRPIX1": 50.5},
        **{"CRPIX2": 40.5, "CD1_1": -7.5e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 7.5e-5},
    }
    solution = WcsSolution(cards, (80, 100))
    ra, dec = solution.to_sky(49.5, 39.5)
    assert (ra, dec) == pytest.approx((0.001, 85.0))
    x, y = solution.to_pixels(*solution.to_sky([0.0, 99.0], [0.0, 79.0]))
    np.testing.assert_allclose([x, y], [[0, 99], [0, 79]], atol=1e-6)
    assert solution.pixel_scale_arcsec == pytest.approx(0.27)
