"""Dynamic slices and gathers on the device against the oracle: every index type, in and out of bounds."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.ir.dtypes import dtype as named
from nxcc.ir.hlo.text.reader import read_text

from harness.device import check_text
from harness.whole import check_whole

INDICES = {
    "s64": (2**32 + 1, -2**33 + 1, 3, 2**31, -1), "u64": (2**63, 5, 2**32, 1, 2**31),
    "s32": (-2**31, 2**31 - 1, 0, 5, -1), "u32": (2**31, 1, 2**32 - 1, 0, 7),
    "s16": (-300, 300, 2, 5, 6), "u16": (60000, 0, 2, 5, 6), "s8": (-100, 127, 3, 4, 5), "u8": (255, 0, 3, 4, 5)}
DATA = np.arange(54, dtype=np.float32).reshape(9, 6)


def numbers(index: str) -> np.ndarray:
    return np.array(INDICES[index], named(index).numpy)


@pytest.mark.parametrize("optlevel", (0, 1))
@pytest.mark.parametrize("index", INDICES)
def test_rows(index: str, optlevel: int) -> None:
    check_text(f"""HloModule test
ENTRY main {{
  x = f32[9,6] parameter(0)
  i = {index}[5,1] parameter(1)
  ROOT r = f32[5,6] gather(x, i), offset_dims={{1}}, collapsed_slice_dims={{0}}, start_index_map={{0}}, index_vector_dim=1,
    slice_sizes={{1,6}}
}}""", [DATA, numbers(index)[:, None]], optlevel=optlevel)


@pytest.mark.parametrize("index", INDICES)
def test_dynamic_slices(index: str) -> None:
    for value in numbers(index):
        check_text(f"""HloModule test
ENTRY main {{
  x = f32[9,6] parameter(0)
  i = {index}[] parameter(1)
  u = f32[4,6] parameter(2)
  z = {index}[] constant(0)
  d = f32[4,6] dynamic-slice(x, i, z), dynamic_slice_sizes={{4,6}}
  w = f32[9,6] dynamic-update-slice(x, u, i, z)
  ROOT r = (f32[4,6], f32[9,6]) tuple(d, w)
}}""", [DATA, value, -np.ones((4, 6), np.float32)])


def test_a_vector_of_starts() -> None:
    check_text("""HloModule test
ENTRY main {
  x = f32[9,6] parameter(0)
  i = s32[2] parameter(1)
  u = f32[2,2] parameter(2)
  d = f32[4,3] dynamic-slice(x, i), dynamic_slice_sizes={4,3}
  w = f32[9,6] dynamic-update-slice(x, u, i)
  ROOT r = (f32[4,3], f32[9,6]) tuple(d, w)
}""", [DATA, np.array([7, -3], np.int32), -np.ones((2, 2), np.float32)])


@pytest.mark.parametrize("shared", (2, 3))
def test_batching_dimensions(shared: int) -> None:
    """The batch may be longer than the operand: its last part is read again."""
    check_text(f"""HloModule test
ENTRY main {{
  x = f32[{shared},3,4,8] parameter(0)
  i = s32[3,4,1] parameter(1)
  ROOT r = f32[3,4,5] gather(x, i), offset_dims={{2}}, collapsed_slice_dims={{1}}, start_index_map={{1}},
    operand_batching_dims={{0,2}}, start_indices_batching_dims={{0,1}}, index_vector_dim=2, slice_sizes={{1,1,1,5}}
}}""", [np.arange(shared * 96, dtype=np.float32).reshape(shared, 3, 4, 8),
        np.random.default_rng(0).integers(-1, 5, (3, 4, 1)).astype(np.int32)])


PICKS = {
    "from a vector": ("f32[1000]", "s32[70,33,1]", "f32[70,33]", "collapsed_slice_dims={0}, start_index_map={0}, "
                      "index_vector_dim=2, slice_sizes={1}"),
    "along rows": ("bf16[150,40]", "s32[150,37,1]", "bf16[150,37]", "collapsed_slice_dims={1}, start_index_map={1}, "
                   "operand_batching_dims={0}, start_indices_batching_dims={0}, index_vector_dim=2, slice_sizes={1,1}"),
    "one of each row": ("f32[300,1000]", "u32[300,1]", "f32[300]", "collapsed_slice_dims={1}, start_index_map={1}, "
                        "operand_batching_dims={0}, start_indices_batching_dims={0}, index_vector_dim=1, slice_sizes={1,1}"),
    "two of each row": ("f32[20,15,700]", "s32[2,20,15]", "f32[2,20,15]", "collapsed_slice_dims={2}, start_index_map={2}, "
                        "operand_batching_dims={0,1}, start_indices_batching_dims={1,2}, index_vector_dim=3, "
                        "slice_sizes={1,1,1}"),
    "columns": ("f32[12,169]", "s32[49,49,1]", "f32[12,49,49]", "offset_dims={0}, collapsed_slice_dims={1}, "
                "start_index_map={1}, index_vector_dim=2, slice_sizes={12,1}"),
    "by two places": ("f32[5,30,40]", "s64[600,2]", "f32[600,5]", "offset_dims={1}, collapsed_slice_dims={1,2}, "
                      "start_index_map={2,1}, index_vector_dim=1, slice_sizes={5,1,1}"),
}


@pytest.mark.parametrize("case", PICKS)
def test_picked_elements(case: str) -> None:
    """Single elements of rows that are brought whole, or by one transfer for many rows; places beyond them are clamped."""
    data, indices, result, dims = PICKS[case]
    offsets = "" if "offset_dims" in dims else "offset_dims={}, "
    text = f"HloModule m\nENTRY main {{\n x = {data} parameter(0)\n i = {indices} parameter(1)\n" \
           f" ROOT r = {result} gather(x, i), {offsets}{dims}\n}}\n"
    module = read_text(text)
    shapes = [p.shape for p in module.entry.parameters]
    random = np.random.default_rng(5)
    values = random.normal(size=shapes[0].dims).astype(shapes[0].dtype.numpy)
    values.reshape(-1)[7] = np.nan
    low = 0 if "u32" in indices else -9
    check_whole(text, [values, random.integers(low, 1100, shapes[1].dims).astype(shapes[1].dtype.numpy)], strict=True)


SHARED_PICKS = """HloModule m
ENTRY main {
  x = f32[3,2,70,16] parameter(0)
  i = s32[70,65] parameter(1)
  b = s32[3,2,70,65] broadcast(i), dimensions={2,3}
  j = s32[3,2,70,65,1] reshape(b)
  ROOT r = f32[3,2,70,65] gather(x, j), offset_dims={}, collapsed_slice_dims={3}, start_index_map={3},
    operand_batching_dims={0,1,2}, start_indices_batching_dims={0,1,2}, index_vector_dim=4, slice_sizes={1,1,1,1}
}
"""


def test_heads_that_share_their_indices_pick_on_the_chip_as_well() -> None:
    """Relative positions, as torch.gather takes them: repeated indices do not lie as rows of memory."""
    random = np.random.default_rng(5)
    check_whole(SHARED_PICKS, [random.normal(size=(3, 2, 70, 16)).astype(np.float32),
                               random.integers(-3, 20, (70, 65)).astype(np.int32)])
