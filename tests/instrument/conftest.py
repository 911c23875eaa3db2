"""Cameras of the tests' own, and a registry that forgets them."""

import numpy as np
import pytest

from seechange_core.instrument import Instrument, SensorSection, registry


@pytest.fixture(autouse=True)
def clean_registry(monkeypatch):
    """Give each test a registry of its own."""
    monkeypatch.setattr(registry, "_made_with", {})
    saved = dict(registry.INSTRUMENT_INSTANCE_CACHE)
    registry.INSTRUMENT_INSTANCE_CACHE.clear()
    yield
    registry.INSTRUMENT_INSTANCE_CACHE.clear()
    registry.INSTRUMENT_INSTANCE_CACHE.update(saved)


class TwoChips(Instrument):
    """Written as the user's document says: names, properties, super().__init__() at the end."""

    def __init__(self):
        self.name = "two_chips"
        self.telescope = "Test Telescope"
        self.gain = 2.0
        self.read_noise = 4.0
        self.pixel_scale_arcsec = 1.0
        super().__init__()

    def get_section_ids(self):
        return ["A", "B"]

    def _make_new_section(self, section_id):
        return SensorSection(section_id, self.name, gain={"A": 2.1, "B": None}[section_id])

    def get_section_offsets(self, section_id):
        return {"A": (-100.0, 0.0), "B": (100.0, 0.0)}[section_id]

    def load_section_image(self, filepath, section_id):
        return np.full((4, 6), ord(section_id), np.uint16)


@pytest.fixture
def two_chips(settings):
    return TwoChips()
