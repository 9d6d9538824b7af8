"""THE table of tolerances: how far a result may lie from the expected one, and why; verify, trials and conformance share it.

An error is a share of the output's largest value. Everything follows from u, the unit roundoff of a dtype (half a step at 1):

    what may differ                                         limit
    how one rounding or one engine function is done         TOLERANCES: so many u
    the order of a sum of n terms                           the same, times sqrt(n / FREE_LENGTH) for long sums
    d roundings one after another                           WALK * u * sqrt(d)
    the same to a narrower type inside the module           WALK * u of that type * sqrt(d)
    operands of p products in a row cast to another type    WALK * u of that type * sqrt(2 * p)
    all of d operations in a row computed in another type   WALK * u of that type * sqrt(2 * p + d)

A rounding error is spread evenly over +-u, so that its standard deviation is u / sqrt(3); errors of many roundings add as a
random walk, and three deviations of it are allowed: WALK = 3 / sqrt(3). Integers, predicates and shapes agree exactly, but that
a cast may turn a choice: AUTOCAST_DISCRETE of their elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from nxcc.ir.dtypes import BF16, F8E4M3, F16, F32, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.marks import MATMUL
from nxcc.ir.hlo.module import Computation, Instruction, Module, callees_first
from nxcc.ir.hlo.texts import is_text

TOLERANCES: dict[str, tuple[float, str]] = {
    "f64": (2.0**20, "the host computes it in f64; functions of libraries differ by some last places, and differences cancel"),
    "c128": (2.0**20, "as f64"),
    "f32": (1600.0, "a hundred engine functions in a row, each good to 2^-20, which is 16 u"),
    "c64": (1600.0, "as f32"),
    "f16": (4.0, "two steps: intermediate values may or may not be rounded"),
    "bf16": (5.0, "two to three steps, for the same reason"),
    **dict.fromkeys(("f8e3m4", "f8e4m3", "f8e4m3fn", "f8e4m3fnuz", "f8e4m3b11fnuz", "f8e5m2", "f8e5m2fnuz", "f6e3m2fn",
                     "f6e2m3fn", "f4e2m1fn"), (2.0, "one step at the largest value")),
    "f8e8m0fnu": (0.0, "powers of two are exact"),
}
"""dtype -> (limit in units of its u, the reason). What is not here is exact."""

FREE_LENGTH = 1024
"""Sums up to this many terms are within the table; the error of a longer one grows as the square root of its length."""

WALK = math.sqrt(3.0)
AUTOCAST_DISCRETE = 0.05
"""Share of integer and boolean elements that may differ under autocast, since rounding flips choices."""

_finfo: Any = ml_dtypes.finfo

Array = np.ndarray[Any, Any]

TF32_UNIT = 2.0**-11
"""f32 operands with 10 bits after the point."""


def unit(dtype: DType) -> float:
    """u: half the distance from 1 to the next number of a float or complex dtype."""
    return float(_finfo(dtype.numpy).eps) / 2


def is_discrete(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype of numpy's or ml_dtypes' holds integers or truth values."""
    try:
        _finfo(dtype)
    except ValueError:
        return True
    return False


def scale(expected: Array) -> float:
    """What an error is a share of: the largest finite magnitude.

    No less than the smallest normal number of the dtype, since those below have fewer digits than the dtype promises.
    """
    finite = np.abs(expected[np.isfinite(expected)])
    largest = float(finite.max()) if finite.size else 0.0
    return max(largest, float(_finfo(expected.dtype).smallest_normal))


def output_error(got: Array, expected: Array) -> float:
    """The error of one output: the largest difference as a share of `scale`, of integers the share of elements that differ.

    Infinite where shapes differ or where only one side is finite; NaN stands against NaN and an infinity against itself.
    Complex numbers differ part by part.
    """
    if got.shape != expected.shape:
        return math.inf
    if got.size == 0:
        return 0.0
    if is_text(got.dtype) or is_discrete(got.dtype):
        return float(np.mean(got != expected))
    one, other = _real_parts(got), _real_parts(expected)
    open_ = ~((one == other) | (np.isnan(one) & np.isnan(other)))
    if not open_.any():
        return 0.0
    if not np.isfinite(one[open_]).all() or not np.isfinite(other[open_]).all():
        return math.inf
    return float(np.abs(one[open_] - other[open_]).max()) / scale(expected)


def _real_parts(values: Array) -> Array:
    parts = np.stack([values.real, values.imag]) if values.dtype.kind == "c" else values
    return np.asarray(parts.astype(np.float64))


def tolerance(dtype: DType, length: int = 1, depth: int = 1, cast: float = 0.0) -> float:
    """The limit for an output of this dtype. length: terms of the longest sum. depth: roundings in a row.

    cast: what casts may cost, a share of the output's scale: see `Depths.cast`.
    """
    if not (dtype.is_float or dtype.is_complex):
        return AUTOCAST_DISCRETE if cast else 0.0
    units, _ = TOLERANCES.get(dtype.name, (0.0, ""))
    own = units * max(1.0, math.sqrt(length / FREE_LENGTH))
    return max(unit(dtype) * max(own, WALK * math.sqrt(depth) if units else 0.0), cast)


CAST_UNITS: dict[str, float] = {"bf16": unit(BF16), "fp16": unit(F16), "tf32": TF32_UNIT, "fp8_e4m3": unit(F8E4M3)}
"""u of the types of --auto-cast-type."""


@dataclass(frozen=True)
class Depths:
    """The longest chains of a module: products, operations with float results, and roundings to types narrower than f32.

    roundings: their number by u.
    """

    products: int
    operations: int
    roundings: Mapping[float, int]

    def cast(self, mode: str, type: str) -> float:
        """What --auto-cast of this mode and type may cost."""
        if mode not in ("matmult", "all"):
            return 0.0
        roundings = 2 * self.products + (self.operations if mode == "all" else 0)
        return WALK * CAST_UNITS.get(type, CAST_UNITS["bf16"]) * math.sqrt(max(1, roundings))

    def narrow(self) -> float:
        """What roundings to types narrower than f32 may cost: the last place of an f32 decides which way each of them goes."""
        return max((WALK * u * math.sqrt(count) for u, count in self.roundings.items()), default=0.0)


def depths_of(module: Module) -> Depths:
    """Depths of a module; a loop counts as one turn, since its count is not known."""
    narrow = {u for row in module.instructions() for u in _narrow_units(row)}
    return Depths(_depth(module, _is_product), _depth(module, _rounds),
                  {u: _depth(module, partial(_roundings, u)) for u in sorted(narrow)})


def _is_product(instruction: Instruction) -> bool:
    return instruction.opcode in ("dot", "convolution")


_EXACT = frozenset((
    "parameter", "constant", "reshape", "transpose", "broadcast", "slice", "reverse", "copy", "pad", "concatenate", "select",
    "gather", "dynamic-slice", "dynamic-update-slice", "tuple", "get-tuple-element", "bitcast", "negate", "abs", "maximum",
    "minimum", "clamp", "sort", "while", "conditional", "call", "fusion", "opt-barrier"))
"""Operators that round nothing themselves."""


def _rounds(instruction: Instruction) -> bool:
    return instruction.opcode not in _EXACT and any(leaf.dtype.is_float for leaf in instruction.shape.leaves())


def _narrow_units(instruction: Instruction) -> list[float]:
    """u of each rounding to a type narrower than f32; the tensor engine rounds both operands of a product that is marked so."""
    if instruction.frontend_attributes.get(MATMUL) == "tf32":
        return [TF32_UNIT] * 2
    if not _rounds(instruction):
        return []
    return [unit(dtype) for dtype in {leaf.dtype for leaf in instruction.shape.leaves()} if _is_narrow(dtype)]


def _roundings(u: float, instruction: Instruction) -> int:
    return _narrow_units(instruction).count(u)


def _is_narrow(dtype: DType) -> bool:
    return dtype.is_float and TOLERANCES.get(dtype.name, (0.0, ""))[0] > 0 and unit(dtype) > unit(F32)


_RUN = frozenset(("while", "conditional", "call", "fusion"))


def _depth(module: Module, counts: Callable[[Instruction], int]) -> int:
    """The most counted instructions on any chain, those of called computations among them."""
    whole: dict[Computation, int] = {}
    for computation in callees_first([module.entry]):
        depth: dict[Instruction, int] = {}
        for instruction in computation.post_order():
            inner = max((whole[c] for c in instruction.called), default=0) if instruction.opcode in _RUN else 0
            depth[instruction] = max((depth[o] for o in instruction.operands), default=0) + inner + counts(instruction)
        whole[computation] = depth[computation.root]
    return whole[module.entry]


def longest_sum(module: Module) -> int:
    """The number of terms of the longest dot, convolution, reduction or window in a module."""
    return max((_terms(instruction) for instruction in module.instructions()), default=1)


def _terms(instruction: Instruction) -> int:
    """Terms that one element of the result is summed from."""
    count = _TERMS.get(instruction.opcode)
    return count(instruction) if count else 1


def _contracted(dot: Instruction) -> int:
    dims = dot.operands[0].shape.dims
    return math.prod(int(dims[d]) for d in dot.attribute("lhs_contracting_dims"))


def _kernel_taps(convolution: Instruction) -> int:
    kernel = convolution.operands[1].shape
    features = kernel.dims[convolution.attribute("dim_labels").kernel_output_feature]
    return int(kernel.element_count // max(1, features))


def _reduced(reduce: Instruction) -> int:
    result = next(reduce.shape.leaves()).element_count
    return reduce.operands[0].shape.element_count // max(1, result)


_TERMS: Mapping[str, Callable[[Instruction], int]] = {
    "dot": _contracted,
    "convolution": _kernel_taps,
    "reduce": _reduced,
    "reduce-window": lambda window: math.prod(d.size for d in window.attribute("window").dims),
}
