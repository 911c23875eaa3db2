"""``python -m benchmarks``: see `benchmarks.everything`."""

import sys

from benchmarks.everything import main

if __name__ == "__main__":
    sys.exit(main())
