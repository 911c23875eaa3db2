import pytest
from hypothesis import given
from hypothesis import strategies as st

from seechange_core.products.place import Place, safe_name
from seechange_core.storage.archive import check_relative


def test_names_follow_the_convention(settings, sample):
    path = sample.place.path(settings, "image", "0123456789abcdef0123")
    assert path == "demo/2026-11-22/demo_20261122_030000_sci/0/image_0123456789.fits"
    master = Place.of_master("demo", "2026-11-22", 3).path(settings, "bias", "f" * 20)
    assert master == "demo/2026-11-22/masters/3/bias_ffffffffff.fits"
    reference = Place.of_reference("demo", "r0042", "g").path(settings, "coadd", "f" * 20)
    assert reference == "demo/references/r0042/g/coadd_ffffffffff.fits"


@given(st.text(), st.text())
def test_names_are_safe_and_differ(one, other):
    for text in (one, other):
        name = safe_name(text)
        check_relative(name)
        assert "/" not in name
        assert not name.startswith(".")
        assert len(name) < 140
    assert (safe_name(one) == safe_name(other)) == (one == other)


@pytest.mark.parametrize("text", ["..", "a/b", "", "/", ".hidden", "a b", "x" * 300, "Ω"])
def test_harmful_names(settings, text):
    check_relative(Place("demo", "n", text, text).path(settings, text, "v" * 20))
