"""Element types that the device lacks: every value converted, arithmetic, products, and what the user hands in and gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from nxcc.compiler.debugging.trial import AGREES, Trial
from nxcc.compiler.driver import Request, compile_file, compile_module
from nxcc.compiler.options import CompileOptions, options_from
from nxcc.compiler.runtime.loaded import load
from nxcc.ir.dtypes import BY_NAME
from nxcc.ir.hlo.oracle import evaluate
from nxcc.ir.hlo.text.reader import read_text

from harness.combiners import combiner
from harness.device import random_inputs
from harness.whole import check_whole

FLOATS = ("f4e2m1fn", "f6e2m3fn", "f6e3m2fn", "f8e4m3b11fnuz", "f8e4m3fn", "f8e4m3fnuz", "f8e5m2fnuz")
INTEGERS = ("s2", "s4", "u2", "u4")
Array = np.ndarray[Any, Any]


def hosted(text: str) -> list[str]:
    plan = compile_module(read_text(text), options_from(optlevel=1, placement="support")).plan
    assert plan is not None
    return [row.opcode for row in plan.host]


def every(name: str) -> Array:
    """Every value of a type, in f32."""
    bits = BY_NAME[name].bits
    return np.arange(2**bits, dtype=np.uint8).view(BY_NAME[name].numpy).astype(np.float32)


def around(name: str) -> Array:
    """Every value of a float type, the middles between neighbours, and what lies just beside both; infinities, NaN, zeros."""
    values = np.unique(every(name)[np.isfinite(every(name))])
    middles = (values[1:] + values[:-1]) / 2
    outside = [values[-1] * 1.03, values[-1] * 1.2, values[0] * 1.2, 1e-40, -1e-30]
    near = np.concatenate([values, middles, outside]).astype(np.float32)
    beside = [np.nextafter(near, np.float32(limit)) for limit in (-np.inf, np.inf)]
    return np.concatenate([near, *beside, np.float32([np.inf, -np.inf, np.nan, 0.0, -0.0, 3e38, -3e38])]).astype(np.float32)


@pytest.mark.parametrize("name", FLOATS)
def test_floats_are_rounded_as_the_type_says(name: str) -> None:
    x = around(name)
    text = f"HloModule m\nENTRY e {{ x = f32[{x.size}] parameter(0)\n ROOT y = {name}[{x.size}] convert(x) }}"
    check_whole(text, [x], levels=("0", "2"))
    assert not hosted(text)


@pytest.mark.parametrize("name", (*FLOATS, *INTEGERS))
def test_every_value_comes_in_and_goes_out(name: str, tmp_path: Path) -> None:
    x = every(name).astype(BY_NAME[name].numpy) if name in INTEGERS else np.arange(
        2 ** BY_NAME[name].bits, dtype=np.uint8).view(BY_NAME[name].numpy)
    text = (f"HloModule m\nENTRY e {{ x = {name}[{x.size}] parameter(0)\n y = f32[{x.size}] convert(x)\n"
            f"ROOT t = ({name}[{x.size}], f32[{x.size}]) tuple(x, y) }}")
    (tmp_path / "m.hlo").write_text(text)
    compile_file(Request(str(tmp_path / "m.hlo"), options_from(output=str(tmp_path / "m.neff"))))
    same, wide = load(str(tmp_path / "m.neff")).run([x])
    assert same.dtype == x.dtype
    np.testing.assert_array_equal(same.astype(np.float32), x.astype(np.float32))
    np.testing.assert_array_equal(wide, x.astype(np.float32))
    assert not hosted(text)


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("opcode", ["add", "subtract", "multiply", "divide", "remainder", "and", "xor", "maximum", "shift-left",
                                    "shift-right-logical", "power"])
def test_integers_wrap(name: str, opcode: str) -> None:
    values = every(name).astype(BY_NAME[name].numpy)
    x, y = (np.ascontiguousarray(side).ravel() for side in np.meshgrid(values, values))
    text = (f"HloModule m\nENTRY e {{ x = {name}[{x.size}] parameter(0)\n y = {name}[{x.size}] parameter(1)\n"
            f"ROOT z = {name}[{x.size}] {opcode}(x, y) }}")
    check_whole(text, [x, y], levels=("1",))
    assert not hosted(text)


@pytest.mark.parametrize(("name", "opcode"), [
    *((name, opcode) for name in INTEGERS for opcode in ("negate", "not", "popcnt")),
    *((name, opcode) for name in INTEGERS if name.startswith("s") for opcode in ("abs", "sign")),
])
def test_integers_of_one_operand(name: str, opcode: str) -> None:
    x = every(name).astype(BY_NAME[name].numpy)
    text = f"HloModule m\nENTRY e {{ x = {name}[{x.size}] parameter(0)\n ROOT z = {name}[{x.size}] {opcode}(x) }}"
    check_whole(text, [x], levels=("1",))
    assert not hosted(text)


@pytest.mark.parametrize("name", INTEGERS)
def test_conversions_to_integers(name: str) -> None:
    x = np.float32([0, 0.9, -0.9, 1.5, -1.5, 3.7, 7.2, 8, -8, -9, 15, 16.5, 300, -300, np.nan, np.inf, -np.inf])
    n = np.arange(-40, 40, dtype=np.int32)
    text = (f"HloModule m\nENTRY e {{ x = f32[{x.size}] parameter(0)\n n = s32[{n.size}] parameter(1)\n"
            f"a = {name}[{x.size}] convert(x)\n b = {name}[{n.size}] convert(n)\n"
            f"ROOT t = ({name}[{x.size}], {name}[{n.size}]) tuple(a, b) }}")
    check_whole(text, [x, n], levels=("1",))
    assert not hosted(text)


SUM = combiner("add", "add", "T")


@pytest.mark.parametrize("name", ["s4", "u4", "f8e4m3fn", "f8e5m2fnuz"])
def test_sums_and_loops(name: str) -> None:
    text = f"""HloModule m
{SUM}
more {{ s = (s32[], T[4,5]) parameter(0)
 i = s32[] get-tuple-element(s), index=0
 n = s32[] constant(3)
 ROOT c = pred[] compare(i, n), direction=LT }}
turn {{ s = (s32[], T[4,5]) parameter(0)
 i = s32[] get-tuple-element(s), index=0
 one = s32[] constant(1)
 j = s32[] add(i, one)
 x = T[4,5] get-tuple-element(s), index=1
 y = T[4,5] add(x, x)
 ROOT t = (s32[], T[4,5]) tuple(j, y) }}
ENTRY e {{ x = T[4,5] parameter(0)
 zero = T[] constant(0)
 s = T[4] reduce(x, zero), dimensions={{1}}, to_apply=add
 i = s32[] constant(0)
 t = (s32[], T[4,5]) tuple(i, x)
 w = (s32[], T[4,5]) while(t), condition=more, body=turn
 y = T[4,5] get-tuple-element(w), index=1
 ROOT r = (T[4], T[4,5]) tuple(s, y) }}
""".replace("T[", f"{name}[")
    x = (np.arange(20).reshape(4, 5) % 7).astype(BY_NAME[name].numpy)
    check_whole(text, [x], levels=("0", "2"))
    assert not hosted(text)


@pytest.mark.parametrize("opcode", ["add", "multiply"])
@pytest.mark.parametrize("name", FLOATS)
def test_sums_are_rounded_once(name: str, opcode: str) -> None:
    """64 ones are 64, where a sum that is rounded at each step stops at 16; the same of windows and scattered updates."""
    text = f"""HloModule m
{combiner("c", opcode, "T")}
last {{ a = T[] parameter(0)
 ROOT b = T[] parameter(1) }}
ENTRY e {{ x = T[64,3] parameter(0)
 start = T[] constant(1)
 r = T[3] reduce(x, start), dimensions={{0}}, to_apply=c
 w = T[67,3] reduce-window(x, start), window={{size=65x1 pad=32_35x0_0}}, to_apply=c
 y = T[5,3] slice(x), slice={{[0:5], [0:3]}}
 i = s32[64,1] iota(), iota_dimension=0
 two = s32[] constant(2)
 twos = s32[64,1] broadcast(two), dimensions={{}}
 j = s32[64,1] remainder(i, twos)
 s = T[5,3] scatter(y, j, x), update_window_dims={{1}}, inserted_window_dims={{0}}, scatter_dims_to_operand_dims={{0}},
  index_vector_dim=1, to_apply=c
 ROOT t = (T[3], T[67,3], T[5,3]) tuple(r, w, s) }}
""".replace("T[", f"{name}[")
    values = np.random.default_rng(7).choice(np.float32([-1.5, -1, 0.5, 1, 1, 1, 1.5, 2]), (64, 3))
    for x in (np.ones((64, 3)), values):
        check_whole(text, [x.astype(BY_NAME[name].numpy)], levels=("0", "2"))


@pytest.mark.parametrize("name", FLOATS[:3])
def test_not_a_number_becomes_minus_zero_where_the_type_has_none(name: str) -> None:
    """As XLA CPU has it, whatever the sign of the NaN; the quotient shows which zero it is."""
    x = np.uint32([0x7FC00000, 0xFFC00000]).view(np.float32)
    text = (f"HloModule m\nENTRY e {{ x = f32[2] parameter(0)\n y = {name}[2] convert(x)\n z = f32[2] convert(y)\n"
            "one = f32[] constant(1)\n ones = f32[2] broadcast(one), dimensions={}\n ROOT q = f32[2] divide(ones, z) }")
    check_whole(text, [x], levels=("0", "2"))
    np.testing.assert_array_equal(evaluate(read_text(text), [x]), np.float32([-np.inf, -np.inf]))


@pytest.mark.parametrize(("name", "result"), [("f4e2m1fn", "f32"), ("f4e2m1fn", "f4e2m1fn"), ("s4", "s32"), ("s4", "s4"),
                                              ("f8e5m2fnuz", "bf16")])
def test_products(name: str, result: str) -> None:
    text = (f"HloModule m\nENTRY e {{ x = {name}[5,16] parameter(0)\n y = {name}[16,3] parameter(1)\n"
            f"ROOT z = {result}[5,3] dot(x, y), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}} }}")
    check_whole(text, levels=("0", "2"))
    assert not hosted(text)


def test_products_of_f8e4m3fn_are_the_hosts_unless_asked_for() -> None:
    text = ("HloModule m\nENTRY e { x = f8e4m3fn[5,16] parameter(0)\n y = f8e4m3fn[16,3] parameter(1)\n"
            "ROOT z = f32[5,3] dot(x, y), lhs_contracting_dims={1}, rhs_contracting_dims={0} }")
    assert hosted(text) == ["dot"]
    options = CompileOptions(multiply_f8e4m3fn=True)
    plan = compile_module(read_text(text), options).plan
    assert plan is not None and not plan.host
    module = read_text(text)
    assert Trial(options, False).judge(module, random_inputs(module)).kind == AGREES


def test_a_converted_weight_is_stored_in_the_wider_type() -> None:
    w = np.asarray(np.linspace(-3, 3, 48).reshape(16, 3), ml_dtypes.float8_e4m3fn)
    rows = ", ".join("{" + ", ".join(str(float(v)) for v in row) + "}" for row in w)
    text = (f"HloModule m\nENTRY e {{ x = bf16[5,16] parameter(0)\n w = f8e4m3fn[16,3] constant({{{rows}}})\n"
            "y = bf16[16,3] convert(w)\n"
            "ROOT z = f32[5,3] dot(x, y), lhs_contracting_dims={1}, rhs_contracting_dims={0} }")
    check_whole(text, levels=("0", "2"))
    assert not hosted(text)
