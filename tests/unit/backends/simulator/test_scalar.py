"""Scalar engine: activation functions, scale, bias, running sum."""

import math

import ml_dtypes
import numpy as np
import pytest

from nxcc.backends.isa.instructions.scalar import ACTIVATIONS
from nxcc.backends.simulator.engines.scalar import FUNCTIONS
from nxcc.ir.dtypes import BF16, F32, S32

from harness.one_core import Bench, array_of, make

REFERENCE = {
    "copy": lambda x: x, "square": lambda x: x * x, "abs": abs, "sign": lambda x: (x > 0) - (x < 0), "relu": lambda x: max(x,
        0.0),
    "exp": math.exp, "log": math.log, "sqrt": math.sqrt, "rsqrt": lambda x: 1 / math.sqrt(x), "reciprocal": lambda x: 1 / x,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)), "tanh": math.tanh, "gelu": lambda x: 0.5 * x * math.erfc(-x / math.sqrt(2)),
    "gelu_apprx_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))),
    "gelu_apprx_sigmoid": lambda x: x / (1 + math.exp(-1.702 * x)), "silu": lambda x: x / (1 + math.exp(-x)),
    "softplus": lambda x: math.log1p(math.exp(x)), "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))), "erf": math.erf,
    "sin": math.sin, "arctan": math.atan,
}


def activated(function, data, out=F32, **parts):
    bench = Bench()
    operand = bench.put(data)
    parts = {name: bench.put(value) if name in ("bias", "scale_tensor") else value for name, value in parts.items()}
    target = bench.room(out, *np.shape(data))
    return bench.result("scalar", make("activation", data=operand, out=target, function=function, **parts), target)


def test_every_function_is_declared():
    assert set(FUNCTIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_values(function):
    positive = not FUNCTIONS[function].signed
    values = np.array([[0.001, 0.1, 0.5, 0.99, 1.01, 1.5] if positive else [-1.5, -1.1, -0.9, -0.3, 0.01, 0.7, 1.2, 1.5]],
        np.float32)
    expected = [REFERENCE[function](float(x)) for x in values[0]]
    assert activated(function, values)[0] == pytest.approx(expected, rel=2e-6, abs=1e-12)


@pytest.mark.parametrize("function", ["exp", "sigmoid", "tanh", "gelu", "gelu_apprx_tanh", "silu", "softplus", "mish", "erf"])
def test_large_inputs(function):
    values = np.array([[-80, -30, -9, -4, 4, 9, 30, 80]], np.float32)
    expected = [REFERENCE[function](float(x)) for x in values[0]]
    assert activated(function, values)[0] == pytest.approx(expected, rel=4e-6, abs=2e-6)


def test_scale_and_bias():
    data = np.array([[1, 2], [3, 4]], np.float32)
    assert activated("copy", data, scale=2.0).tolist() == [[2, 4], [6, 8]]
    assert activated("relu", data, bias=np.array([[-1.5], [1]], np.float32)).tolist() == [[0, 0.5], [4, 5]]
    assert activated("copy", data, scale_tensor=np.array([[10], [100]], np.float32),
                     bias=np.array([[1], [2]], ml_dtypes.bfloat16)).tolist() == [[11, 21], [302, 402]]


def test_in_place():
    bench = Bench()
    data = bench.put(np.array([[1, -1]], np.float32))
    result = bench.result("scalar", make("activation", data=data, out=data, function="silu"), data)
    assert result[0] == pytest.approx([0.7310586, -0.2689414])


def test_integers_lose_bits_on_the_scalar_engine():
    assert activated("copy", np.array([[2 ** 24 + 1]], np.int32), S32).tolist() == [[2 ** 24]]


def test_sum_is_of_the_unrounded_results():
    bench = Bench()
    data, out, total = bench.put(np.array([[1.001, 2.003]], np.float32)), bench.room(BF16, 1, 2), bench.room(F32, 1, 1)
    core = bench.run("scalar", make("activation", data=data, out=out, sum=total, function="copy"))
    assert array_of(core, out).astype(np.float32).tolist() == [[1, 2]]
    assert array_of(core, total)[0, 0] == pytest.approx(3.004)


def test_outside_of_the_valid_range_the_answer_is_not_plausible():
    assert np.isnan(activated("sin", np.array([[9.0]], np.float32))).all()
    assert np.isnan(activated("arctan", np.array([[2.0]], np.float32))).all()
    assert activated("log", np.array([[0.0]], np.float32)).tolist() == [[-math.inf]]
