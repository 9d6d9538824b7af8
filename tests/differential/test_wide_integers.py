"""64-bit integers on the device, which computes them in pairs of 32-bit words: exact for every value."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.ir.hlo.text.reader import read_text

from harness.combiners import combiner
from harness.device import check_text

COMPUTATIONS = "HloModule m\n" + "".join(combiner(name, opcode, "T") for name, opcode in (
    ("sum", "add"), ("larger", "maximum"), ("both", "and"), ("product", "multiply"))) + """
latter { a = T[] parameter(0)
 ROOT b = T[] parameter(1) }
is_less { a = T[] parameter(0)
 b = T[] parameter(1)
 ROOT c = pred[] compare(a, b), direction=LT }
not_less { a = T[] parameter(0)
 b = T[] parameter(1)
 ROOT c = pred[] compare(a, b), direction=GE }
place_of_largest { a = T[] parameter(0)
 i = s32[] parameter(1)
 b = T[] parameter(2)
 j = s32[] parameter(3)
 p = pred[] compare(a, b), direction=GE
 x = T[] select(p, a, b)
 y = s32[] select(p, i, j)
 ROOT t = (T[], s32[]) tuple(x, y) }
ENTRY e {
 p = T[6,9] parameter(0)
 q = T[6,9] parameter(1)
 z = T[] parameter(2)
 few = s32[6] parameter(3)
 i = s32[6,9] parameter(4)
 iz = s32[] parameter(5)
 many = T[300,70] parameter(6)
 part = T[3,9] slice(q), slice={[0:3],[0:9]}
 ROOT r = """

_ROWS = "update_window_dims={1}, inserted_window_dims={0}, scatter_dims_to_operand_dims={0}, index_vector_dim=1"
OPERATORS = {
    **{opcode: f"T[6,9] {opcode}(p, q)" for opcode in (
        "add", "subtract", "multiply", "maximum", "minimum", "and", "or", "xor", "divide", "remainder", "power", "mulhi",
        "shift-left", "shift-right-logical", "shift-right-arithmetic")},
    **{opcode: f"T[6,9] {opcode}(p)" for opcode in ("negate", "abs", "not", "sign", "popcnt", "count-leading-zeros")},
    "compare": "pred[6,9] compare(p, q), direction=LE", "clamp": "T[6,9] clamp(p, q, p)", "to_f32": "f32[6,9] convert(p)",
    "to_s16": "s16[6,9] convert(p)", "from_s32": "T[6,9] convert(i)",
    "reduce_rows": "T[6] reduce(p, z), dimensions={1}, to_apply=sum",
    "reduce_columns": "T[70] reduce(many, z), dimensions={0}, to_apply=sum",
    "reduce_all": "T[] reduce(many, z), dimensions={0,1}, to_apply=larger",
    "reduce_and": "T[300] reduce(many, z), dimensions={1}, to_apply=both",
    "reduce_product": "T[9] reduce(p, z), dimensions={0}, to_apply=product",
    "reduce_places": "(T[6], s32[6]) reduce(p, i, z, iz), dimensions={1}, to_apply=place_of_largest",
    "reduce_window": "T[6,9] reduce-window(p, z), window={size=1x3 pad=0_0x1_1}, to_apply=sum",
    "sort": "T[6,9] sort(p), dimensions={1}, to_apply=is_less", "topk": "(T[6,3], s32[6,3]) topk(p), k=3, largest=true",
    "dot": "T[6,6] dot(p, q), lhs_contracting_dims={1}, rhs_contracting_dims={1}",
    "dot_deep": "T[70,70] dot(many, many), lhs_contracting_dims={0}, rhs_contracting_dims={0}",
    "dot_of_words": "T[6,6] dot(i, q), lhs_contracting_dims={1}, rhs_contracting_dims={1}",
    "dot_into_wide": "T[6,6] dot(i, i), lhs_contracting_dims={1}, rhs_contracting_dims={1}",
    "map": "T[6,9] map(p, q), dimensions={0,1}, to_apply=product",
    **{f"scatter_{name}": f"T[6,9] scatter(p, few, q), {_ROWS}, to_apply={name}" for name in ("sum", "larger", "latter")},
    "select_and_scatter": "T[6,9] select-and-scatter(p, part, z), window={size=2x1 stride=2x1}, select=not_less, scatter=sum",
}


def _text(name: str, dtype: str) -> str:
    return (COMPUTATIONS + OPERATORS[name] + "\n}").replace("T[", dtype + "[")


def _values(dtype: str, seed: int) -> list[np.ndarray]:
    """Numbers of every size, the ends of the type and of 32 bits among them."""
    random = np.random.default_rng(seed)
    module = read_text(_text("add", dtype))
    found = []
    for parameter in module.entry.parameters:
        numpy, dims = parameter.shape.dtype.numpy, parameter.shape.dims
        if numpy.itemsize == 4:
            found.append(np.asarray(random.integers(-2, 8, dims)).astype(numpy))
            continue
        words = random.integers(0, 2**64, dims, dtype=np.uint64) >> random.integers(0, 64, dims, dtype=np.uint64)
        special = np.array([0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 5], np.uint64)
        words = np.where(random.random(dims) < 0.3, random.choice(special, dims), words)
        found.append(np.asarray(words).astype(np.uint64).view(numpy))
    return found


SIGNED_ONLY = ("abs", "sign")


@pytest.mark.parametrize(("name", "dtype"), [(name, dtype) for name in OPERATORS for dtype in ("s64", "u64")
                                             if dtype == "s64" or name not in SIGNED_ONLY])
def test_operator_is_exact(name: str, dtype: str) -> None:
    for level in (0, 1):
        check_text(_text(name, dtype), _values(dtype, level), optlevel=level)
