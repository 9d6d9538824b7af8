"""Values for parameters of any shape."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from nxcc.compiler.interface.parameters import Tensor, random_inputs
from nxcc.ir.shapes import Shape

Array = np.ndarray[Any, Any]


def random_leaves(shapes: Iterable[Shape], seed: int = 0) -> list[Array]:
    """Values for every array in some shapes, as users get them who give no inputs."""
    leaves = [leaf for shape in shapes for leaf in shape.leaves() if leaf.is_array]
    return random_inputs([Tensor(f"input{number}", number, "", "input", leaf.dtype, leaf)
                          for number, leaf in enumerate(leaves)], seed)


def small_value(shape: Shape, random: np.random.Generator) -> Any:
    """Whole numbers from 0 to 4; zero in scalars, which may count turns or choose."""
    if shape.is_tuple:
        return tuple(small_value(element, random) for element in shape.elements)
    return np.asarray(random.integers(0, 5, shape.dims) * (shape.rank > 0)).astype(shape.dtype.numpy)
