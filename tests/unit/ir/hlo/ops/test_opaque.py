"""Custom calls: each known target's meaning on small numbers, and the refusal of others by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nxcc.ir import dtypes
from nxcc.ir.diagnostics import UNKNOWN_CUSTOM_CALL, UNSUPPORTED_MODULE, CompileError
from nxcc.ir.hlo.operator import ShapeError
from nxcc.ir.hlo.oracle import evaluate_instruction
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.verifier import verify
from nxcc.ir.shapes import Shape, array, tuple_of

from harness.one_instruction import instruction_on, result_of

X = np.array([[-2.0, -0.5, 0.0, 1.5]], np.float32)


def called(target: str, *values: Any, config: str = "", shape: Shape | None = None) -> Any:
    arrays = [np.asarray(value) for value in values]
    declared = shape or Shape(dtypes.from_numpy(arrays[0].dtype), arrays[0].shape)
    return result_of("custom-call", *arrays, custom_call_target=target, config=config.encode(), shape=declared)


def by_element(function: Any) -> list[float]:
    return [function(float(x)) for x in X.ravel()]


def cdf(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


ACTIVATIONS = {
    "AwsNeuronErf": math.erf,
    "AwsNeuronSoftplus": lambda x: math.log(1 + math.exp(x)),
    "AwsNeuronGelu": lambda x: x * cdf(x),
    "AwsNeuronGeluApprxTanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "AwsNeuronSilu": lambda x: x * sigmoid(x),
}


@pytest.mark.parametrize("target", ACTIVATIONS)
def test_activations_follow_their_formulas(target: str) -> None:
    np.testing.assert_allclose(called(target, X).ravel(), by_element(ACTIVATIONS[target]), rtol=1e-6)


@pytest.mark.parametrize(("target", "forward"), [("AwsNeuronGeluBackward", "AwsNeuronGelu"),
                                                 ("AwsNeuronSiluBackward", "AwsNeuronSilu")])
def test_backward_activations_are_derivatives(target: str, forward: str) -> None:
    function, step = ACTIVATIONS[forward], 1e-5
    slopes = by_element(lambda x: 3 * (function(x + step) - function(x - step)) / (2 * step))
    np.testing.assert_allclose(called(target, np.full_like(X, 3), X).ravel(), slopes, rtol=1e-5)
    # torch-neuronx writes the slope alone, and the product behind it.
    np.testing.assert_allclose(3 * called(target, X).ravel(), slopes, rtol=1e-5)


def test_softmax_and_its_gradient_along_an_axis() -> None:
    y = called("AwsNeuronSoftmax", X, config="-1")
    np.testing.assert_allclose(y, np.exp(X) / np.exp(X).sum(), rtol=1e-6)
    gradient = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    back = called("AwsNeuronSoftmaxBackward", gradient, y, config="1")
    np.testing.assert_allclose(back, y * (gradient - (gradient * y).sum()), rtol=1e-4, atol=1e-7)


def test_rms_norm_weighs_along_its_axis() -> None:
    weight = np.array([1, 2, 3, 4], np.float32)
    result = called("AwsNeuronRmsNorm", X, weight, np.float32(0.5), config="1")
    np.testing.assert_allclose(result, X / math.sqrt(float((X * X).mean()) + 0.5) * weight, rtol=1e-6)


def test_arg_max_takes_the_first_of_ties_and_the_first_nan() -> None:
    x = np.array([[1, 5, 5], [2, np.nan, 7]], np.float32)
    assert called("AwsNeuronArgMax", x, config="1", shape=array(dtypes.U32, 2)).tolist() == [1, 1]
    assert called("AwsNeuronArgMin", x, config="0", shape=array(dtypes.S32, 3)).tolist() == [0, 1, 0]


def test_top_k_orders_ties_by_index_and_nan_first() -> None:
    x = np.array([1, 5, 5, np.nan, 2], np.float32)
    shape = tuple_of(array(dtypes.F32, 2), array(dtypes.S32, 2))
    assert called("TopK", x, shape=shape)[1].tolist() == [3, 1]
    neuron = tuple_of(array(dtypes.F32, 3), array(dtypes.U32, 3))
    assert called("AwsNeuronTopK", x, config="3", shape=neuron)[1].tolist() == [3, 1, 2]


def test_qr_and_householder_product_rebuild_the_matrix() -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    shape = tuple_of(array(dtypes.F32, 2, 4, 3), array(dtypes.F32, 2, 3))
    packed, factors = called("Qr", x, shape=shape)
    q = called("ProductOfElementaryHouseholderReflectors", packed, factors, shape=array(dtypes.F32, 2, 4, 3))
    np.testing.assert_allclose(q @ np.triu(packed[:, :3]), x, atol=1e-5)


IMAGE = np.array([[0.0, 3.0], [6.0, 9.0]], np.float32).reshape(1, 2, 2, 1)


def test_resize_nearest_and_its_gradient() -> None:
    big = called("ResizeNearest", IMAGE, config='"00"', shape=array(dtypes.F32, 1, 4, 4, 1))
    assert big[0, :, :, 0].tolist() == [[0, 0, 3, 3], [0, 0, 3, 3], [6, 6, 9, 9], [6, 6, 9, 9]]
    back = called("ResizeNearestGrad", np.ones_like(big), config='"00"', shape=array(dtypes.F32, 1, 2, 2, 1))
    assert back.ravel().tolist() == [4, 4, 4, 4]


@pytest.mark.parametrize(("flags", "row"), [("00", [0, 1.5, 3, 3]), ("10", [0, 1, 2, 3]), ("01", [0, 0.75, 2.25, 3])])
def test_resize_bilinear_places_pixels_by_its_flags(flags: str, row: list[float]) -> None:
    big = called("ResizeBilinear", IMAGE, config=f'"{flags}"', shape=array(dtypes.F32, 1, 2, 4, 1))
    np.testing.assert_allclose(big[0, 0, :, 0], row, rtol=1e-6)


@pytest.mark.parametrize("target", ["Sharding", "AwsNeuronTransferWithStaticRing", "MoveToHost", "SPMDFullToShardShape"])
def test_placement_passes_its_operand_through(target: str) -> None:
    assert called(target, X).tolist() == X.tolist()


def test_markers_pass_several_operands_as_a_tuple() -> None:
    shape = tuple_of(array(dtypes.F32, 1, 4), array(dtypes.S32, 2))
    first, second = called("AwsNeuronModuleMarkerStart-Forward", X, np.array([1, 2], np.int32), shape=shape)
    assert first.tolist() == X.tolist() and second.tolist() == [1, 2]


def evaluate_call(target: str, config: bytes = b"", shape: Shape | None = None) -> None:
    made = instruction_on("custom-call", array(dtypes.F32, 1, 4), custom_call_target=target, config=config,
                          shape=shape or array(dtypes.F32, 1, 4))
    evaluate_instruction(made, [X])


@pytest.mark.parametrize("target", ["my_kernel", "QuantizeMX", "AwsNeuronCustomNativeKernel", "lapack_sgeev_ffi"])
def test_unknown_targets_are_refused_by_name(target: str) -> None:
    with pytest.raises(CompileError, match=target) as caught:
        evaluate_call(target)
    assert caught.value.code is UNKNOWN_CUSTOM_CALL


def test_native_kernel_is_named_from_its_config() -> None:
    with pytest.raises(CompileError, match="kernel fused_attention"):
        evaluate_call("AwsNeuronCustomNativeKernel", b'{"func_name": "fused_attention"}')


@pytest.mark.parametrize(("target", "config"), [("AwsNeuronSoftmax", b"7"), ("AwsNeuronSoftmax", b"last"),
                                                ("ResizeBilinear", b"2")])
def test_wrong_configs_are_explained(target: str, config: bytes) -> None:
    with pytest.raises(CompileError) as caught:
        evaluate_call(target, config)
    assert caught.value.code is UNSUPPORTED_MODULE


def test_resharding_to_another_shape_needs_more_partitions() -> None:
    with pytest.raises(CompileError, match="more than one partition"):
        evaluate_call("SPMDFullToShardShape", shape=array(dtypes.F32, 1, 2))


def test_wrong_arity_is_refused() -> None:
    x = array(dtypes.F32, 2)
    made = instruction_on("custom-call", x, custom_call_target="AwsNeuronSoftmaxBackward", shape=x)
    with pytest.raises(ShapeError, match="takes 2 operands"):
        made.operator.check(made)


MISFITS = ['f32[] custom-call(p), custom_call_target="AwsNeuronErf"',
           'f32[3,4] custom-call(p), custom_call_target="AwsNeuronSoftmax", backend_config="1"',
           's32[8] custom-call(p), custom_call_target="AwsNeuronArgMax", backend_config="1"',
           '(f32[3,9], s32[3,9]) custom-call(p), custom_call_target="AwsNeuronTopK", backend_config="9"',
           'f32[3,4] custom-call(p), custom_call_target="TopK"',
           '(f32[3,4], s32[3]) custom-call(p), custom_call_target="TopK"',
           'f32[3,8] custom-call(p), custom_call_target="ResizeBilinear", backend_config="00"',
           '(f32[4,4], f32[2]) custom-call(p), custom_call_target="Qr"']


@pytest.mark.parametrize("call", MISFITS)
def test_results_that_do_not_follow_from_the_operands_are_refused(call: str) -> None:
    with pytest.raises(CompileError, match="custom-call is not valid"):
        verify(read_text(f"HloModule m\nENTRY e {{\n p = f32[3,8] parameter(0)\n ROOT r = {call}\n}}\n"))
