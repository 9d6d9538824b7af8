"""Modules for another batch or length: what follows, what is shared, and what cannot follow."""

import numpy as np
import pytest

from nxcc.compiler.reports.resizing import Resize, resized
from nxcc.ir.hlo.oracle import evaluate
from nxcc.ir.hlo.text.reader import read_text

from harness.combiners import combiner

HEAD = "HloModule m\n" + combiner("add", "add") + combiner("larger", "maximum")


def module(body: str):
    return read_text(HEAD + "ENTRY main {\n" + body + "\n}\n")


def shapes(body: str, resize: Resize) -> dict[str, tuple[int, ...]] | None:
    found = resized(module(body), resize)
    return found and {i.name: i.shape.dims for i in found.entry.instructions if i.shape.is_array}


BATCH = Resize(((0, 0),), 2, 6)

CHAIN = """
  x = f32[2,8,16] parameter(0)
  w = f32[16,4] parameter(1)
  flat = f32[16,16] reshape(x)
  y = f32[16,4] dot(flat, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  back = f32[2,8,4] reshape(y)
  heads = f32[2,8,2,2] reshape(back)
  turned = f32[2,2,8,2] transpose(heads), dimensions={0,2,1,3}
  zero = f32[] constant(0)
  sum = f32[2,2,8] reduce(turned, zero), dimensions={3}, to_apply=add
  half = f32[] constant(0.5)
  many = f32[2,2,8] broadcast(half), dimensions={}
  scaled = f32[2,2,8] multiply(sum, many)
  part = f32[2,2,3] slice(scaled), slice={[0:2], [0:2], [1:4]}
  ROOT out = (f32[2,2,3]) tuple(part)"""


def test_batch_goes_through_reshapes_products_and_back_to_broadcasts():
    found = shapes(CHAIN, BATCH)
    assert found is not None
    assert {name: found[name] for name in ("flat", "y", "heads", "turned", "sum", "many", "part")} == {
        "flat": (48, 16), "y": (48, 4), "heads": (6, 8, 2, 2), "turned": (6, 2, 8, 2), "sum": (6, 2, 8), "many": (6, 2, 8),
        "part": (6, 2, 3)}
    assert found["w"] == (16, 4)


def test_length_goes_through_the_same_reshapes():
    body = CHAIN.replace("slice={[0:2], [0:2], [1:4]}", "slice={[0:2], [0:2], [0:8]}").replace("f32[2,2,3]", "f32[2,2,8]")
    found = shapes(body, Resize(((0, 1),), 8, 4))
    assert found is not None and (found["flat"], found["turned"], found["part"]) == ((8, 16), (2, 2, 4, 2), (2, 2, 4))


def test_batch_of_one_shares_what_no_sample_owns():
    body = """
  x = f32[1,8] parameter(0)
  table = f32[4,8] parameter(1)
  row = f32[1,8] slice(table), slice={[1:2], [0:8]}
  sum = f32[1,8] add(x, row)
  cut = f32[8] reshape(sum)
  mask = f32[1,3,8] broadcast(cut), dimensions={2}
  ROOT n = f32[1,3,8] negate(mask)"""
    found = resized(module(body), Resize(((0, 0),), 1, 4))
    assert found is not None
    by_name = {i.name: i for i in found.entry.instructions}
    assert by_name["row"].shape.dims == (1, 8) and by_name["n"].shape.dims == (4, 3, 8)
    assert by_name["mask"].attribute("dimensions") == (0, 2)


def test_work_on_values_without_their_unit_dimensions_belongs_to_each_sample() -> None:
    body = """
  x = f32[1,3,8] parameter(0)
  low = f32[] constant(-inf)
  most = f32[1,3] reduce(x, low), dimensions={2}, to_apply=larger
  cut = f32[3] reshape(most)
  least = f32[] constant(-9)
  many = f32[3] broadcast(least), dimensions={}
  kept = f32[3] maximum(cut, many)
  back = f32[1,3,8] broadcast(kept), dimensions={1}
  ROOT n = f32[1,3,8] subtract(x, back)"""
    x = np.arange(24, dtype=np.float32).reshape(1, 3, 8)
    one = evaluate(module(body), [x])
    grown = resized(module(body), Resize(((0, 0),), 1, 4))
    assert grown is not None
    many = evaluate(grown, [np.concatenate([x, x, x, x])])
    assert many.shape == (4, 3, 8) and all((row == one[0]).all() for row in many)


def test_each_sample_of_a_grown_batch_gives_what_one_gave():
    body = """
  x = f32[1,2,3] parameter(0)
  bias = f32[2,3] parameter(1)
  flat = f32[2,3] reshape(x)
  sum = f32[2,3] add(flat, bias)
  ROOT back = f32[1,2,3] reshape(sum)"""
    x, bias = np.arange(6, dtype=np.float32).reshape(1, 2, 3), np.full((2, 3), 10, np.float32)
    one = evaluate(module(body), [x, bias])
    grown = resized(module(body), Resize(((0, 0),), 1, 4))
    assert grown is not None
    many = evaluate(grown, [np.repeat(x, 4, axis=0), bias])
    assert many.shape == (4, 2, 3) and all((row == one[0]).all() for row in many)


def test_lookups_follow_their_indices():
    found = shapes("""
  i = s32[2,8,1] parameter(0)
  table = f32[100,16] parameter(1)
  ROOT g = f32[2,8,16] gather(table, i), offset_dims={2}, collapsed_slice_dims={0}, start_index_map={0}, index_vector_dim=2,
    slice_sizes={1,16}""", BATCH)
    assert found is not None and (found["g"], found["table"]) == ((6, 8, 16), (100, 16))


def test_results_of_a_reduction_of_two_arrays_follow():
    text = """HloModule m
larger { a = f32[] parameter(0)
 i = s32[] parameter(1)
 b = f32[] parameter(2)
 j = s32[] parameter(3)
 p = pred[] compare(a, b), direction=GT
 v = f32[] select(p, a, b)
 k = s32[] select(p, i, j)
 ROOT t = (f32[], s32[]) tuple(v, k) }
ENTRY main {
 x = f32[2,8] parameter(0)
 n = s32[2,8] iota(), iota_dimension=1
 low = f32[] constant(-inf)
 none = s32[] constant(0)
 r = (f32[2], s32[2]) reduce(x, n, low, none), dimensions={1}, to_apply=larger
 ROOT at = s32[2] get-tuple-element(r), index=1
}
"""
    found = resized(read_text(text), BATCH)
    assert found is not None and found.entry.root.shape.dims == (6,)
    x = np.arange(48, dtype=np.float32).reshape(6, 8)
    assert evaluate(found, [x]).tolist() == [7] * 6


def test_what_had_no_dimension_of_a_sample_grows_one():
    found = resized(module("""
  x = s32[1,1] parameter(0)
  cut = s32[] reshape(x)
  many = s32[1,1,8] broadcast(cut), dimensions={}
  ROOT n = s32[1,1,8] negate(many)"""), Resize(((0, 0),), 1, 4))
    assert found is not None and found.entry.root.shape.dims == (4, 1, 8)


def test_convolutions_follow_with_their_batch():
    found = shapes("""
  x = f32[2,3,8,8] parameter(0)
  k = f32[4,3,3,3] parameter(1)
  c = f32[2,4,6,6] convolution(x, k), window={size=3x3}, dim_labels=bf01_oi01->bf01
  n = f32[4] constant({1, 2, 3, 4})
  b = f32[2,4,6,6] broadcast(n), dimensions={1}
  ROOT s = f32[2,4,6,6] add(c, b)""", BATCH)
    assert found is not None and found["s"] == (6, 4, 6, 6)


def test_constants_are_repeated():
    found = resized(module("""
  x = f32[2,2] parameter(0)
  c = f32[2,2] constant({{1, 2}, {3, 4}})
  ROOT s = f32[2,2] add(x, c)"""), Resize(((0, 0),), 2, 4))
    assert found is not None
    (constant,) = [i for i in found.entry.instructions if i.opcode == "constant"]
    assert constant.attributes["literal"].array.tolist() == [[1, 2], [3, 4], [1, 2], [3, 4]]


@pytest.mark.parametrize("body", [
    "x = f32[2,4] parameter(0)\n ROOT c = f32[4,4] concatenate(x, x), dimensions={0}",
    "x = f32[2,4] parameter(0)\n ROOT s = f32[1,4] slice(x), slice={[0:1], [0:4]}",
])
def test_dimensions_that_end_are_left_or_refused(body):
    found = shapes(body, BATCH)
    assert found is None or found["x"] == (6, 4)


LAYERS = """
  state = f32[2,4,8] parameter(0)
  x = f32[4,8] parameter(1)
  first = f32[1,4,8] slice(state), slice={[0:1], [0:4], [0:8]}
  h = f32[4,8] reshape(first)
  ROOT s = f32[4,8] add(x, h)"""


def test_what_is_taken_apart_counts_no_samples():
    assert resized(module(LAYERS), Resize(((0, 0),), 2, 6)) is not None
    assert resized(module(LAYERS), Resize(((0, 0),), 2, 6, of_samples=True)) is None
    assert resized(module(LAYERS), Resize(((0, 1), (1, 0)), 4, 8, of_samples=True)) is not None


def test_what_would_change_a_weight_is_refused():
    text = """
  x = f32[2,16] parameter(0)
  w = f32[16,4] parameter(1)
  ROOT y = f32[2,4] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}"""
    assert resized(module(text), Resize(((0, 1),), 16, 8)) is not None
    assert resized(module(text), Resize(((0, 1),), 16, 8), frozenset((1,))) is None


def test_samples_that_are_mixed_are_refused():
    assert shapes("""
  x = f32[2,3] parameter(0)
  mixed = f32[3,2] reshape(x)
  ROOT n = f32[3,2] negate(mixed)""", BATCH) is None
