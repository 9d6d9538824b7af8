"""Functions are recognised by what they compute, in whatever form, and only then."""

import pytest

from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.text.reader import read_text
from nxcc.passes.recognize_functions import RecognizeFunctions

GELU_BY_ERF = """
  c = f32[] constant(0.707106769)   cb = f32[4,8] broadcast(c), dimensions={}
  s = f32[4,8] multiply(x, cb)      e = f32[4,8] erf(s)
  one = f32[] constant(1)           ob = f32[4,8] broadcast(one), dimensions={}
  t = f32[4,8] add(e, ob)           h = f32[] constant(0.5)
  hb = f32[4,8] broadcast(h), dimensions={}
  u = f32[4,8] multiply(x, hb)
  ROOT y = f32[4,8] multiply(u, t)
"""
SILU = "l = f32[4,8] logistic(x)\n ROOT y = f32[4,8] multiply(x, l)"
SILU_WITH_A_HIDDEN_BRANCH = """
  l = f32[4,8] logistic(x)
  k = f32[] constant(3.14159)      kb = f32[4,8] broadcast(k), dimensions={}
  p = pred[4,8] compare(x, kb), direction=EQ
  m = f32[4,8] select(p, kb, l)
  ROOT y = f32[4,8] multiply(x, m)
"""
ONE_OVER = """
  n = f32[4,8] negate(x)           e = f32[4,8] exponential(n)
  one = f32[] constant(1)          ob = f32[4,8] broadcast(one), dimensions={}
  s = f32[4,8] add(e, ob)
"""
SILU_AS_A_QUOTIENT = ONE_OVER + "ROOT y = f32[4,8] divide(x, s)"
LOGISTIC = ONE_OVER + "ROOT y = f32[4,8] divide(ob, s)"
NOT_SILU = "l = f32[4,8] tanh(x)\n ROOT y = f32[4,8] multiply(x, l)"


def module_of(body: str) -> Module:
    return read_text("HloModule m\nENTRY main {\n a = f32[4,8] parameter(0)\n b = f32[4,8] parameter(1)\n"
                     " x = f32[4,8] add(a, b)\n" + body + "\n}")


@pytest.mark.parametrize(("body", "target"), [(GELU_BY_ERF, "AwsNeuronGelu"), (SILU, "AwsNeuronSilu"),
                                                (SILU_AS_A_QUOTIENT, "AwsNeuronSilu")])
def test_known_function_becomes_one_instruction(body: str, target: str) -> None:
    module = module_of(body)
    assert RecognizeFunctions().run(module)
    assert module.entry.root.attribute("custom_call_target") == target
    assert module.entry.root.operands[0].name == "x"


@pytest.mark.parametrize("body", [SILU_WITH_A_HIDDEN_BRANCH, NOT_SILU])
def test_other_functions_stay(body: str) -> None:
    module = module_of(body)
    assert not RecognizeFunctions().run(module)
    assert module.entry.root.opcode == "multiply"


def test_operators_are_recognised_too() -> None:
    module = module_of(LOGISTIC)
    assert RecognizeFunctions().run(module)
    assert (module.entry.root.opcode, module.entry.root.operands[0].name) == ("logistic", "x")


def test_a_bounded_function_is_compared_by_its_own_size() -> None:
    """What differs by 0.001 far out is another function, however large the argument is there."""
    module = module_of(LOGISTIC.replace("ROOT y", "z") + """
  k = f32[] constant(100)  kb = f32[4,8] broadcast(k), dimensions={}
  p = pred[4,8] compare(x, kb), direction=GT
  almost = f32[] constant(0.999)  ab = f32[4,8] broadcast(almost), dimensions={}
  m = f32[4,8] select(p, ab, z)
  ROOT y = f32[4,8] multiply(m, ob)""")
    RecognizeFunctions().run(module)
    assert module.entry.root.opcode == "multiply"


def narrow_gelu(type: str, root: float) -> str:
    """x / 2 * erfc(-x * root), its complementary error function in f32, as jax writes GELU in 16 bits."""
    return f"""
  n = {type}[4,8] convert(x)        c = {type}[] constant({-root})   cb = {type}[4,8] broadcast(c), dimensions={{}}
  s = {type}[4,8] multiply(n, cb)   w = f32[4,8] convert(s)          e = f32[4,8] erf(w)
  one = f32[] constant(1)           ob = f32[4,8] broadcast(one), dimensions={{}}
  t = f32[4,8] subtract(ob, e)      v = {type}[4,8] convert(t)       h = {type}[] constant(0.5)
  hb = {type}[4,8] broadcast(h), dimensions={{}}
  u = {type}[4,8] multiply(n, hb)
  ROOT y = {type}[4,8] multiply(u, v)"""


@pytest.mark.parametrize(("type", "root"), [("bf16", 0.707031), ("f16", 0.707107)])
def test_roundings_on_the_way_to_a_rounded_result_are_left_out(type: str, root: float) -> None:
    module = module_of(narrow_gelu(type, root))
    assert RecognizeFunctions().run(module)
    y = module.entry.root
    assert y.opcode == "convert" and y.shape.dtype.name == type
    known = y.operands[0]
    assert known.attribute("custom_call_target") == "AwsNeuronGelu" and known.shape.dtype.name == "f32"
    assert known.operands[0].opcode == "convert" and known.operands[0].operands[0].name == "n"


@pytest.mark.parametrize(("type", "root"), [("bf16", 0.710938), ("f16", 0.70752), ("f32", 0.707031)])
def test_a_constant_beside_the_right_one_is_another_function(type: str, root: float) -> None:
    module = module_of(narrow_gelu(type, root))
    assert not RecognizeFunctions().run(module)


def test_the_nearest_of_several_functions_is_taken() -> None:
    """Both forms of GELU lie within a rounding of each other."""
    module = module_of("""
  n = bf16[4,8] convert(x)          q = bf16[4,8] multiply(n, n)     r = bf16[4,8] multiply(q, n)
  a1 = bf16[] constant(0.0446777)   ab = bf16[4,8] broadcast(a1), dimensions={}
  s = bf16[4,8] multiply(r, ab)     t = bf16[4,8] add(n, s)
  b1 = bf16[] constant(0.796875)    bb = bf16[4,8] broadcast(b1), dimensions={}
  v = bf16[4,8] multiply(t, bb)     w = bf16[4,8] tanh(v)
  one = bf16[] constant(1)          ob = bf16[4,8] broadcast(one), dimensions={}
  o = bf16[4,8] add(w, ob)          h = bf16[] constant(0.5)         hb = bf16[4,8] broadcast(h), dimensions={}
  u = bf16[4,8] multiply(o, hb)
  ROOT y = bf16[4,8] multiply(n, u)""")
    assert RecognizeFunctions().run(module)
    assert module.entry.root.operands[0].attribute("custom_call_target") == "AwsNeuronGeluApprxTanh"
