"""Reductions and maps on the device against the oracle."""

import numpy as np
import pytest

from nxcc.backends.target import load_target
from nxcc.compiler.debugging.trial import Trial
from nxcc.compiler.driver import pass_settings
from nxcc.compiler.options import CompileOptions, options_from
from nxcc.ir.dtypes import dtype as named
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text
from nxcc.passes.pipeline import run_pipeline

from harness.clocked import microseconds
from harness.combiners import combiner, first_of
from harness.device import check_module, check_text, run_on_device
from harness.whole import check_whole

NUMBERS = ("f32", "bf16", "f16", "s8", "u8", "s16", "u16", "s32", "u32")
INTEGERS = NUMBERS[3:]
CASES = (((3, 200, 17), (0, 2)), ((3, 200, 17), (1,)), ((5000,), (0,)), ((3, 0), (1,)), ((300, 2), (0, 1)), ((1,), (0,)),
         ((77, 300), (0,)), ((5, 9, 64), (1,)), ((3, 70, 1999), (1,)), ((2, 150, 3, 5), (1,)),
         ((2, 150, 3, 5), (1, 3)), ((4, 6, 130, 2, 3), (0, 2)))

LARGER = first_of("larger")

NORM = """
square { a = f32[] parameter(0) ROOT r = f32[] multiply(a, a) }
norm {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  x = f32[] call(a), to_apply=square
  y = f32[] call(b), to_apply=square
  s = f32[] add(x, y)
  ROOT r = f32[] sqrt(s)
}
"""


def dims_text(dims: tuple[int, ...]) -> str:
    return ",".join(map(str, dims))


def reduce_text(opcode: str, dtype: str, dims: tuple[int, ...], reduced: tuple[int, ...]) -> str:
    kept = tuple(size for d, size in enumerate(dims) if d not in reduced)
    return f"""HloModule test
c {{ a = {dtype}[] parameter(0) b = {dtype}[] parameter(1) ROOT r = {dtype}[] {opcode}(a, b) }}
ENTRY main {{
  p = {dtype}[{dims_text(dims)}] parameter(0)
  z = {dtype}[] parameter(1)
  ROOT r = {dtype}[{dims_text(kept)}] reduce(p, z), dimensions={{{dims_text(reduced)}}}, to_apply=c
}}"""


@pytest.mark.parametrize("opcode", ("add", "multiply", "maximum", "minimum"))
@pytest.mark.parametrize("dtype", NUMBERS)
def test_one_operator(dtype: str, opcode: str) -> None:
    tolerance = {"f32": 1e-4}.get(dtype) if opcode == "add" else None
    floats = dtype in ("f32", "bf16", "f16")
    for dims, reduced in CASES if opcode != "multiply" or not floats else CASES[3:6]:
        random = np.random.default_rng(1)
        if floats:
            inputs = None if opcode != "add" else [random.uniform(0.1, 1, dims), random.uniform(0.1, 1)]
        else:
            low, high = (-9, 10) if dtype[0] == "s" else (0, 19)
            inputs = [random.integers(low, high, dims), random.integers(1, 5)]
        check_text(reduce_text(opcode, dtype, dims, reduced), typed(dtype, inputs), tolerance)


def typed(dtype: str, inputs: list[np.ndarray] | None) -> list[np.ndarray] | None:
    return None if inputs is None else [np.asarray(x).astype(named(dtype).numpy) for x in inputs]


@pytest.mark.parametrize("opcode", ("and", "or", "xor"))
@pytest.mark.parametrize("dtype", (*INTEGERS, "pred"))
def test_bits(dtype: str, opcode: str) -> None:
    for dims, reduced in CASES:
        check_text(reduce_text(opcode, dtype, dims, reduced))


def test_extremes_propagate_nan() -> None:
    for opcode in ("maximum", "minimum"):
        data = np.array([[1, np.nan, 5, 2], [np.inf, -np.inf, 0, 1]], np.float32)
        check_text(reduce_text(opcode, "f32", (2, 4), (1,)), [data, np.float32(2)])


@pytest.mark.parametrize("optlevel", (0, 1))
@pytest.mark.parametrize(("dims", "reduced"), (*CASES[:4], *CASES[6:], ((2, 9001), (1,))))
def test_values_with_their_places(dims: tuple[int, ...], reduced: tuple[int, ...], optlevel: int) -> None:
    kept = dims_text(tuple(size for d, size in enumerate(dims) if d not in reduced))
    check_text(f"""HloModule test
{LARGER}
ENTRY main {{
  p = f32[{dims_text(dims)}] parameter(0)
  i = s32[{dims_text(dims)}] iota(), iota_dimension={reduced[-1]}
  z = f32[] constant(-inf)
  n = s32[] constant(0)
  ROOT r = (f32[{kept}], s32[{kept}]) reduce(p, i, z, n), dimensions={{{dims_text(reduced)}}}, to_apply=larger
}}""", optlevel=optlevel)


def test_combiner_with_calls() -> None:
    check_text(f"""HloModule test
{NORM}
ENTRY main {{
  p = f32[7,3001] parameter(0)
  z = f32[] constant(0)
  ROOT r = f32[7] reduce(p, z), dimensions={{1}}, to_apply=norm
}}""", tolerance=1e-4)


def test_map() -> None:
    check_text(f"""HloModule test
{NORM}
ENTRY main {{
  p = f32[130,33] parameter(0)
  q = f32[130,33] parameter(1)
  ROOT r = f32[130,33] map(p, q), dimensions={{0,1}}, to_apply=norm
}}""")


FIRST = """ENTRY e {{ x = f32[{dims}] parameter(0)
  n = s32[{dims}] iota(), iota_dimension={dim}
  low = f32[] constant(-inf)
  zero = s32[] constant(0)
  ROOT r = (f32[{kept}], s32[{kept}]) reduce(x, n, low, zero), dimensions={{{dim}}}, to_apply=first }}"""
"""The place of the largest as jax writes it: of several NaN the earlier one, if neighbours are compared in their order."""


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize(("dims", "dim"), [
    ((3, 16), 0), ((9, 20), 0), ((1, 3, 16), 1), ((20, 9), 1), ((130, 4), 0), ((2, 37, 65), 1), ((700, 33), 0), ((3, 1000), 1)])
def test_first_of_several_nan_wins(dims: tuple[int, ...], dim: int, level: int) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=dims).astype(np.float32)
    x[random.random(dims) < 0.4] = np.nan
    kept = [size for d, size in enumerate(dims) if d != dim]
    text = first_of("first") + FIRST.format(dims=",".join(map(str, dims)), kept=",".join(map(str, kept)), dim=dim)
    check_text("HloModule m\n" + text, [x], optlevel=level)
    wanted = np.argmax(x, dim)
    assert (run_on_device(read_text(text), [x], level)[1] == wanted).all()

IN_TURN = """HloModule m
halved {{ a = f32[] parameter(0)
  b = f32[] parameter(1)
  half = f32[] constant(0.5)
  h = f32[] multiply(a, half)
  ROOT r = f32[] add(h, b) }}
less {{ a = s32[] parameter(0)
  b = s32[] parameter(1)
  ROOT r = s32[] subtract(a, b) }}
counted {{ a = s32[] parameter(0)
  b = s32[] parameter(1)
  one = s32[] constant(1)
  ROOT r = s32[] add(a, one) }}
ENTRY main {{
  x = f32[{dims}] parameter(0)
  t = s32[{dims}] parameter(1)
  three = f32[] constant(3)
  five = s32[] constant(5)
  h = f32[{kept}] reduce(x, three), dimensions={{{reduced}}}, to_apply=halved
  s = s32[{kept}] reduce(t, five), dimensions={{{reduced}}}, to_apply=less
  n = s32[{kept}] reduce(t, five), dimensions={{{reduced}}}, to_apply=counted
  ROOT o = (f32[{kept}], s32[{kept}], s32[{kept}]) tuple(h, s, n)
}}
"""
"""Combiners that are not associative: elements are taken one after another, the initial value first."""


@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize(("dims", "reduced"), [((6, 9, 5), (1,)), ((6, 9, 5), (0, 2)), ((200, 7), (1,)), ((7, 200), (0,)),
                                               ((40,), (0,)), ((2, 3, 64), (1,))])
def test_a_combiner_that_is_not_associative_takes_elements_in_turn(dims: tuple[int, ...], reduced: tuple[int, ...],
                                                                   level: int) -> None:
    kept = [size for d, size in enumerate(dims) if d not in reduced]
    random = np.random.default_rng(0)
    x, t = random.normal(size=dims).astype(np.float32), random.integers(-9, 9, dims).astype(np.int32)
    text = IN_TURN.format(dims=dims_text(dims), kept=dims_text(tuple(kept)), reduced=dims_text(reduced))
    check_text(text, [x, t], optlevel=level)
    moved = np.moveaxis(t, reduced, range(len(reduced))).reshape(-1, *kept)
    assert (run_on_device(read_text(text), [x, t], level)[1] == 5 - moved.sum(0)).all()


def test_group_norm_with_channels_last_takes_no_elements_one_by_one():
    """Sums over places and the channels of a group, which lie apart: whole runs first, then the groups."""
    text = reduce_text("add", "f32", (2, 16, 16, 8, 10), (1, 2, 4)).replace("z = f32[] parameter(1)", "z = f32[] constant(0)")
    check_text(text, optlevel=2)
    assert microseconds(text.replace("[2,16,16,8,10]", "[2,64,64,32,10]").replace("f32[2,8]", "f32[2,32]")) < 200


@pytest.mark.parametrize("target", ["v1", "v2"])
@pytest.mark.parametrize("text", [
    reduce_text("add", "f32", (300, 515), (0,)),
    reduce_text("add", "f32", (2, 20, 30, 190), (1, 2)),
    reduce_text("add", "f32", (700, 130), (0,)).replace("p = f32[700,130] parameter(0)",
                                                        "q = bf16[700,130] parameter(0)\n  p = f32[700,130] convert(q)"),
], ids=["rows", "batches", "converted"])
def test_a_sum_by_a_product_keeps_what_is_not_finite_in_its_column(text: str, target: str) -> None:
    module = read_text(text.replace("z = f32[] parameter(1)", "z = f32[] constant(0)"))
    run_pipeline(module, pass_settings(options_from(optlevel=2, target=target), load_target(target)))
    shape = module.entry.parameters[0].shape
    assert target == "v1" and shape.dtype.bits == 32 or any(i.opcode == "dot" for i in module.entry.instructions)
    data = np.random.default_rng(0).uniform(0.5, 1, shape.dims).astype(shape.dtype.numpy)
    columns = data.reshape(-1, shape.dims[-1])
    columns[7, 3], columns[9, 5], columns[200, 6], columns[201, 6] = np.nan, np.inf, np.inf, -np.inf
    check_module(module, [data], 1e-4, optlevel=2)


@pytest.mark.parametrize("opcode, dtype", [("add", "f32"), ("add", "bf16"), ("maximum", "f32"), ("add", "s32")])
@pytest.mark.parametrize("dims, over", [
    ((300, 2500), 0), ((100, 5001), 0), ((9000, 40), 0), ((3, 500, 700), 1), ((70, 9001), 1)])
def test_long_sums_come_in_pieces(opcode: str, dtype: str, dims: tuple[int, ...], over: int) -> None:
    """Pieces are loaded while others are folded."""
    shape, kept = ",".join(map(str, dims)), ",".join(str(size) for d, size in enumerate(dims) if d != over)
    start = "-inf" if opcode == "maximum" else "0"
    check_whole(f"""HloModule m
{combiner("fold", opcode, dtype)}
ENTRY main {{
  x = {dtype}[{shape}] parameter(0)
  start = {dtype}[] constant({start})
  ROOT r = {dtype}[{kept}] reduce(x, start), dimensions={{{over}}}, to_apply=%fold
}}
""", levels=("2",))


def test_sums_of_columns_are_bound_by_memory() -> None:
    text = f"""HloModule m
{combiner("add", "add")}
ENTRY main {{
  x = f32[4096,4096] parameter(0)
  zero = f32[] constant(0)
  ROOT r = f32[4096] reduce(x, zero), dimensions={{0}}, to_apply=%add
}}
"""
    assert microseconds(text, "none") < 1.6 * 4 * 4096 * 4096 / 272e3


@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("dtype", ["bf16", "f8e4m3", "f8e4m3fn", "f4e2m1fn"])
@pytest.mark.parametrize("count", [40, 700])
def test_narrow_sums_beside_others_are_rounded_once(count: int, dtype: str, level: int) -> None:
    text = f"""HloModule m
f {{ a = {dtype}[] parameter(0)
  b = f32[] parameter(1)
  x = {dtype}[] parameter(2)
  y = f32[] parameter(3)
  half = {dtype}[] constant(0.5)
  h = {dtype}[] multiply(x, half)
  s = {dtype}[] add(a, h)
  t = f32[] maximum(b, y)
  ROOT r = ({dtype}[], f32[]) tuple(s, t) }}
ENTRY e {{ p = {dtype}[{count},6] parameter(0)
  q = f32[{count},6] parameter(1)
  z = {dtype}[] constant(0)
  w = f32[] constant(0)
  ROOT o = ({dtype}[6], f32[6]) reduce(p, q, z, w), dimensions={{0}}, to_apply=f }}"""
    module = read_text(text)
    random = np.random.default_rng(0)
    inputs = [(random.normal(size=p.shape.dims) * 0.1 + 0.1).astype(p.shape.dtype.numpy) for p in module.entry.parameters]
    exact = (inputs[0].astype(np.float64) * 0.5).sum(0).astype(np.float32).astype(inputs[0].dtype)
    wanted = flatten(evaluate(module, inputs))
    got = Trial(CompileOptions(optlevel=str(level))).run(module, inputs)
    for values in (wanted, got):
        np.testing.assert_array_equal(values[0].astype(np.float32), exact.astype(np.float32))
        np.testing.assert_array_equal(values[1], wanted[1])


@pytest.mark.parametrize("dtype", ("f32", "bf16", "s32"))
def test_long_runs_that_are_kept(dtype: str) -> None:
    """A kept dimension that is long and lies together is cut into runs, which fill the partitions."""
    for dims, reduced in (((7, 32768), (0,)), ((2, 6, 3, 16640), (1,))):
        values = np.random.default_rng(0).integers(-4, 5, dims).astype(named(dtype).numpy)
        check_whole(reduce_text("add", dtype, dims, reduced), [values, np.asarray(2, named(dtype).numpy)], levels=("2",),
                    strict=True)


@pytest.mark.parametrize("level", [0, 2])
def test_a_wide_sum_of_narrow_floats_is_not_rounded_to_them(level: int) -> None:
    """As modules have it that were dumped when XLA had changed the types of single instructions."""
    module = read_text("""HloModule m
f { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT s = f32[] add(a, b) }
ENTRY e { x = bf16[8,50] parameter(0)
  z = f32[] constant(0.1)
  ROOT r = f32[8] reduce(x, z), dimensions={1}, to_apply=f }""")
    x = np.random.default_rng(0).normal(size=(8, 50)).astype(module.entry.parameters[0].shape.dtype.numpy)
    (got,) = Trial(CompileOptions(optlevel=str(level))).run(module, [x])
    np.testing.assert_allclose(got, x.astype(np.float64).sum(1) + 0.1, rtol=1e-6, atol=1e-6)
