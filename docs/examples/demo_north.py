"""DemoCam on another telescope, as an example of one camera in two places.

Copied into the folder ``instruments``, or left in a folder of one's own that the settings name under
``path.instruments``, it is one more instrument: with its own sections, calibrators and references.
"""

from instruments.demo import DemoInstrument
from seechange_core.numerics.timing import Site


class DemoNorthInstrument(DemoInstrument):
    """DemoCam on the northern DemoScope: a finer scale, and turned by a quarter.

    Parameters
    ----------
    name
        What to call it.
    **options
        As for the camera on its first telescope.
    """

    def __init__(self, name: str = "demo_north", **options: object) -> None:
        super().__init__(name, **{"pixel_scale_arcsec": 0.2, **options})
        self.telescope = "DemoScope North"
        # Files of the same camera are told apart by their TELESCOP; this instrument asks for both cards,
        # so it wins over the camera that takes any telescope.
        self.header_telescope = "DemoScope North"
        self.site = Site(28.76, -17.88, 2396.0)
        self.rotation_deg = 90.0
