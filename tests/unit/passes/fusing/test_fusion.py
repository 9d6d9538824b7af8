"""What comes together into row programs, and what must not."""

from nxcc.backends.capability.rows import TargetRowCapacity
from nxcc.backends.target import load_target
from nxcc.ir.hlo.marks import ROWS
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.rowspace import maps_of, row_map
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.verifier import verify
from nxcc.passes.fusing.fusion import MEMBERS_MAX, Fusion

from harness.combiners import combiner

COMBINERS = "HloModule m\n" + combiner("add", "add") + combiner("larger", "maximum") + "ENTRY e {\n"


def fused(body: str) -> Module:
    module = read_text(COMBINERS + body + "\n}")
    Fusion(TargetRowCapacity(load_target("v2"))).run(module)
    verify(module)
    for instruction in module.entry.instructions:
        if instruction.opcode == "fusion":
            inner = instruction.called[0]
            rows = int(instruction.frontend_attributes[ROWS])
            assert maps_of(inner.post_order(), {inner.root: row_map(inner.root, rows)}) is not None
    return module


def opcodes(module: Module) -> list[str]:
    return sorted(i.opcode for i in module.entry.instructions if i.opcode != "parameter")


def test_regions_of_a_long_chain_stay_small() -> None:
    steps = "\n".join(f" x{n + 1} = f32[8,8] add(x{n}, y)" for n in range(600))
    module = fused(f" x0 = f32[8,8] parameter(0)\n y = f32[8,8] parameter(1)\n{steps}\n ROOT r = f32[8,8] negate(x600)")
    sizes = [len(i.called[0].instructions) for i in module.entry.instructions if i.opcode == "fusion"]
    assert len(sizes) == 5 and max(sizes) <= MEMBERS_MAX + 2


def test_attention_is_one_region() -> None:
    module = fused("""
 q = f32[2,16,8] parameter(0)
 k = f32[2,8,16] parameter(1)
 v = f32[2,16,8] parameter(2)
 s = f32[2,16,16] dot(q, k), lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_contracting_dims={1}
 low = f32[] constant(-inf)
 zero = f32[] constant(0)
 m = f32[2,16] reduce(s, low), dimensions={2}, to_apply=larger
 mb = f32[2,16,16] broadcast(m), dimensions={0,1}
 d = f32[2,16,16] subtract(s, mb)
 x = f32[2,16,16] exponential(d)
 t = f32[2,16] reduce(x, zero), dimensions={2}, to_apply=add
 tb = f32[2,16,16] broadcast(t), dimensions={0,1}
 p = f32[2,16,16] divide(x, tb)
 ROOT o = f32[2,16,8] dot(p, v), lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_contracting_dims={1}""")
    assert opcodes(module) == ["fusion"]


def test_product_with_one_matrix_takes_its_left_side_from_outside() -> None:
    module = fused("""
 x = f32[16,64] parameter(0)
 w = f32[64,32] parameter(1)
 y = f32[16,64] tanh(x)
 z = f32[16,64] multiply(y, y)
 d = f32[16,32] dot(z, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
 ROOT r = f32[16,32] tanh(d)""")
    assert opcodes(module) == ["fusion", "fusion"]


def test_one_value_read_along_two_rows_comes_in_twice() -> None:
    module = fused("""
 p = f32[8,2] parameter(0)
 a = f32[8,8,2] broadcast(p), dimensions={0,2}
 b = f32[8,8,2] broadcast(p), dimensions={1,2}
 m = f32[8,8,2] maximum(a, b)
 ROOT r = f32[8,8,2] multiply(m, m)""")
    assert opcodes(module)[-1] == "fusion"


def test_value_with_some_of_the_columns_comes_in_repeated() -> None:
    module = fused("""
 p = f32[8,5] parameter(0)
 q = f32[8,5,3] parameter(1)
 t = f32[8,5] tanh(p)
 zero = f32[] constant(0)
 s = f32[8] reduce(q, zero), dimensions={1,2}, to_apply=add
 sb = f32[8,5,3] broadcast(s), dimensions={0}
 b = f32[8,5,3] broadcast(t), dimensions={0,1}
 m = f32[8,5,3] multiply(q, b)
 ROOT r = f32[8,5,3] subtract(m, sb)""")
    inner = next(i for i in module.entry.instructions if i.opcode == "fusion" and i.shape.rank == 3).called[0]
    assert not any(i.opcode == "tanh" for i in inner.instructions)


def test_matrices_that_stay_for_many_rows_leave_room_for_the_rows() -> None:
    """One of 12 MiB stays, a second beside it would not; with a single tile of rows none has to stay."""
    def gated(rows: int) -> list[str]:
        return opcodes(fused(f"""
  x = f32[{rows},1024] parameter(0)
  u = f32[1024,3072] parameter(1)
  v = f32[1024,3072] parameter(2)
  a = f32[{rows},3072] dot(x, u), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  b = f32[{rows},3072] dot(x, v), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  g = f32[{rows},3072] logistic(a)
  ROOT r = f32[{rows},3072] multiply(g, b)"""))

    assert gated(4096) == ["dot", "fusion"]
    assert gated(128) == ["fusion"]


def test_rows_of_groups_are_not_cut_short() -> None:
    """One number a group and one a channel: rows are channels, with all places of an image as columns."""
    module = fused("""
 x = f32[1,4,8,32,32] parameter(0)
 g = f32[4] parameter(1)
 c = f32[4,8] parameter(2)
 b = f32[1,4,8,32,32] broadcast(g), dimensions={1}
 s = f32[1,4,8,32,32] subtract(x, b)
 d = f32[1,4,8,32,32] broadcast(c), dimensions={1,2}
 ROOT r = f32[1,4,8,32,32] multiply(s, d)""")
    assert [i.frontend_attributes[ROWS] for i in module.entry.instructions if i.opcode == "fusion"] == ["3"]


def test_a_small_conversion_of_what_no_region_makes_belongs_to_the_product() -> None:
    module = fused("""
 x = f32[1,4,8] parameter(0)
 w = bf16[8,6] parameter(1)
 first = f32[1,1,8] slice(x), slice={[0:1], [0:1], [0:8]}
 row = f32[1,8] reshape(first)
 c = bf16[1,8] convert(row)
 p = f32[1,6] dot(c, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
 ROOT t = f32[1,6] tanh(p)""")
    assert "convert" not in opcodes(module) and "fusion" in opcodes(module)
