"""Names for the arrays that frames hold."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Flags = npt.NDArray[np.uint16]
Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]
Cards = Mapping[str, Any]
"""Upper-case FITS keywords with their values."""
