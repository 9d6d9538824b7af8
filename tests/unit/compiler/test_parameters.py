"""Which parameters are inputs, state and weights, and arrays that must fit them."""

import ml_dtypes
import numpy as np
import pytest

from nxcc.compiler.interface.parameters import Signature, check_inputs, conform, random_inputs
from nxcc.compiler.interface.weights import bind_weights, declare_weights, keep_weights
from nxcc.ir.diagnostics import (
    INPUT_MISMATCH,
    USAGE,
    WEIGHT_MISMATCH,
    WEIGHT_MISSING,
    WEIGHT_UNEXPECTED,
    CompileError,
)
from nxcc.ir.dtypes import BF16, F32
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.oracle import evaluate
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.verifier import verify
from nxcc.ir.shapes import array

TEXT = """
HloModule m, input_output_alias={ {1}: (3, {}, may-alias) }
ENTRY main {
  enc.w = f32[2] parameter(0)
  x = f32[2] parameter(1)
  dec.w = f32[2] parameter(2)
  state = f32[2] parameter(3)
  a = f32[2] multiply(enc.w, x)
  b = f32[2] subtract(a, dec.w)
  c = f32[2] add(state, b)
  ROOT r = (f32[2], f32[2]) tuple(b, c)
}
"""


def module_and_signature(weights: frozenset[int] = frozenset()) -> tuple[Module, Signature]:
    return read_text(TEXT), Signature([0, 1, 2, 3], weights)


@pytest.mark.parametrize(("specification", "expected"), [
    ("0", {0}), ("0-2", {0, 1, 2}), (r".*\.w", {0, 2}), ("enc.w,2", {0, 2}), ("w", {0, 2}), ("[e]nc.{1,2},3", {0, 3}),
])
def test_weights_are_declared_by_number_range_and_expression(specification: str, expected: set[int]) -> None:
    assert declare_weights(read_text(TEXT), specification) == expected


@pytest.mark.parametrize("specification", ["4", "2-1", "nothing", "("])
def test_a_specification_that_names_nothing_is_wrong_usage(specification: str) -> None:
    with pytest.raises(CompileError) as caught:
        declare_weights(read_text(TEXT), specification)
    assert caught.value.code is USAGE


def test_inputs_are_numbered_without_weights_and_state_is_known() -> None:
    module, signature = module_and_signature(frozenset({0, 2}))
    assert [(t.name, t.number, t.role) for t in signature.tensors(module)] == [
        ("weight0", 0, "weight"), ("input0", 1, "input"), ("weight2", 2, "weight"), ("input1", 3, "state")]


def test_a_declared_weight_is_no_memory_of_a_result() -> None:
    module = read_text(TEXT)
    assert keep_weights(module, frozenset({0})) == [] and module.aliases
    (said,) = keep_weights(module, frozenset({0, 3}))
    assert "parameter 3 is declared a weight" in said and not module.aliases


def test_bound_weights_become_constants_and_the_rest_is_renumbered() -> None:
    module, signature = module_and_signature()
    one, two = np.float32([1, 2]), np.float32([3, 4])
    assert bind_weights(module, signature, {"0": one, "dec.w": two}, "w") == []
    verify(module)
    assert [(t.name, t.number, t.role) for t in signature.tensors(module)] == [("input0", 1, "input"), ("input1", 3, "state")]
    x, state = np.float32([5, 6]), np.float32([7, 8])
    got = evaluate(module, [x, state])
    np.testing.assert_array_equal(got[0], one * x - two)
    np.testing.assert_array_equal(got[1], one * x - two + state)


def test_every_problem_with_weights_is_reported_at_once() -> None:
    module, signature = module_and_signature(frozenset({2}))
    arrays = {"0": np.zeros(3, np.float32), "9": np.zeros(2, np.float32), "enc.w": np.zeros(2, np.float32)}
    codes = [problem.code for problem in bind_weights(module, signature, arrays, "w")]
    assert codes == [WEIGHT_UNEXPECTED, WEIGHT_UNEXPECTED, WEIGHT_MISSING, WEIGHT_MISMATCH]


def test_bf16_may_come_as_bits_and_scalars_too() -> None:
    bits = np.uint16([0x3F80, 0xC000])
    found = conform(bits, array(BF16, 2), "x", "f", INPUT_MISMATCH)
    np.testing.assert_array_equal(found, np.array([1, -2], ml_dtypes.bfloat16))
    assert conform(np.uint16(0x3F80), array(BF16), "x", "f", INPUT_MISMATCH) == 1
    with pytest.raises(CompileError, match="float64"):
        conform(np.zeros(2), array(F32, 2), "x", "f", INPUT_MISMATCH)


def test_inputs_are_checked_together() -> None:
    module, signature = module_and_signature()
    arrays = {"input0": np.zeros(2, np.float32), "input1": np.zeros(2), "input3": np.zeros(3, np.float32)}
    _, problems = check_inputs(arrays, signature.tensors(module), "f")
    assert [problem.what.split(" ")[0] for problem in problems] == ["input1", "input2", "input3"]


def test_random_inputs_depend_on_the_seed_alone() -> None:
    module, signature = module_and_signature()
    tensors = signature.tensors(module)
    first, again, other = (random_inputs(tensors, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
