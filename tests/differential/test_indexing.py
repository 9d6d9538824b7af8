"""Dynamic slices and gathers on the device against the oracle: every index type, in and out of bounds."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.ir.dtypes import dtype as named

from harness.device import check_text

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
