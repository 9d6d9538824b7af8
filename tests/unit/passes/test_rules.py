"""Each rewriting rule alone: it fits its pattern, keeps every bit of awkward values, and leaves what only looks like it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.verifier import verify
from nxcc.ir.shapes import Shape
from nxcc.passes import rewriting
from nxcc.passes.canonicalize_dot import RULES as DOT_RULES
from nxcc.passes.dtypes.narrow_selections import RULES as NARROWING_RULES
from nxcc.passes.expansions.expand_batch_norm import RULES as NORM_RULES
from nxcc.passes.patch_products import RULES as PATCH_RULES
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode
from nxcc.passes.rules import arithmetic, motion, movement
from nxcc.passes.store_transposed import RULES as STORING_RULES

from harness.hlo_text import module_of

FAMILIES = (arithmetic.RULES, movement.RULES, motion.RULES, DOT_RULES, NARROWING_RULES, PATCH_RULES, STORING_RULES)
RULES = {rule.name: rule for family in FAMILIES for rule in family}
FLOATS = (0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, 3e-39, 1e-45, 3.4e38, -3.4e38, 7.0)
INTEGERS = (0, 1, -1, 5, 2**31 - 1, -2**31, 1000, -7, 3, 2, 100, 31)

X = "x = f32[4,3] parameter(0)\n"
I = "x = s32[4,3] parameter(0)\n"  # noqa: E741
P = "x = pred[4,3] parameter(0)\n"


def splat(dtype: str, number: str) -> str:
    return f"c = {dtype}[] constant({number})\n k = {dtype}[4,3] broadcast(c), dimensions={{}}\n"


CASES = [
    ("identity-operand", X + splat("f32", "1") + "ROOT r = f32[4,3] multiply(k, x)"),
    ("identity-operand", X + splat("f32", "-0") + "ROOT r = f32[4,3] add(x, k)"),
    ("identity-operand", X + splat("f32", "0") + "ROOT r = f32[4,3] subtract(x, k)"),
    ("identity-operand", X + splat("f32", "-inf") + "ROOT r = f32[4,3] maximum(x, k)"),
    ("identity-operand", I + splat("s32", "-1") + "ROOT r = s32[4,3] and(x, k)"),
    ("identity-operand", I + splat("s32", "-2147483648") + "ROOT r = s32[4,3] maximum(k, x)"),
    ("truth-operand", P + splat("pred", "true") + "ROOT r = pred[4,3] and(k, x)"),
    ("truth-operand", P + splat("pred", "true") + "ROOT r = pred[4,3] or(x, k)"),
    ("same-operand-twice", X + "ROOT r = f32[4,3] maximum(x, x)"),
    ("integer-product-of-zero", I + splat("s32", "0") + "ROOT r = s32[4,3] multiply(x, k)"),
    ("negate-of-negate", X + "n = f32[4,3] negate(x)\n ROOT r = f32[4,3] negate(n)"),
    ("not-of-not", I + "n = s32[4,3] not(x)\n ROOT r = s32[4,3] not(n)"),
    ("repeated-operator", X + "n = f32[4,3] abs(x)\n ROOT r = f32[4,3] abs(n)"),
    ("copy", X + "ROOT r = f32[4,3] copy(x)"),
    ("convert", X + "n = f64[4,3] convert(x)\n ROOT r = bf16[4,3] convert(n)"),
    ("convert", I + "n = s64[4,3] convert(x)\n ROOT r = s32[4,3] convert(n)"),
    ("select", X + "p = pred[4,3] parameter(1)\n n = pred[4,3] not(p)\n y = f32[4,3] negate(x)\n"
               "ROOT r = f32[4,3] select(n, x, y)"),
    ("select", X + "p = pred[4,3] broadcast(pred[] constant(false)), dimensions={}\n y = f32[4,3] negate(x)\n"
               "ROOT r = f32[4,3] select(p, x, y)"),
    ("divide-by-power-of-two", X + splat("f32", "-0.25") + "ROOT r = f32[4,3] divide(x, k)"),
    ("power", X + splat("f32", "2") + "ROOT r = f32[4,3] power(x, k)"),
    ("power", X + splat("f32", "0") + "ROOT r = f32[4,3] power(x, k)"),
    ("power", X + splat("f32", "1") + "ROOT r = f32[4,3] power(x, k)"),
    ("power", X + splat("f32", "-1") + "ROOT r = f32[4,3] power(x, k)"),
    ("compare-with-bound", "x = u32[4,3] parameter(0)\n" + splat("u32", "0")
     + "ROOT r = pred[4,3] compare(x, k), direction=GE"),
    ("compare-with-bound", "x = s32[4,3] iota(), iota_dimension=0\n" + splat("s32", "4")
     + "ROOT r = pred[4,3] compare(x, k), direction=GE"),
    ("real-of-complex", X + "y = f32[4,3] parameter(1)\n c = c64[4,3] complex(x, y)\n ROOT r = f32[4,3] real(c)"),
    ("imag-of-complex", X + "y = f32[4,3] parameter(1)\n c = c64[4,3] complex(x, y)\n ROOT r = f32[4,3] imag(c)"),
    ("element-of-tuple", X + "t = (f32[4,3], f32[4,3]) tuple(x, x)\n ROOT r = f32[4,3] get-tuple-element(t), index=1"),
    ("reduce-of-one", "x = f32[12,1] parameter(0)\n i = f32[] constant(0)\n"
                      "ROOT r = f32[12] reduce(x, i), dimensions={1}, to_apply=add_f32"),
    ("reshape", X + "y = f32[12] reshape(x)\n ROOT r = f32[3,4] reshape(y)"),
    ("reshape", "x = f32[4] parameter(0)\n y = f32[4,1,3] broadcast(x), dimensions={0}\n ROOT r = f32[1,4,3] reshape(y)"),
    ("reshape", "x = s32[4,1,3] iota(), iota_dimension=2\n ROOT r = s32[4,3] reshape(x)"),
    ("transpose", "x = f32[2,3,2] parameter(0)\n y = f32[3,2,2] transpose(x), dimensions={1,2,0}\n"
                  "ROOT r = f32[2,3,2] transpose(y), dimensions={1,0,2}"),
    ("transpose", "x = f32[4] parameter(0)\n y = f32[4,3] broadcast(x), dimensions={0}\n"
                  "ROOT r = f32[3,4] transpose(y), dimensions={1,0}"),
    ("transpose", "x = f32[4,1,3] parameter(0)\n ROOT r = f32[1,4,3] transpose(x), dimensions={1,0,2}"),
    ("broadcast", "x = f32[4] parameter(0)\n y = f32[4,3] broadcast(x), dimensions={0}\n"
                  "ROOT r = f32[3,2,4] broadcast(y), dimensions={2,0}"),
    ("broadcast", "x = f32[4,1] parameter(0)\n ROOT r = f32[4,1,3] broadcast(x), dimensions={0,1}"),
    ("broadcast", "x = f32[4,3] parameter(0)\n ROOT r = f32[3,4] broadcast(x), dimensions={1,0}"),
    ("constant-of-one-number", "x = f32[2,2] constant({{-0, -0}, {-0, -0}})\n ROOT r = f32[2,2] negate(x)"),
    ("slice", X + "y = f32[3,3] slice(x), slice={[1:4], [0:3]}\n ROOT r = f32[1,2] slice(y), slice={[1:2], [0:3:2]}"),
    ("slice", "x = f32[4] parameter(0)\n y = f32[4,3] broadcast(x), dimensions={0}\n"
              "ROOT r = f32[2,2] slice(y), slice={[0:4:2], [1:3]}"),
    ("slice", X + "y = f32[2,3] parameter(1)\n z = f32[6,3] concatenate(x, y), dimensions={0}\n"
                  "ROOT r = f32[1,3] slice(z), slice={[4:6:2], [0:3]}"),
    ("concatenate", X + "e = f32[0,3] slice(x), slice={[0:0], [0:3]}\n y = f32[8,3] concatenate(x, x), dimensions={0}\n"
                    "ROOT r = f32[12,3] concatenate(y, e, x), dimensions={0}"),
    ("pad", X + "z = f32[] constant(1)\n ROOT r = f32[4,3] pad(x, z), padding=0_0x0_0"),
    ("reverse", X + "y = f32[4,3] reverse(x), dimensions={0,1}\n ROOT r = f32[4,3] reverse(y), dimensions={1}"),
    ("dynamic-slice", X + "i = s32[] constant(9)\n j = s32[] constant(-2)\n"
                      "ROOT r = f32[2,2] dynamic-slice(x, i, j), dynamic_slice_sizes={2,2}"),
    ("dynamic-update-slice", X + "y = f32[4,3] parameter(1)\n i = s32[] constant(1)\n"
                             "ROOT r = f32[4,3] dynamic-update-slice(x, y, i, i)"),
    ("gather-of-all", "x = f32[2,2] parameter(0)\n i = s32[4,2] constant({{0,0},{0,1},{1,0},{1,1}})\n"
                      "ROOT r = f32[4] gather(x, i), offset_dims={}, collapsed_slice_dims={0,1}, start_index_map={0,1}, "
                      "index_vector_dim=1, slice_sizes={1,1}"),
    ("work-before-broadcast", "x = f32[4] parameter(0)\n y = f32[4] parameter(1)\n a = f32[4,3] broadcast(x), dimensions={0}\n"
                              "b = f32[4,3] broadcast(y), dimensions={0}\n ROOT r = f32[4,3] add(a, b)"),
    ("elementwise-of-reshape", X + "y = f32[12] reshape(x)\n b = f32[] parameter(1)\n c = f32[12] broadcast(b), dimensions={}\n"
                               "ROOT r = f32[12] add(y, c)"),
    ("elementwise-of-reshape", "x = f32[2,2,3] parameter(0)\n b = f32[3] parameter(1)\n y = f32[4,3] reshape(x)\n"
                               "c = f32[4,3] broadcast(b), dimensions={1}\n ROOT r = f32[4,3] multiply(y, c)"),
    ("reduce-of-reshape", "x = f32[2,2,3] parameter(0)\n i = f32[] constant(-inf)\n y = f32[4,3] reshape(x)\n"
                          "ROOT r = f32[4] reduce(y, i), dimensions={1}, to_apply=max_f32"),
    ("broadcast-of-reshape", "x = f32[2,2] parameter(0)\n n = f32[2,2] negate(x)\n y = f32[4] reshape(n)\n"
                             "ROOT r = f32[3,4,2] broadcast(y), dimensions={1}"),
    ("transpose-of-reshape", "x = f32[2,2,3] parameter(0)\n n = f32[2,2,3] negate(x)\n y = f32[4,3] reshape(n)\n"
                             "ROOT r = f32[3,4] transpose(y), dimensions={1,0}"),
    ("dot-of-reshape", "x = f32[2,2,3] parameter(0)\n n = f32[2,2,3] negate(x)\n y = f32[4,3] reshape(n)\n"
                       "w = f32[3,2] parameter(1)\n"
                       "ROOT r = f32[4,2] dot(y, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}"),
    ("transpose-of-constant", "x = f32[2,3] constant({{1,-0,3},{4,nan,6}})\n"
                              "ROOT r = f32[3,2] transpose(x), dimensions={1,0}"),
    ("transpose-of-units-moved", "w = f32[2,3,4,1] parameter(0)\n r = f32[2,3,1,4] reshape(w)\n"
                                 "ROOT t = f32[4,2,3,1] transpose(r), dimensions={3,0,1,2}"),
    ("choice-of-widened", X + splat("f64", "0") + "w = f64[4,3] convert(x)\n ROOT r = f64[4,3] maximum(w, k)"),
    ("product-of-patches", "x = f32[2,3,19,16] parameter(0)\n w = f32[5,3,9,8] parameter(1)\n"
                           "ROOT r = f32[2,5,2,2] convolution(x, w), window={size=9x8 stride=9x8}, dim_labels=bf01_oi01->bf01"),
    ("product-of-patches", "x = f32[2,1,16,3] parameter(0)\n w = f32[1,8,3,5] parameter(1)\n"
                           "ROOT r = f32[1,2,2,5] convolution(x, w), window={size=1x8 stride=1x8}, dim_labels=b01f_01io->0b1f"),
    ("dot-in-normal-form", "x = f32[3,2,2] parameter(0)\n w = f32[2,5,3] parameter(1)\n"
                           "ROOT r = f32[2,2,5] dot(x, w), lhs_batch_dims={1}, rhs_batch_dims={0}, lhs_contracting_dims={0}, "
                           "rhs_contracting_dims={2}"),
    ("exchanged-sides", "k = f32[5,2,3] parameter(0)\n q = f32[4,2,2,3] parameter(1)\n"
                        "d = f32[2,5,4,2] dot(k, q), lhs_batch_dims={1}, rhs_batch_dims={1}, lhs_contracting_dims={2}, "
                        "rhs_contracting_dims={3}\n ROOT t = f32[2,2,4,5] transpose(d), dimensions={0,3,2,1}"),
    ("exchanged-sides", "v = f32[2,5,3,4] parameter(0)\n a = f32[2,3,6,5] parameter(1)\n"
                        "d = f32[2,3,4,6] dot(v, a), lhs_batch_dims={0,2}, rhs_batch_dims={0,1}, lhs_contracting_dims={1}, "
                        "rhs_contracting_dims={3}\n ROOT t = f32[2,6,3,4] transpose(d), dimensions={0,3,1,2}"),
    ("exchanged-sides", "k = f32[5,2,3] parameter(0)\n q = f32[4,2,2,3] parameter(1)\n"
                        "d = f32[2,5,4,2] dot(k, q), lhs_batch_dims={1}, rhs_batch_dims={1}, lhs_contracting_dims={2}, "
                        "rhs_contracting_dims={3}\n ROOT t = f32[2,4,5,2] transpose(d), dimensions={3,2,1,0}"),
    ("transpose-of-work", "x = f32[4,3] parameter(0)\n c = f32[3] parameter(1)\n t = f32[3,4] transpose(x), dimensions={1,0}\n"
                          "b = f32[3,4] broadcast(c), dimensions={0}\n s = f32[3,4] add(t, b)\n"
                          "ROOT r = f32[4,3] transpose(s), dimensions={1,0}"),
]

NOT_CASES = [
    ("exchanged-sides", "k = f32[2,5,3] parameter(0)\n q = f32[2,4,2,3] parameter(1)\n"
                        "d = f32[2,5,4,2] dot(k, q), lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2}, "
                        "rhs_contracting_dims={3}\n ROOT t = f32[2,4,5,2] transpose(d), dimensions={0,2,1,3}"),
    ("product-of-patches", "x = f32[2,3,18,16] parameter(0)\n w = f32[5,3,9,8] parameter(1)\n"
                           "ROOT r = f32[2,5,2,3] convolution(x, w), window={size=9x8 stride=9x4}, dim_labels=bf01_oi01->bf01"),
    ("product-of-patches", "x = f32[2,3,18,16] parameter(0)\n w = f32[5,3,9,8] parameter(1)\n"
                           "ROOT r = f32[2,5,2,2] convolution(x, w), window={size=9x8 stride=9x8 pad=0_0x1_0}, "
                           "dim_labels=bf01_oi01->bf01"),
    ("identity-operand", X + splat("f32", "0") + "ROOT r = f32[4,3] add(x, k)"),
    ("identity-operand", X + splat("f32", "-0") + "ROOT r = f32[4,3] subtract(x, k)"),
    ("integer-product-of-zero", X + splat("f32", "0") + "ROOT r = f32[4,3] multiply(x, k)"),
    ("same-operand-twice", X + "ROOT r = f32[4,3] subtract(x, x)"),
    ("convert", X + "n = bf16[4,3] convert(x)\n ROOT r = f32[4,3] convert(n)"),
    ("convert", X + "n = s32[4,3] convert(x)\n ROOT r = f32[4,3] convert(n)"),
    ("divide-by-power-of-two", X + splat("f32", "3") + "ROOT r = f32[4,3] divide(x, k)"),
    ("power", X + splat("f32", "0.5") + "ROOT r = f32[4,3] power(x, k)"),
    ("power", X + splat("f32", "-2") + "ROOT r = f32[4,3] power(x, k)"),
    ("transpose-of-constant", "x = f32[2,2] constant({{1,2},{3,4}})\n y = f32[2,2] transpose(x), dimensions={1,0}\n"
                              "ROOT r = f32[2,2] add(x, y)"),
    ("transpose-of-units-moved", "w = f32[2,3,4,1] parameter(0)\n r = f32[3,2,1,4] reshape(w)\n"
                                 "ROOT t = f32[4,3,2,1] transpose(r), dimensions={3,0,1,2}"),
    ("choice-of-widened", X + splat("f64", "0.1") + "w = f64[4,3] convert(x)\n ROOT r = f64[4,3] maximum(w, k)"),
    ("choice-of-widened", X + "w = f64[4,3] convert(x)\n ROOT r = f64[4,3] add(w, w)"),
    ("compare-with-bound", I + splat("s32", "0") + "ROOT r = pred[4,3] compare(x, k), direction=GE"),
    ("constant-of-one-number", "x = f32[2] constant({0, -0})\n ROOT r = f32[2] negate(x)"),
    ("dynamic-slice", X + "i = s32[] parameter(1)\n ROOT r = f32[2,2] dynamic-slice(x, i, i), dynamic_slice_sizes={2,2}"),
    ("gather-of-all", "x = f32[2] parameter(0)\n i = s32[2,1] constant({{1},{0}})\n"
                      "ROOT r = f32[2] gather(x, i), offset_dims={}, collapsed_slice_dims={0}, start_index_map={0}, "
                      "index_vector_dim=1, slice_sizes={1}"),
    ("slice", X + "z = f32[8,3] concatenate(x, x), dimensions={0}\n ROOT r = f32[2,3] slice(z), slice={[3:5], [0:3]}"),
    ("elementwise-of-reshape", X + "y = f32[12] reshape(x)\n z = f32[12] parameter(1)\n ROOT r = f32[12] add(y, z)"),
    ("transpose-of-reshape", "x = f32[4,3] parameter(0)\n n = f32[4,3] negate(x)\n y = f32[2,2,3] reshape(n)\n"
                             "ROOT r = f32[2,2,3] transpose(y), dimensions={1,0,2}"),
    ("reduce-of-reshape", "x = f32[4,3] parameter(0)\n i = f32[] constant(-inf)\n y = f32[2,2,3] reshape(x)\n"
                          "ROOT r = f32[2,3] reduce(y, i), dimensions={1}, to_apply=max_f32"),
]


def names(cases: list[tuple[str, str]]) -> list[str]:
    return [f"{name}-{number}" for number, (name, _) in enumerate(cases)]


def values(shape: Shape) -> Any:
    """Awkward values first, as many as fit."""
    rows = FLOATS if shape.dtype.is_float else INTEGERS if shape.dtype.is_integer else (True, False, False)
    with np.errstate(all="ignore"):
        return np.resize(np.array(rows).astype(shape.dtype.numpy), shape.dims)


def inputs_of(module: Module) -> list[Any]:
    return [np.roll(values(p.shape), number) for number, p in enumerate(module.entry.parameters)]


@pytest.mark.parametrize(("name", "text"), CASES, ids=names(CASES))
def test_rule_keeps_every_bit(name: str, text: str) -> None:
    module = module_of(text)
    inputs = inputs_of(module)
    before = flatten(evaluate(module, inputs))
    assert rewrite_module(module, rules_by_opcode([RULES[name]]))
    verify(module)
    for got, want in zip(flatten(evaluate(module, inputs)), before, strict=True):
        assert got.dtype == want.dtype
        if name.startswith(("dot", "reduce-of-reshape", "product-of-patches")):
            np.testing.assert_allclose(got, want, rtol=1e-6)
        else:
            assert _bits(got) == _bits(want)


def _bits(array: Any) -> bytes:
    """Bit patterns, all NaNs alike."""
    if array.dtype.kind in "fV":
        array = np.where(np.isnan(array.astype(np.float64)), array.dtype.type(1), array), np.isnan(array.astype(np.float64))
        return bytes(array[0].tobytes() + array[1].tobytes())
    return bytes(array.tobytes())


@pytest.mark.parametrize(("name", "text"), NOT_CASES, ids=names(NOT_CASES))
def test_rule_leaves_what_only_looks_alike(name: str, text: str) -> None:
    assert not rewrite_module(module_of(text), rules_by_opcode([RULES[name]]))


def test_every_rule_has_a_case() -> None:
    assert {name for name, _ in CASES} == set(RULES)


def test_names_of_rules_are_unique() -> None:
    rows: list[Rule] = [rule for family in (*FAMILIES, NORM_RULES) for rule in family]
    assert len({row.name for row in rows}) == len(rows)


CUBES = [("f32", "3"), ("f32", "4"), ("s32", "3")]


@pytest.mark.parametrize(("dtype", "exponent"), CUBES)
def test_power_rounds_once_more_at_most(dtype: str, exponent: str) -> None:
    module = module_of(f"x = {dtype}[4,3] parameter(0)\n" + splat(dtype, exponent) + f"ROOT r = {dtype}[4,3] power(x, k)")
    inputs = [np.linspace(-3, 3, 12).astype(module.entry.root.shape.dtype.numpy).reshape(4, 3)]
    before = evaluate(module, inputs)
    assert rewrite_module(module, rules_by_opcode([RULES["power"]]))
    np.testing.assert_allclose(evaluate(module, inputs), before, rtol=3e-7)


def test_rules_that_undo_each_other_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(opcode: str) -> Rule:
        return Rule(opcode, (opcode,), lambda i, builder: builder.make(
            {"maximum": "minimum", "minimum": "maximum"}[opcode], *i.operands[::-1]))

    table = rules_by_opcode([other("maximum"), other("minimum")])
    text = X + "ROOT r = f32[4,3] maximum(x, x)"
    with pytest.raises(AssertionError, match="do not come to an end"):
        rewrite_module(module_of(text), table)
    monkeypatch.setattr(rewriting, "GIVES_UP", True)
    module = module_of(text)
    assert rewrite_module(module, table)
    verify(module)
    assert len(module.entry.instructions) == 2
