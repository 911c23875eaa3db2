"""The small survey that these tests share."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from measured_sky import sky
from small_survey import own, processed, snapshots, started

__all__ = ["own", "processed", "sky", "snapshots", "started"]
