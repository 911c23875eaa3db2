"""Lets the tests import the TAP service that lies beside them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
