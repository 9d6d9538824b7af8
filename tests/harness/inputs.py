"""Values for parameters of any shape."""

from __future__ import annotations

from typing import Any

import numpy as np

from nxcc.ir.shapes import Shape


def small_value(shape: Shape, random: np.random.Generator) -> Any:
    """Whole numbers from 0 to 4; zero in scalars, which may count turns or choose."""
    if shape.is_tuple:
        return tuple(small_value(element, random) for element in shape.elements)
    return np.asarray(random.integers(0, 5, shape.dims) * (shape.rank > 0)).astype(shape.dtype.numpy)
