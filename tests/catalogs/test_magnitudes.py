"""What magnitudes mean: Vega's own flux, from its spectrum's published values, tells the offsets."""

import numpy as np
import pytest

from seechange_core.catalogs.magnitudes import AB, RELATIVE, VEGA, ab_offset_mag, system_of

#: Flux density of Vega, Jy, as given with the filters by others (Bessell, Castelli & Plez 1998, A&A 333, 231,
#: table A2; Cohen, Wheaton & Megeath 2003, AJ 126, 1090, for J H K).
VEGA_JY = {"U": 1790, "B": 4063, "V": 3636, "R": 3064, "I": 2416, "J": 1594, "H": 1024, "K": 666.7}


def test_bands_have_the_system_they_were_defined_in():
    assert {system_of(b) for b in ("u", "g", "r_ps1", "y", "z_ps1")} == {AB}
    assert {system_of(b) for b in ("B", "V", "I", "G", "BP", "RP", "K")} == {VEGA}
    assert {system_of(b) for b in ("VT", "BT", "clear", "")} == {RELATIVE}


@pytest.mark.parametrize("band", VEGA_JY)
def test_offsets_are_those_of_vega_s_flux(band):
    """3631 Jy are AB 0; the U band is defined by too few as one to agree to better than 0.03 mag."""
    expected = -2.5 * np.log10(VEGA_JY[band] / 3631.0)
    assert ab_offset_mag(band) == pytest.approx(expected, abs=0.04)


def test_other_bands_have_none_or_are_unknown():
    assert ab_offset_mag("r_ps1") == 0.0
    assert np.isnan(ab_offset_mag("VT"))
