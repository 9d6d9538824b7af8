"""Which row programs become one, and which stay apart."""

import pytest

from nxcc.ir.hlo.module import Module
from nxcc.passes.fusing.fusion import Fusion
from nxcc.passes.fusing.merge_regions import MergeRegions

from harness.capacity import with_regions
from harness.combiners import combiner

HEAD = "HloModule m\n" + combiner("sum", "add") + """ENTRY e {
 x = f32[6,4] parameter(0)
 w = f32[4,4] parameter(1)
 u = f32[4,4] parameter(2)
 b = f32[4] parameter(3)
 bs = f32[6,4] broadcast(b), dimensions={1}
 p = f32[6,4] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
 q = f32[6,4] add(p, bs)
"""


def merged(body: str) -> Module:
    return with_regions(HEAD + body + "\n}", Fusion, MergeRegions)


def regions(module: Module) -> int:
    return sum(i.opcode == "fusion" for i in module.entry.instructions)


def test_products_of_one_left_side_are_one_region() -> None:
    module = merged("""
 d = f32[6,4] dot(x, u), lhs_contracting_dims={1}, rhs_contracting_dims={0}
 t = f32[6,4] tanh(d)
 ROOT r = (f32[6,4], f32[6,4]) tuple(q, t)""")
    assert regions(module) == 1


def test_a_region_that_another_reads_stays_apart() -> None:
    module = merged("""
 c = f32[4,6] transpose(q), dimensions={1,0}
 v = f32[4,4] dot(c, c), lhs_contracting_dims={1}, rhs_contracting_dims={1}
 d = f32[6,4] dot(x, v), lhs_contracting_dims={1}, rhs_contracting_dims={0}
 t = f32[6,4] tanh(d)
 ROOT r = (f32[6,4], f32[6,4]) tuple(q, t)""")
    assert regions(module) == 2


@pytest.mark.parametrize("read_elsewhere", [True, False])
def test_a_conversion_is_made_where_its_operand_is(read_elsewhere: bool) -> None:
    module = merged(f"""
 h = bf16[6,4] convert(q)
 g = bf16[4,6] transpose(h), dimensions={{1,0}}
 k = f32[4,6] transpose({'q' if read_elsewhere else 'x'}), dimensions={{1,0}}
 ROOT r = (bf16[4,6], f32[4,6]) tuple(g, k)""")
    assert "convert" not in {i.opcode for i in module.entry.instructions}


def test_a_sum_that_others_read_too_is_made_in_the_region_that_reads_it() -> None:
    module = merged("""
 y = f32[6,4] add(x, bs)
 zero = f32[] constant(0)
 m = f32[6] reduce(y, zero), dimensions={1}, to_apply=sum
 mb = f32[6,4] broadcast(m), dimensions={0}
 n = f32[6,4] subtract(y, mb)
 h = f32[6,4] exponential(n)
 t = f32[4,6] transpose(y), dimensions={1,0}
 g = f32[4,6] transpose(h), dimensions={1,0}
 ROOT r = (f32[4,6], f32[4,6]) tuple(g, t)""")
    assert "y" not in {i.name for i in module.entry.instructions}
    assert regions(module) == 1


def test_a_conversion_that_the_result_reads_is_made_where_its_operand_is() -> None:
    module = merged("""
 h = bf16[6,4] convert(q)
 v = bf16[4,4] convert(u)
 d = f32[6,4] dot(h, v), lhs_contracting_dims={1}, rhs_contracting_dims={0}
 ROOT t = f32[6,4] add(d, q)""")
    assert "h" not in {i.name for i in module.entry.instructions}
