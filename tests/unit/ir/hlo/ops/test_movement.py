"""Data movement with static addresses."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from nxcc.ir.diagnostics import CompileError
from nxcc.ir.hlo.verifier import verify

from harness.hlo_text import module_of, value_of

F32 = np.float32

PADS = [("-1_2_2", (0, 0, 2, 0, 0, 3, 0, 0, 4, 0, 0)), ("1_1", (0, 1, 2, 3, 4, 0)), ("-1_-1", (2, 3)), ("-3_-2_1", (0, 3)),
        ("2_-6", ()), ("-5_3", (0, 0))]


@pytest.mark.parametrize("padding,expected", PADS)
def test_pad_spreads_then_crops(padding: str, expected: tuple[float, ...]) -> None:
    result = value_of(f"p = f32[4] parameter(0) z = f32[] constant(0) ROOT r = f32[{len(expected)}] pad(p, z), "
                      f"padding={padding}",
                      np.array([1, 2, 3, 4], F32))
    np.testing.assert_array_equal(result, np.array(expected, F32))


def test_broadcast_may_permute() -> None:
    x = np.arange(6, dtype=F32).reshape(2, 3)
    result = value_of("p = f32[2,3] parameter(0) ROOT r = f32[3,4,2] broadcast(p), dimensions={2,0}", x)
    np.testing.assert_array_equal(result, np.broadcast_to(x.T[:, None, :], (3, 4, 2)))


def test_bitcast_packs_elements_below_a_byte() -> None:
    nibbles = np.array([1, 2, -1, 0], ml_dtypes.int4)
    packed = value_of("p = s4[4] parameter(0) ROOT r = s8[2] bitcast(p)", nibbles)
    assert packed.tolist() == [0x21, 0x0F]
    np.testing.assert_array_equal(value_of("p = s8[2] parameter(0) ROOT r = s4[4] bitcast(p)", packed), nibbles)


def test_bitcast_of_a_tuple_is_read_but_has_no_value() -> None:
    """XLA's tests have it where nothing reads it."""
    text = "p = f32[4] parameter(0) t = (f32[4], f32[4]) bitcast(p) ROOT r = f32[4] "
    np.testing.assert_array_equal(value_of(text + "negate(p)", np.ones(4, np.float32)), -np.ones(4))
    with pytest.raises(CompileError, match="bitcast of f32"):
        value_of(text + "get-tuple-element(t), index=1", np.ones(4, np.float32))


def test_bitcast_follows_the_layouts() -> None:
    x = np.arange(6, dtype=F32).reshape(2, 3)
    result = value_of("p = f32[2,3]{0,1} parameter(0) ROOT r = f32[3,2]{1,0} bitcast(p)", x)
    np.testing.assert_array_equal(result, x.T)
    result = value_of("p = f32[2,3]{1,0} parameter(0) ROOT r = s32[6]{0} bitcast(p)", x)
    np.testing.assert_array_equal(result, x.reshape(6).view(np.int32))


def test_iota_wraps_in_its_type() -> None:
    result = value_of("ROOT r = s8[2,260] iota(), iota_dimension=1")
    assert result.shape == (2, 260) and result[1, 127] == 127 and result[0, 128] == -128 and result[0, 256] == 0


def test_slice_reverse_concatenate_transpose() -> None:
    x = np.arange(6, dtype=F32).reshape(2, 3)
    result = value_of("""
  p = f32[2,3] parameter(0)
  s = f32[2,2] slice(p), slice={[0:2], [0:3:2]}
  v = f32[2,3] reverse(p), dimensions={1}
  c = f32[2,5] concatenate(s, v), dimensions={1}
  ROOT r = f32[5,2] transpose(c), dimensions={1,0}""", x)
    np.testing.assert_array_equal(result.T, [[0, 2, 2, 1, 0], [3, 5, 5, 4, 3]])


def test_reshape_of_a_dynamic_value_keeps_its_true_size() -> None:
    result = value_of("p = f32[4,2] parameter(0) n = s32[] constant(3) d = f32[<=4,2] set-dimension-size(p, n), dimensions={0} "
                      "s = f32[<=8] reshape(d) z = f32[] constant(0) ROOT r = f32[] reduce(s, z), "
                      "dimensions={0}, to_apply=add_f32",
                      np.arange(8, dtype=F32).reshape(4, 2))
    assert result == 15


WRONG = [
    ("r = f32[3] broadcast(p), dimensions={0}", "a result dimension for each"),
    ("r = f32[2,4] broadcast(p), dimensions={0,1}", "does not stretch"),
    ("r = f32[7] reshape(p)", "must keep the number of elements"),
    ("r = s32[2,3] reshape(p)", "must keep the element type"),
    ("r = f32[3,2] transpose(p), dimensions={1,1}", "names a dimension twice"),
    ("r = f32[2,3] slice(p), slice={[0:2], [0:4]}", r"\[0:4:1\] does not fit dimension 1"),
    ("r = f32[2,4] concatenate(p, p), dimensions={1}", r"declared as f32\[2,4\], it is f32\[2,6\]"),
    ("r = f32[2,3] iota(), iota_dimension=2", r"iota_dimension=\{2\} must lie in"),
    ("r = f32[5] bitcast(p)", "must keep the number of bytes"),
    ("r = f32[2,3] pad(p, p), padding=0_0x0_0", r"padding value must be f32\[\]"),
]


@pytest.mark.parametrize("line,reason", WRONG, ids=[reason for _, reason in WRONG])
def test_broken_rule_is_reported(line: str, reason: str) -> None:
    with pytest.raises(CompileError, match=reason):
        verify(module_of(f"p = f32[2,3] parameter(0) ROOT {line}"))
