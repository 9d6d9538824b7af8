"""Elementwise operators on the device against the oracle: all dtypes, special values, awkward sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nxcc.backends.capability.support import unsupported
from nxcc.backends.target import load_target
from nxcc.ir.dtypes import dtype
from nxcc.ir.hlo.text.reader import read_text

from harness.device import check_text, differing, run_on_device

FLOATS = ("f32", "bf16", "f16")
INTEGERS = ("s8", "u8", "s16", "u16", "s32", "u32")
DIRECTIONS = ("EQ", "NE", "GE", "GT", "LE", "LT")
SPECIAL = (
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 0.3, -0.3, 0.49999997, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1.2e-38,
    1e30, 1e-30, 1e20, -1e20, 1e-10, -1e-10, 8.0, -8.0, 27.0, 88.5, -88.0, 89.0, -100.0, 2147483648.0, -2147483648.0,
    2147483520.0, 4294967296.0, -129.0, 127.5, 255.5, 300.0, 65535.5, 4194304.5, 4194303.5, 8388607.5, 16777217.0,
    3.14159265, 1.5707964, 12345.678, 0.99999994, 1.0000001, 2.0, -2.0, 3.0, 7.0, 49.0)
CIRCULAR = ("sine", "cosine", "tan")
UNARY = ("abs", "negate", "sign", "floor", "ceil", "round-nearest-even", "round-nearest-afz", "exponential", "tanh", "logistic",
         "erf", "sqrt", "rsqrt", "cbrt", "log", "log-plus-one", "exponential-minus-one", "asin", "acos", "asinh", "acosh",
         "atanh", "sinh", "cosh", "real", "imag")
BINARY = ("add", "subtract", "multiply", "maximum", "minimum", "divide", "power", "atan2", "remainder")
INTEGER_UNARY = ("not", "negate", "popcnt", "count-leading-zeros")
INTEGER_BINARY = ("add", "subtract", "multiply", "maximum", "minimum", "divide", "remainder", "power", "and", "or", "xor",
                  "shift-left", "shift-right-logical", "shift-right-arithmetic", "mulhi")
COUNT = 389
"""A prime: the last tile of a walk over it is ragged."""


def values(name: str, seed: int = 0) -> np.ndarray[Any, Any]:
    """COUNT values of a dtype: the special ones, small ones, and others from its whole range, shuffled."""
    random, kind = np.random.default_rng(seed), dtype(name)
    if name == "pred":
        return random.integers(0, 2, COUNT).astype(bool)
    if kind.is_float:
        rest = COUNT - len(SPECIAL)
        spread = np.exp(random.uniform(-60, 60, rest // 2)) * random.choice([-1, 1], rest // 2)
        made: Any = np.concatenate([SPECIAL, spread, random.uniform(-3, 3, rest - rest // 2)]).astype(np.float32)
    elif kind.bits == 64:
        return wide_values(name)
    else:
        limits = np.iinfo(kind.numpy)
        edges = [0, 1, 2, 3, 7, limits.max, limits.min, limits.max - 1, limits.min + 1, *((-1, -2, -7) if limits.min else ())]
        wide = random.integers(limits.min, limits.max, COUNT // 2, endpoint=True)
        small = random.integers(max(limits.min, -40), 40, COUNT - len(edges) - len(wide))
        made = np.concatenate([edges, wide, small])
    with np.errstate(over="ignore"):
        return random.permutation(made).astype(kind.numpy)


def module(opcode: str, operands: tuple[str, ...], result: str, attributes: str = "", dims: str = f"[{COUNT}]") -> str:
    parameters = "\n".join(f"  p{i} = {name}{dims} parameter({i})" for i, name in enumerate(operands))
    names = ", ".join(f"p{i}" for i in range(len(operands)))
    return f"HloModule m\nENTRY main {{\n{parameters}\n  ROOT r = {result}{dims} {opcode}({names}){attributes}\n}}\n"


def check(opcode: str, operands: tuple[str, ...], result: str, attributes: str = "") -> None:
    check_text(module(opcode, operands, result, attributes), [values(name, seed) for seed, name in enumerate(operands)])


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("opcode", UNARY)
def test_unary_float_operators_match(opcode: str, name: str) -> None:
    check(opcode, (name,), name)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("opcode", BINARY)
def test_binary_float_operators_match(opcode: str, name: str) -> None:
    check(opcode, (name, name), name)


@pytest.mark.parametrize("opcode", CIRCULAR)
def test_circular_functions_match_for_every_argument(opcode: str) -> None:
    random = np.random.default_rng(0)
    words = random.integers(0, 2**32, 300, dtype=np.uint32).view(np.float32)
    inputs = np.concatenate([np.arange(300) * np.pi / 2, random.uniform(-10, 10, 50), words[np.abs(words) > 2.0**-126],
                             [2.0, 2.0**23, 16367173 * 2.0**72, 4.4e9, np.inf, -np.inf, np.nan]]).astype(np.float32)
    check_text(module(opcode, ("f32",), "f32"), [inputs[-COUNT:]])


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("opcode", INTEGER_BINARY)
def test_binary_integer_operators_match(opcode: str, name: str) -> None:
    check(opcode, (name, name), name)


@pytest.mark.parametrize("name", INTEGERS)
def test_unary_integer_operators_match(name: str) -> None:
    for opcode in (*INTEGER_UNARY, *(("abs", "sign") if name.startswith("s") else ())):
        check(opcode, (name,), name)


@pytest.mark.parametrize("name", ("pred", *FLOATS, *INTEGERS))
def test_comparisons_match(name: str) -> None:
    for direction in DIRECTIONS:
        check("compare", (name, name), "pred", f", direction={direction}")


@pytest.mark.parametrize("name", FLOATS)
def test_total_order_comparisons_match(name: str) -> None:
    for direction in DIRECTIONS:
        check("compare", (name, name), "pred", f", direction={direction}, type=TOTALORDER")


@pytest.mark.parametrize("name", ("pred", *FLOATS, *INTEGERS))
def test_select_moves_bits(name: str) -> None:
    check("select", ("pred", name, name), name)


@pytest.mark.parametrize("name", (*FLOATS, *INTEGERS))
def test_clamp_matches(name: str) -> None:
    check("clamp", (name, name, name), name)


@pytest.mark.parametrize("name", FLOATS)
def test_is_finite_matches(name: str) -> None:
    check("is-finite", (name,), "pred")


@pytest.mark.parametrize("opcode", ("add", "multiply", "maximum", "minimum", "and", "or", "xor"))
def test_logic_of_preds_matches(opcode: str) -> None:
    check(opcode, ("pred", "pred"), "pred")
    check("not", ("pred",), "pred")


@pytest.mark.parametrize("source, random", [("f32", "u32"), ("bf16", "u16"), ("f16", "u16")])
def test_stochastic_conversions_match(source: str, random: str) -> None:
    for target in (*INTEGERS, *(("bf16",) if source == "f32" else ())):
        check("stochastic-convert", (source, random), target)


@pytest.mark.parametrize("source", ("pred", *FLOATS, *INTEGERS, "f8e4m3", "f8e5m2"))
def test_conversions_match(source: str) -> None:
    for target in ("pred", *FLOATS, *INTEGERS, "f8e4m3", "f8e5m2"):
        if target != source:
            check("convert", (source,), target)


@pytest.mark.parametrize("dims", ("[]", "[1]", "[2]", "[0]", "[127]", "[129]", "[5,3,7]", "[300,3]", "[3,2049]"))
def test_sizes_of_all_kinds(dims: str) -> None:
    check_text(module("divide", ("f32", "f32"), "f32", dims=dims))
    check_text(module("power", ("s32", "s32"), "s32", dims=dims))


@pytest.mark.parametrize("opcode", ("add", "divide", "power", "remainder", "atan2"))
@pytest.mark.parametrize("name", ("f32", "bf16", "s32", "u8", "s64"))
def test_columns_and_numbers_in_fused_rows(opcode: str, name: str) -> None:
    """In a row program an operand may be one value a row or one number."""
    if not dtype(name).is_float and opcode == "atan2" or name == "s64" and opcode != "add":
        return
    for rows in ("x, b", "b, x", "x, n", "n, x"):
        text = f"""HloModule m
body {{
  x = {name}[150,61] parameter(0)
  c = {name}[150] parameter(1)
  b = {name}[150,61] broadcast(c), dimensions={{0}}
  k = {name}[] constant(3)
  n = {name}[150,61] broadcast(k), dimensions={{}}
  s = {name}[150,61] {opcode}({rows})
  ROOT r = {name}[150,61] copy(s)
}}
ENTRY main {{
  x = {name}[150,61] parameter(0)
  c = {name}[150] parameter(1)
  ROOT f = {name}[150,61] fusion(x, c), kind=kLoop, calls=body, frontend_attributes={{nxcc.rows="1"}}
}}
"""
        check_text(text, [np.resize(values(name), (150, 61)), values(name, 1)[:150]])


@pytest.mark.parametrize("dims, opcode", [("[7,3]", "clamp"), ("[2,5]", "select")])
def test_scalar_bounds_and_predicates_repeat(dims: str, opcode: str) -> None:
    operands = (("f32[]", f"f32{dims}", "f32[]") if opcode == "clamp" else ("pred[]", f"f32{dims}", f"f32{dims}"))
    parameters = "\n".join(f"  p{i} = {shape} parameter({i})" for i, shape in enumerate(operands))
    check_text(f"HloModule m\nENTRY main {{\n{parameters}\n  ROOT r = f32{dims} {opcode}(p0, p1, p2)\n}}\n")


@pytest.mark.parametrize("source, result", [("f32[3,5]", "u8[3,5,4]"), ("u8[3,5,4]", "f32[3,5]"), ("s32[4]", "u16[4,2]"),
                                            ("s64[3]", "u32[3,2]"), ("f32[6]", "s32[6]")])
def test_bitcasts_between_widths_keep_bytes(source: str, result: str) -> None:
    text = f"HloModule m\nENTRY main {{\n  p = {source} parameter(0)\n  ROOT r = {result} bitcast-convert(p)\n}}\n"
    program = read_text(text)
    shape = program.entry.parameters[0].shape
    data = np.random.default_rng(0).integers(0, 256, shape.byte_size).astype(np.uint8)
    given = data.view(shape.dtype.numpy).reshape(shape.dims)
    (found,) = run_on_device(program, [given])
    assert found.tobytes() == given.tobytes()


def test_the_comparison_of_results_sees_wrong_signs_and_values() -> None:
    zeros, ones = np.zeros(2, np.float32), np.ones(2, np.float32)
    assert differing(zeros, -zeros).all() and differing(ones, ones * np.float32(1.0001)).all()
    assert not differing(ones, ones).any()


def wide_values(name: str) -> np.ndarray[Any, Any]:
    """64-bit integers of all lengths, with places where two roundings would differ from one."""
    random, limits = np.random.default_rng(0), np.iinfo(dtype(name).numpy)
    edges = [0, 1, limits.max, limits.min, 2**24 + 1, 2**31, 2**32, 2**33 + 2**9 + 2**8, 2**33 + 2**9 + 2**8 + 1, 2**53 + 1]
    rest = [int(random.integers(0, 2**63)) >> int(random.integers(0, 63)) for _ in range(COUNT - len(edges))]
    return np.array(edges + [-value if limits.min and value % 2 else value for value in rest], object).astype(dtype(name).numpy)


@pytest.mark.parametrize("wide", ("s64", "u64"))
def test_conversions_of_wide_integers_match(wide: str) -> None:
    for name in ("pred", *FLOATS, *INTEGERS):
        check_text(module("convert", (wide,), name), [wide_values(wide)])
        check("convert", (name,), wide)


WIDE_UNARY = ("not", "negate", "popcnt", "count-leading-zeros")
WIDE_BINARY = ("add", "subtract", "multiply", "maximum", "minimum", "and", "or", "xor", "shift-left", "shift-right-logical",
               "shift-right-arithmetic")


@pytest.mark.parametrize("wide", ("s64", "u64"))
@pytest.mark.parametrize("opcode", (*WIDE_UNARY, *WIDE_BINARY, "abs", "sign", "clamp", *DIRECTIONS))
def test_wide_integers_are_computed_in_words(opcode: str, wide: str) -> None:
    if opcode in ("abs", "sign") and wide == "u64":
        return
    values_ = wide_values(wide)
    amounts = np.resize(np.arange(70), COUNT).astype(values_.dtype)
    second = amounts if opcode.startswith("shift") else np.roll(np.where(amounts % 3 == 0, np.roll(values_, -7), values_), 7)
    if opcode in DIRECTIONS:
        check_text(module("compare", (wide, wide), "pred", f", direction={opcode}"), [values_, second])
    else:
        operands = [values_, second, np.roll(values_, 3)][:3 if opcode == "clamp" else 2 if opcode in WIDE_BINARY else 1]
        check_text(module(opcode, (wide,) * len(operands), wide), operands)


def test_wide_integers_are_selected() -> None:
    check_text(module("select", ("pred", "s64", "s64"), "s64"), [values("pred"), wide_values("s64"), wide_values("s64")[::-1]])


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("exponent, mantissa", [(5, 10), (8, 7), (8, 23), (4, 3), (2, 0), (8, 0), (1, 1), (11, 52)])
def test_reduced_precision_matches(exponent: int, mantissa: int, name: str) -> None:
    check("reduce-precision", (name,), name, f", exponent_bits={exponent}, mantissa_bits={mantissa}")


def test_temporaries_of_long_rows_are_made_in_pieces() -> None:
    """Rows that fill most of SBUF leave room for temporaries of a part of their columns only."""
    text = """HloModule m
body {
  x = f32[3,14000] parameter(0)
  ROOT r = f32[3,14000] atan2(x, x)
}
ENTRY main {
  x = f32[3,14000] parameter(0)
  ROOT f = f32[3,14000] fusion(x), kind=kLoop, calls=body, frontend_attributes={nxcc.rows="1"}
}
"""
    check_text(text, [np.resize(values("f32"), (3, 14000))])


@pytest.mark.parametrize("opcode, name, result", [("add", "c64", "c64"), ("stochastic-convert", "f32", "f16")])
def test_what_is_not_computed_is_refused_with_a_reason(opcode: str, name: str, result: str) -> None:
    second = "u32" if opcode == "stochastic-convert" else name
    root = read_text(module(opcode, (name, second), result)).entry.root
    assert unsupported(root, load_target("v2"))
