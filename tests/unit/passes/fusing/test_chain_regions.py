"""Which row programs become a chain, and which stay apart."""

import numpy as np

from nxcc.ir.hlo.marks import CHAIN
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.verifier import verify
from nxcc.passes.fusing.chain_regions import ChainRegions, dissolve_chains
from nxcc.passes.fusing.fusion import Fusion
from nxcc.passes.fusing.merge_regions import MergeRegions

from harness.capacity import with_regions

HEAD = """HloModule m
ENTRY e {
 x = f32[6,8] parameter(0)
 w = f32[8,8] parameter(1)
 u = f32[8,8] parameter(2)
 p = f32[6,8] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
 q = f32[6,8] tanh(p)
"""


def chained(body: str) -> Module:
    return with_regions(HEAD + body + "\n}", Fusion, MergeRegions, ChainRegions)


def chains(module: Module) -> list[int]:
    """Members of each chain."""
    return [sum(i.opcode == "fusion" for i in fusion.called[0].instructions) for fusion in module.entry.instructions
            if CHAIN in fusion.frontend_attributes]


def test_a_product_of_what_another_made_follows_it() -> None:
    module = chained("""
 d = f32[6,8] dot(q, u), lhs_contracting_dims={1}, rhs_contracting_dims={0}
 t = f32[6,8] tanh(d)
 ROOT r = f32[6,8] add(t, q)""")
    assert chains(module) == [2]


def test_rows_may_have_another_shape() -> None:
    module = chained("""
 s = f32[2,3,8] reshape(q)
 d = f32[2,3,8] dot(s, u), lhs_contracting_dims={2}, rhs_contracting_dims={0}
 t = f32[2,3,8] tanh(d)
 ROOT r = (f32[2,3,8], f32[6,8]) tuple(t, q)""")
    assert chains(module) == [2]


def test_what_reads_the_rows_in_another_order_stays_apart() -> None:
    module = chained("""
 s = f32[8,6] reshape(q)
 v = f32[6,4] parameter(3)
 d = f32[8,4] dot(s, v), lhs_contracting_dims={1}, rhs_contracting_dims={0}
 ROOT t = f32[8,4] tanh(d)""")
    assert chains(module) == []


def test_what_depends_on_a_chain_by_another_way_stays_apart() -> None:
    module = chained("""
 c = f32[8,6] transpose(q), dimensions={1,0}
 m = f32[8,8] dot(c, c), lhs_contracting_dims={1}, rhs_contracting_dims={1}
 n = f32[8,8] reverse(m), dimensions={0}
 d = f32[6,8] dot(q, n), lhs_contracting_dims={1}, rhs_contracting_dims={0}
 ROOT t = f32[6,8] tanh(d)""")
    assert chains(module) == []


def test_two_chains_never_wait_for_each_other() -> None:
    """a1 -> b2 and b1 -> a2: each pair alone could be a chain, both at once would be a circle."""
    module = chained("""
 y = f32[6,8] parameter(3)
 b = f32[6,8] dot(y, u), lhs_contracting_dims={1}, rhs_contracting_dims={0}
 b1 = f32[6,8] cosine(b)
 b1r = f32[6,8] reverse(b1), dimensions={0}
 qr = f32[6,8] reverse(q), dimensions={0}
 a2 = f32[6,8] dot(q, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
 a3 = f32[6,8] add(a2, b1r)
 b2 = f32[6,8] dot(b1, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
 b3 = f32[6,8] add(b2, qr)
 ROOT r = (f32[6,8], f32[6,8]) tuple(a3, b3)""")
    assert len(chains(module)) == 1


def test_members_of_a_dissolved_chain_are_regions_again() -> None:
    module = chained("""
 d = f32[6,8] dot(q, u), lhs_contracting_dims={1}, rhs_contracting_dims={0}
 t = f32[6,8] tanh(d)
 ROOT r = (f32[6,8], f32[6,8]) tuple(t, q)""")
    assert chains(module) == [2]
    inputs = [np.random.default_rng(n).normal(size=p.shape.dims).astype(np.float32)
              for n, p in enumerate(module.entry.parameters)]
    wanted = flatten(evaluate(module, inputs))
    dissolve_chains(module.entry)
    verify(module)
    assert chains(module) == [] and sum(i.opcode == "fusion" for i in module.entry.instructions) == 2
    for got, want in zip(flatten(evaluate(module, inputs)), wanted, strict=True):
        np.testing.assert_array_equal(got, want)
