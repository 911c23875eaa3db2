"""The small survey that these tests share."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from small_survey import own, processed, snapshots, started

__all__ = ["own", "processed", "snapshots", "started"]
