"""Modules that once broke the compiler, reduced; each is small, and no stage must stumble over its like."""

from __future__ import annotations

import pytest

from nxcc.compiler.options import CompileOptions
from nxcc.ir.hlo.text.reader import read_text

from harness.passwise import run_verified
from harness.whole import check_whole

MODULES = {
    # bytes in the opposite order, of which a tile holds several short dimensions: all before the last were taken for rows
    "many_short_reversals": """
ENTRY e { x = u8[512,1,2,2,2] parameter(0)
  ROOT r = u8[512,1,2,2,2] reverse(x), dimensions={2,4} }""",
    # a product whose batches have size 1, read without them: rows that are none were looked for
    "batches_of_one_left_out": """
ENTRY e { x = f32[1,1,1] parameter(0)
  y = f32[1,1,1] parameter(1)
  u = f32[3,1,4,7] parameter(2)
  v = f32[3,1,7,6] parameter(3)
  d = f32[1,1,1] dot(x, y), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={1}
  q = f32[1] reshape(d)
  a = f32[1] exponential(q)
  p = f32[3,1,4,6] dot(u, v), lhs_batch_dims={0,1}, lhs_contracting_dims={3}, rhs_batch_dims={0,1}, rhs_contracting_dims={2}
  n = f32[3,1,4,6] abs(p)
  o = f32[3,4,6] reshape(n)
  w = f32[3,4,6] exponential(o)
  ROOT t = (f32[1], f32[3,4,6]) tuple(a, w) }""",
    # zeros for what nobody sends, in a type that has no zero: its bytes are
    "nothing_sent_in_powers_of_two": """
ENTRY e { x = f8e8m0fnu[3,1] parameter(0)
  ROOT c = f8e8m0fnu[3,1] collective-permute(x), source_target_pairs={} }""",
    # a constant that ordered others was folded away, and a node's copy of the body looked for it
    "order_over_folded_constants": """
body { s = (s32[], f32[3]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  x = f32[3] get-tuple-element(s), index=1
  t = token[] after-all()
  one = s32[] constant(1)
  two = s32[] constant(2)
  three = s32[] add(one, two)
  j = s32[] add(i, three), control-predecessors={one}
  o = token[] outfeed(x, t), outfeed_shape=f32[3], control-predecessors={two}
  ROOT r = (s32[], f32[3]) tuple(j, x) }
cond { s = (s32[], f32[3]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  n = s32[] constant(6)
  ROOT c = pred[] compare(i, n), direction=LT }
ENTRY e { x = f32[3] parameter(0)
  z = s32[] constant(0)
  s = (s32[], f32[3]) tuple(z, x)
  ROOT w = (s32[], f32[3]) while(s), condition=cond, body=body }""",
    # a pooled image of one place and one channel became a scalar, which is no image
    "scalar_made_of_an_image": """
total { a = f16[] parameter(0)
  b = f16[] parameter(1)
  ROOT s = f16[] add(a, b) }
ENTRY e { x = f16[1,2,2,1] parameter(0)
  k = f16[1,1,1,1] parameter(1)
  c = f16[1,2,4,1] convolution(x, k), window={size=1x1 pad=0_0x1_1}, dim_labels=b01f_01io->b01f
  z = f16[] constant(0)
  r = f16[1,1] reduce(c, z), dimensions={1,2}, to_apply=total
  ROOT b = f16[1,2,2,1] broadcast(r), dimensions={0,3} }""",
    # a constant among the operands took the other's sizes, and then the other took the constant's
    "constant_beside_a_reshape": """
ENTRY e { a = bf16[1,4,1] parameter(0)
  b = bf16[1,4,1] parameter(1)
  c = bf16[1,4,2] concatenate(a, b), dimensions={2}
  x = bf16[1,8] reshape(c)
  w = bf16[2,8,1] constant({ { {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8} }, { {8}, {7}, {6}, {5}, {4}, {3}, {2}, {1} } })
  n = s32[2] constant({2, 0})
  ROOT r = bf16[1,1] ragged-dot(x, w, n), lhs_contracting_dims={1}, rhs_contracting_dims={1}, lhs_ragged_dims={0},
    rhs_group_dims={0} }""",
    "choice_between_tuples": """
ENTRY e { a = f32[3] parameter(0)
  b = f32[3] parameter(1)
  p = pred[] parameter(2)
  i = s32[] constant(7)
  x = (f32[3], (f32[3], s32[])) tuple(a, (f32[3], s32[]) tuple(b, i))
  y = (f32[3], (f32[3], s32[])) tuple(b, (f32[3], s32[]) tuple(a, i))
  ROOT s = (f32[3], (f32[3], s32[])) select(p, x, y) }""",
    # one row of more elements than a dimension of an access pattern holds
    "row_of_65536_columns": """
least { a = f16[] parameter(0)
  b = f16[] parameter(1)
  ROOT m = f16[] minimum(a, b) }
ENTRY e { x = f16[256,256] parameter(0)
  z = f16[] constant(0)
  m = f16[] reduce(x, z), dimensions={0,1}, to_apply=least
  ROOT c = f32[] convert(m) }""",
    # a result that no device node can hold went to the last one
    "constant_result_of_a_host_type": """
ENTRY e { x = f32[1] parameter(0)
  c = c64[1,1] constant({ {(-0.5, 0.25)} })
  y = f32[1] negate(x)
  ROOT t = (c64[1,1], f32[1]) tuple(c, y) }""",
    # known without running: the count, and what is handed on
    "loop_that_only_counts": """
next { s = (s32[], f32[3], s32[]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  x = f32[3] get-tuple-element(s), index=1
  n = s32[] get-tuple-element(s), index=2
  three = s32[] constant(-3)
  j = s32[] add(i, three)
  ROOT t = (s32[], f32[3], s32[]) tuple(j, x, n) }
more { s = (s32[], f32[3], s32[]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  n = s32[] get-tuple-element(s), index=2
  ROOT c = pred[] compare(i, n), direction=GE }
ENTRY e { x = f32[3] parameter(0)
  i = s32[] constant(20)
  n = s32[] constant(-41)
  s = (s32[], f32[3], s32[]) tuple(i, x, n)
  w = (s32[], f32[3], s32[]) while(s), condition=more, body=next
  j = s32[] get-tuple-element(w), index=0
  y = f32[3] get-tuple-element(w), index=1
  ROOT t = (s32[], f32[3]) tuple(j, y) }""",
    # what only marks, pins or places an array
    "markers": """
ENTRY e { x = f32[4] parameter(0)
  s = f32[4] custom-call(x), custom_call_target="Sharding"
  n = f32[4] negate(s)
  p = b(f32[4]) custom-call(n), custom_call_target="Pin", output_to_operand_aliasing={{}: (0, {})}
  u = f32[4] custom-call(p), custom_call_target="Unpin", output_to_operand_aliasing={{}: (0, {})}
  ROOT h = f32[4] custom-call(u), custom_call_target="MoveToHost" }""",
    "scan_of_one_result": """
step { x = f32[3] parameter(0)
  n = f32[3] negate(x)
  ROOT t = (f32[3]) tuple(n) }
ENTRY e { x = f32[5,3] parameter(0)
  ROOT s = f32[5,3] scan(x), dimensions={0}, num_carries=0, to_apply=step }""",
    # a row program wants rows: this product has none
    "vector_by_matrix": """
ENTRY e { x = f32[5] parameter(0)
  w = f32[5,17] parameter(1)
  n = f32[5] negate(x)
  d = f32[17] dot(n, w), lhs_contracting_dims={0}, rhs_contracting_dims={0}
  t = f32[17] tanh(d)
  ROOT e = f32[17] exponential(t) }""",
    # sums lie in PSUM, which GpSimd does not reach; the maximum before its power is Vector's, and joined
    "root_of_a_product": """
ENTRY e { x = f32[130,16,1,4] parameter(0)
  y = f32[1,130,1] parameter(1)
  d = f32[1,16,4,1] dot(x, y), lhs_batch_dims={2}, lhs_contracting_dims={0}, rhs_batch_dims={0}, rhs_contracting_dims={1}
  ROOT s = f32[1,16,4,1] sqrt(d) }""",
    # integers are cut into bytes block by block of channels: the last one is not full, or there is none
    "integer_convolution_of_129_channels": """
ENTRY e { x = s32[1,3,3,129] parameter(0)
  k = s32[3,3,129,5] parameter(1)
  ROOT c = s32[1,3,3,5] convolution(x, k), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f }""",
    "integer_convolution_without_channels": """
ENTRY e { x = s8[2,0,7] parameter(0)
  k = s8[4,0,3] parameter(1)
  ROOT c = s8[2,4,5] convolution(x, k), window={size=3}, dim_labels=bf0_oi0->bf0 }""",
    "several_reductions_over_no_dimension": """
both { a = f16[] parameter(0)
  i = s32[] parameter(1)
  b = f16[] parameter(2)
  j = s32[] parameter(3)
  less = pred[] compare(a, b), direction=LT
  c = f16[] select(less, a, b)
  k = s32[] select(less, i, j)
  ROOT t = (f16[], s32[]) tuple(c, k) }
ENTRY e { x = f16[15] parameter(0)
  i = s32[15] iota(), iota_dimension=0
  most = f16[] constant(0.25)
  no = s32[] constant(-1)
  ROOT r = (f16[15], s32[15]) reduce(x, i, most, no), dimensions={}, to_apply=both }""",
    # an address of SBUF with more loops than an instruction has terms for: partitions and bytes were added up in one register
    "sum_over_every_second_of_eight_dimensions": """
add { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = f32[] add(a, b) }
ENTRY e { x = f32[2,3,2,3,2,2,2,3] parameter(0)
  z = f32[] constant(0)
  ROOT r = f32[3,3,2,3] reduce(x, z), dimensions={0,2,4,6}, to_apply=add }""",
    # what repeats has no stride, by which the side that lies together was told
    "broadcast_behind_what_lies_together": """
ENTRY e { x = bf16[35,131] parameter(0)
  ROOT b = bf16[3,35,131,12] broadcast(x), dimensions={1,2} }""",
    "norm_over_nothing": """
ENTRY e { x = f32[0,1,1] parameter(0)
  s = f32[1] constant({-5.75})
  ROOT n = (f32[0,1,1], f32[1], f32[1]) batch-norm-training(x, s, s), epsilon=0.0078125, feature_index=1 }""",
    "product_of_no_terms_and_its_root": """
ENTRY e { x = f32[5,0] parameter(0)
  y = f32[0,7] parameter(1)
  d = f32[5,7] dot(x, y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT s = f32[5,7] sqrt(d) }""",
    # more dimensions with windows than an instruction walks over
    "gradient_of_windows_in_six_dimensions": """
ge { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = pred[] compare(a, b), direction=GE }
add { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = f32[] add(a, b) }
ENTRY e { x = f32[3,3,2,4,2,4] parameter(0)
  s = f32[2,2,1,2,1,3] parameter(1)
  z = f32[] constant(1)
  ROOT r = f32[3,3,2,4,2,4] select-and-scatter(x, s, z), select=ge, scatter=add,
    window={size=2x3x2x2x2x2 stride=1x2x1x2x2x1 pad=0_0x1_1x0_0x0_0x0_0x0_0} }""",
    # a sum that comes with its terms: these are repeated along the columns before they are summed
    "sums_of_what_repeats": """
add { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = f32[] add(a, b) }
ENTRY e { x = f32[3,2] parameter(0)
  b = f32[3,2,5] broadcast(x), dimensions={0,1}
  s = f32[3,2,5] multiply(b, b)
  e = f32[3,2,5] exponential(b)
  z = f32[] constant(0)
  r = f32[3,2] reduce(s, z), dimensions={2}, to_apply=add
  q = f32[3,2] reduce(e, z), dimensions={2}, to_apply=add
  ROOT t = (f32[3,2], f32[3,2]) tuple(r, q) }""",
    # nine full tiles of rows: the tile after the next was turned ahead beyond the last full one
    "row_sums_of_nine_tiles_of_rows": """
add { a = bf16[] parameter(0)
  b = bf16[] parameter(1)
  ROOT c = bf16[] add(a, b) }
ENTRY e { x = bf16[3,2,196,130] parameter(0)
  w = bf16[130,2] parameter(1)
  d = bf16[3,2,196,2] dot(x, w), lhs_contracting_dims={3}, rhs_contracting_dims={0}
  z = bf16[] constant(0)
  ROOT r = bf16[3,2,196] reduce(d, z), dimensions={3}, to_apply=add }""",
    # the last tile of a chain whose left side needs no turning has fewer rows than it has room for
    "chain_over_repeated_rows": """
ENTRY e { x = f32[1,130] parameter(0)
  y = f32[3,2,129,130] parameter(1)
  b = f32[3,2,129,1] parameter(2)
  w = f32[128,1] parameter(3)
  n = f32[] constant(-0.25)
  r = f32[3,2,129,128] broadcast(n), dimensions={}
  d = f32[3,2,129,1] dot(r, w), lhs_contracting_dims={3}, rhs_contracting_dims={0}
  a = f32[3,2,129,1] add(d, b)
  f = f32[3,2,129,130] dot(a, x), lhs_contracting_dims={3}, rhs_contracting_dims={0}
  ROOT s = f32[3,2,129,130] add(f, y) }""",
    # a product whose rows another one multiplies by way of a transpose was taken for attention with heads
    "turned_rows_of_a_plain_product": """
ENTRY e { i = s32[] parameter(0)
  s = f32[2,2] parameter(1)
  w = f32[2,2] parameter(2)
  x = f32[2,2] parameter(3)
  y = f32[2,2] parameter(4)
  a = f32[2,2] dot(x, w), lhs_contracting_dims={0}, rhs_contracting_dims={0}
  b = f32[2,2] multiply(a, s)
  c = f32[2,2] dot(x, b), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  d = f32[2,2] multiply(c, s)
  q = f32[2,2] rsqrt(y)
  e = f32[2,2] multiply(d, q)
  f = f32[1,1] dynamic-slice(e, i, i), dynamic_slice_sizes={1,1}
  ROOT r = f32[2,2] dynamic-update-slice(d, f, i, i) }""",
    # what a chain's member handed to the next one was read outside in another shape, and once in its own
    "reshaped_results_within_a_chain": """
ENTRY e { x = f32[4,2,2] parameter(0)
  w = f32[2,2] parameter(1)
  y = f32[8,2] parameter(2)
  a = f32[8,2] dot(y, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  t = f32[] constant(0.1)
  u = f32[8,2] broadcast(t), dimensions={}
  b = f32[8,2] multiply(a, u)
  c = f32[4,2,2] reshape(b)
  d = f32[4,2,2] maximum(c, x)
  e = f32[4,2,2] add(d, c)
  f = f32[4,2,2] dot(e, c), lhs_batch_dims={0}, lhs_contracting_dims={1}, rhs_batch_dims={0}, rhs_contracting_dims={1}
  ROOT r = (f32[4,2,2], f32[4,2,2], f32[8,2]) tuple(f, c, b) }""",
    # one region took over the sum that another read, and a third then read what it was to be made from
    "two_makers_of_what_the_other_reads": """
ENTRY e { i = s32[] parameter(0)
  s = f32[200,200] parameter(1)
  a = f32[200,200] parameter(2)
  b = f32[100,200] parameter(3)
  c = f32[100,200] parameter(4)
  x = f32[200,200] parameter(5)
  y = f32[200,200] parameter(6)
  d = f32[200,200] concatenate(b, c), dimensions={0}
  e = f32[200,200] multiply(d, s)
  f = f32[100,100] dynamic-slice(e, i, i), dynamic_slice_sizes={100,100}
  g = f32[200,200] dynamic-update-slice(a, f, i, i)
  m = f32[200,200] minimum(x, g)
  n = f32[200,200] multiply(x, s)
  p = f32[200,200] add(y, n)
  q = f32[100,100] dynamic-slice(p, i, i), dynamic_slice_sizes={100,100}
  ROOT r = f32[200,200] dynamic-update-slice(m, q, i, i) }""",
    # each of two chains of regions would have read what the other makes
    "chains_that_read_each_other": """
larger { a = bf16[] parameter(0)
  b = bf16[] parameter(1)
  ROOT m = bf16[] maximum(a, b) }
ENTRY e { u = bf16[2,2] parameter(2)
  z = bf16[] constant(-3.004e+38)
  v = bf16[2,2] parameter(3)
  s = bf16[2,2] parameter(0)
  t = bf16[2,2] parameter(1)
  c = bf16[2,2] dot(u, u), lhs_contracting_dims={0}, rhs_contracting_dims={1}
  d = bf16[2,2] multiply(c, s)
  w = bf16[2,2] parameter(4)
  a = bf16[2,2] maximum(u, t)
  b = bf16[2,2] maximum(v, a)
  f = bf16[2,2] add(b, d)
  j = bf16[2,2] dot(b, d), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  g = bf16[2,2] multiply(f, s)
  k = bf16[2,2] multiply(j, s)
  l = bf16[2,2] dot(w, k), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  h = bf16[2] reduce(g, z), dimensions={0}, to_apply=larger
  i = bf16[2,2] broadcast(h), dimensions={1}
  ROOT r = bf16[2,2] add(i, l) }""",
    # a transfer began at another partition in each turn of a loop, and an engine was to begin there as well
    "sum_over_an_enlarged_image": """
add { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = f32[] add(a, b) }
ENTRY e { x = f32[2,14,14,5] parameter(0)
  y = f32[2,14,2,14,2,5] broadcast(x), dimensions={0,1,3,5}
  w = f32[2,28,28,5] reshape(y)
  z = f32[] constant(0)
  ROOT r = f32[2,5] reduce(w, z), dimensions={1,2}, to_apply=add }""",
    # of two phases of rows the second has one less, which a loop over strips did not know
    "transposed_convolution_of_odd_rows": """
ENTRY e { x = f32[2,3,34,34] parameter(0)
  w = f32[3,3,3,3] parameter(1)
  ROOT y = f32[2,3,67,67] convolution(x, w), window={size=3x3 pad=1_1x1_1 lhs_dilate=2x2}, dim_labels=bf01_01io->bf01 }""",
    # two operands whose reshapes moved down by turns, each time with one more dimension of size 1
    "reshapes_that_follow_each_other": """
ENTRY e { x = f32[1,14,14,4,2] parameter(0)
  y = f32[1,8] parameter(1)
  a = f32[1,14,14,8] reshape(x)
  z = f32[] constant(0)
  b = f32[1,14,14,8] broadcast(z), dimensions={}
  c = f32[1,14,14,8] maximum(a, b)
  d = f32[1,14,2,14,2,8] broadcast(c), dimensions={0,1,3,5}
  f = f32[1,28,28,8] reshape(d)
  g = f32[1,8] logistic(y)
  h = f32[1,28,28,8] broadcast(g), dimensions={0,3}
  ROOT r = f32[1,28,28,8] multiply(f, h) }""",
    # a repeated number was an image of a convolution and was added to the result as well
    "repeated_number_as_an_image": """
ENTRY e { k = f32[] constant(-26.5)
  b = f32[1,4,4,16] broadcast(k), dimensions={}
  w = f32[1,1,1,16] parameter(0)
  c = f32[1,4,4,16] convolution(b, w), window={size=1x1}, dim_labels=b01f_01io->b01f, feature_group_count=16
  ROOT a = f32[1,4,4,16] add(c, b) }""",
    # casts marked products that nobody reads, which were gone already
    "products_that_nobody_reads": """
ENTRY e { x = f32[8,8] parameter(0)
  w = f32[8,8] parameter(1)
  t = f32[8,8] tanh(x)
  d = f32[8,8] dot(t, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  g = f32[8,8] dot(d, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT r = f32[8,8] multiply(t, t) }""",
    # an image of one place was taken for one number for each channel once the convolution that makes it was outside
    "image_of_one_place": """
ENTRY e { x = bf16[1,1,1,48] parameter(0)
  w = bf16[12,3,3,48] parameter(1)
  v = bf16[48,1,1,48] parameter(2)
  c = f32[1,1,1,48] convolution(x, w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_i01o->b01f, feature_group_count=4
  h = bf16[1,1,1,48] convert(c)
  g = bf16[1,1,1,48] logistic(h)
  ROOT r = f32[1,1,1,48] convolution(g, v), window={size=1x1}, dim_labels=b01f_i01o->b01f }""",
    # of two products in a region the one with fewer batches took its matrices by the wrong rows
    "batches_of_two_products": """
ENTRY e { x = f32[2,2,1,2] parameter(0)
  y = f32[2,2,1,2] parameter(1)
  z = f32[2,2,1,2] parameter(2)
  s = f32[2,1,2,2] parameter(3)
  d = f32[2,1,2,2] dot(x, y), lhs_batch_dims={0,2}, lhs_contracting_dims={3}, rhs_batch_dims={0,2}, rhs_contracting_dims={3}
  q = f32[2,1,2,2] divide(d, s)
  ROOT r = f32[2,1,2,2] dot(q, z), lhs_batch_dims={0,1}, lhs_contracting_dims={3}, rhs_batch_dims={0,2},
    rhs_contracting_dims={1} }""",
}


@pytest.mark.parametrize("name", MODULES)
def test_module_agrees_at_every_level(name: str) -> None:
    check_whole("HloModule m\n" + MODULES[name])


@pytest.mark.parametrize("name", MODULES)
def test_every_pass_leaves_a_valid_module(name: str) -> None:
    for target in ("v1", "v2"):
        for level in "12":
            options = CompileOptions(optlevel=level, target=target, auto_cast="all")
            run_verified(read_text("HloModule m\n" + MODULES[name]), options)
