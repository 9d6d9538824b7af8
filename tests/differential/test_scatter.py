"""Scatter on the device against the oracle: combiners, dimension numbers, indices out of bounds, windows that meet."""

import numpy as np
import pytest

from nxcc.ir.dtypes import dtype as named

from harness.clocked import microseconds
from harness.device import check_text
from harness.whole import check_whole

DTYPES = ("f32", "bf16", "f16", "s8", "u8", "s16", "u16", "s32", "u32", "pred")
OPCODES = ("add", "multiply", "maximum")
REPLACE = "c {{ a = {t}[] parameter(0) ROOT b = {t}[] parameter(1) }}"
SUBTRACT = "c { a = f32[] parameter(0) b = f32[] parameter(1) ROOT r = f32[] subtract(a, b) }"
ROWS = "update_window_dims={1}, inserted_window_dims={0}, scatter_dims_to_operand_dims={0}, index_vector_dim=1"

SMALLER = """c {
  a = f32[] parameter(0)
  k = s32[] parameter(1)
  b = f32[] parameter(2)
  l = s32[] parameter(3)
  less = pred[] compare(a, b), direction=LT
  v = f32[] select(less, b, a)
  w = s32[] select(less, l, k)
  ROOT r = (f32[], s32[]) tuple(v, w)
}"""


def combiner(opcode: str, dtype: str) -> str:
    if opcode == "replace":
        return REPLACE.format(t=dtype)
    return f"c {{ a = {dtype}[] parameter(0) b = {dtype}[] parameter(1) ROOT r = {dtype}[] {opcode}(a, b) }}"


def numbers(dtype: str, *dims: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, 2 if dtype == "pred" else 4, dims).astype(named(dtype).numpy)


@pytest.mark.parametrize("optlevel", (0, 1))
@pytest.mark.parametrize("opcode", (*OPCODES, "replace"))
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows(dtype: str, opcode: str, optlevel: int) -> None:
    indices = np.random.default_rng(1).integers(-2, 12, (30, 1)).astype(np.int32)
    for unique, n in (("", 30), (", unique_indices=true", 9)):
        chosen = indices if not unique else np.arange(11, 11 - n, -1, dtype=np.int32)[:, None] - 1
        check_text(f"""HloModule test
{combiner(opcode, dtype)}
ENTRY main {{
  x = {dtype}[10,7] parameter(0)
  i = s32[{n},1] parameter(1)
  u = {dtype}[{n},7] parameter(2)
  ROOT r = {dtype}[10,7] scatter(x, i, u), {ROWS}{unique}, to_apply=c
}}""", [numbers(dtype, 10, 7), chosen, numbers(dtype, n, 7, seed=2)], optlevel=optlevel)


@pytest.mark.parametrize("opcode", (*OPCODES, "replace"))
def test_implicit_index_vector(opcode: str) -> None:
    check_text(f"""HloModule test
{combiner(opcode, "f32")}
ENTRY main {{
  x = f32[9,4,8] parameter(0)
  i = s64[2,3] parameter(1)
  u = f32[2,3,2,5] parameter(2)
  ROOT r = f32[9,4,8] scatter(x, i, u), update_window_dims={{2,3}}, inserted_window_dims={{0}},
    scatter_dims_to_operand_dims={{2}}, index_vector_dim=2, to_apply=c
}}""", [numbers("f32", 9, 4, 8), np.array([[-1, 0, 3], [4, 3, 2**32 + 1]]), numbers("f32", 2, 3, 2, 5)])


@pytest.mark.parametrize("opcode", (*OPCODES, "replace"))
def test_batching_dimensions(opcode: str) -> None:
    check_text(f"""HloModule test
{combiner(opcode, "s32")}
ENTRY main {{
  x = s32[3,9,8] parameter(0)
  i = u32[2,5,3] parameter(1)
  u = s32[5,3] parameter(2)
  ROOT r = s32[3,9,8] scatter(x, i, u), update_window_dims={{}}, inserted_window_dims={{1,2}},
    scatter_dims_to_operand_dims={{2,1}}, input_batching_dims={{0}}, scatter_indices_batching_dims={{2}}, index_vector_dim=0,
    to_apply=c
}}""", [numbers("s32", 3, 9, 8), np.random.default_rng(0).integers(0, 10, (2, 5, 3)).astype(np.uint32), numbers("s32", 5, 3)])


def test_a_window_larger_than_a_tile() -> None:
    random = np.random.default_rng(0)
    check_text(f"""HloModule test
{SUBTRACT}
ENTRY main {{
  x = f32[300,2000] parameter(0)
  i = s8[] parameter(1)
  u = f32[290,1999] parameter(2)
  ROOT r = f32[300,2000] scatter(x, i, u), update_window_dims={{0,1}}, inserted_window_dims={{}},
    scatter_dims_to_operand_dims={{0}}, index_vector_dim=0, to_apply=c
}}""", [random.normal(size=(300, 2000)).astype(np.float32), np.int8(7), random.normal(size=(290, 1999)).astype(np.float32)])


@pytest.mark.parametrize("optlevel", (0, 1))
def test_several_operands(optlevel: int) -> None:
    random = np.random.default_rng(0)
    check_text(f"""HloModule test
{SMALLER}
ENTRY main {{
  x = f32[30,5] parameter(0)
  y = s32[30,5] parameter(1)
  i = s64[600,1] parameter(2)
  u = f32[600,5] parameter(3)
  v = s32[600,5] parameter(4)
  ROOT r = (f32[30,5], s32[30,5]) scatter(x, y, i, u, v), {ROWS}, to_apply=c
}}""", [random.normal(size=(30, 5)).astype(np.float32), numbers("s32", 30, 5), random.integers(-3, 33, (600, 1)),
        random.normal(size=(600, 5)).astype(np.float32), numbers("s32", 600, 5)], optlevel=optlevel)


def test_nothing_to_scatter() -> None:
    check_text(f"""HloModule test
{combiner("add", "f32")}
ENTRY main {{
  x = f32[10,7] parameter(0)
  i = s32[0,1] parameter(1)
  u = f32[0,7] parameter(2)
  ROOT r = f32[10,7] scatter(x, i, u), {ROWS}, to_apply=c
}}""")


SUMMED = """HloModule test
{combiner}
ENTRY main {{
  x = {t}[{places},{width}] parameter(0)
  i = s32[{n},1] parameter(1)
  u = {t}[{n},{width}] parameter(2)
  ROOT r = {t}[{places},{width}] scatter(x, i, u), {rows}, to_apply=c
}}"""


@pytest.mark.parametrize("finite", (True, False), ids=("finite", "not finite"))
@pytest.mark.parametrize("dtype, n, places, width", [("f32", 300, 40, 70), ("bf16", 200, 9, 1030), ("f16", 130, 300, 5),
                                                     ("f32", 700, 20, 1)])
def test_many_windows_at_a_time(dtype: str, n: int, places: int, width: int, finite: bool) -> None:
    """Sums of those that share a place, some outside; a NaN or an infinity stays in its element."""
    random = np.random.default_rng(n)
    updates = random.integers(-8, 8, (n, width)).astype(np.float32)
    if not finite:
        updates[3, 0], updates[5, 0], updates[6, -1], updates[9], updates[10, 0] = np.nan, np.inf, -np.inf, np.inf, -np.inf
    indices = random.integers(-2, places + 2, (n, 1)).astype(np.int32)
    operand = numbers(dtype, places, width)
    check_whole(SUMMED.format(combiner=combiner("add", dtype), t=dtype, n=n, places=places, width=width, rows=ROWS),
                [operand, indices, updates.astype(named(dtype).numpy)], strict=True)


def test_time_of_an_embeddings_gradient() -> None:
    """2048 rows, each of which took 1.7 us alone."""
    text = SUMMED.format(combiner=combiner("add", "f32"), t="f32", n=2048, places=1000, width=64, rows=ROWS)
    assert microseconds(text) < 250
