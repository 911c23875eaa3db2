"""What came out against what went in: a processed simulated survey, judged by its truth tables.

The only place that knows both the simulator's truth and the pipeline's products.
"""

from seechange_core.verify.report import Check, checks, screen
from seechange_core.verify.summary import Summary, TransientCurve, summarise

__all__ = ["Check", "Summary", "TransientCurve", "checks", "screen", "summarise"]
