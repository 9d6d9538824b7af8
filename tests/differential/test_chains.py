"""Chains of row programs against the oracle, in the strict simulator: one tile of rows, several, and parts of tiles."""

from __future__ import annotations

import pytest

from nxcc.compiler.driver import compile_module
from nxcc.compiler.options import CompileOptions
from nxcc.ir.hlo.text.reader import read_text

from harness.combiners import combiner
from harness.whole import check_whole

ADD = combiner("add", "add")
MAX = combiner("max", "maximum")


def norm(x: str, rows: str, width: int, n: str) -> str:
    """Layer norm of %x, without scale, as %n; rows: of the shape."""
    full, row = f"f32[{rows},{width}]", f"f32[{rows}]"
    last, outer = rows.count(",") + 1, ",".join(map(str, range(rows.count(",") + 1)))
    return f"""
  %sum{n} = {row} reduce(%{x}, %zero), dimensions={{{last}}}, to_apply=%add
  %count{n} = f32[] constant({width})
  %counts{n} = {row} broadcast(%count{n}), dimensions={{}}
  %mean{n} = {row} divide(%sum{n}, %counts{n})
  %means{n} = {full} broadcast(%mean{n}), dimensions={{{outer}}}
  %c{n} = {full} subtract(%{x}, %means{n})
  %sq{n} = {full} multiply(%c{n}, %c{n})
  %var{n} = {row} reduce(%sq{n}, %zero), dimensions={{{last}}}, to_apply=%add
  %v{n} = {row} divide(%var{n}, %counts{n})
  %eps{n} = f32[] constant(0.001)
  %epss{n} = {row} broadcast(%eps{n}), dimensions={{}}
  %ve{n} = {row} add(%v{n}, %epss{n})
  %r{n} = {row} rsqrt(%ve{n})
  %rs{n} = {full} broadcast(%r{n}), dimensions={{{outer}}}
  %{n} = {full} multiply(%c{n}, %rs{n})"""


def block(rows: str, width: int, inner: int, out: int, cast: str = "f32") -> str:
    """Projection, residual and norm; two products with a function between; residual and norm; a projection of that."""
    wide, full = f"f32[{rows},{inner}]", f"f32[{rows},{width}]"
    last = rows.count(",") + 1
    sums = f"lhs_contracting_dims={{{last}}}, rhs_contracting_dims={{0}}"

    def left(name: str, shape: str) -> str:
        return f"\n  %{name}l = {shape.replace('f32', cast)} convert(%{name})" if cast != "f32" else ""
    text = f"""HloModule block
{ADD}
ENTRY main {{
  %zero = f32[] constant(0)
  %x = {cast}[{rows},{width}] parameter(0)
  %res = {full} parameter(1)
  %w0 = {cast}[{width},{width}] parameter(2)
  %w1 = {cast}[{width},{inner}] parameter(3)
  %b1 = f32[{inner}] parameter(4)
  %w2 = {cast}[{inner},{width}] parameter(5)
  %b2 = f32[{width}] parameter(6)
  %w3 = {cast}[{width},{out}] parameter(7)
  %p0 = {full} dot(%x, %w0), {sums}
  %a0 = {full} add(%p0, %res){norm("a0", rows, width, "n0")}{left("n0", full)}
  %p1 = {wide} dot(%n0l, %w1), {sums}
  %b1s = {wide} broadcast(%b1), dimensions={{{last}}}
  %a1 = {wide} add(%p1, %b1s)
  %t1 = {wide} tanh(%a1){left("t1", wide)}
  %p2 = {full} dot(%t1l, %w2), {sums}
  %b2s = {full} broadcast(%b2), dimensions={{{last}}}
  %a2 = {full} add(%p2, %b2s)
  %a3 = {full} add(%a2, %n0){norm("a3", rows, width, "n1")}{left("n1", full)}
  %p3 = f32[{rows},{out}] dot(%n1l, %w3), {sums}
  %t3 = f32[{rows},{out}] tanh(%p3)
  ROOT %o = (f32[{rows},{out}], {full}) tuple(%t3, %n1)
}}
"""
    return text if cast != "f32" else text.replace("%n0l", "%n0").replace("%n1l", "%n1").replace("%t1l", "%t1")


CASES = {
    "one tile": ("20", 64, 128, 48),
    "a full tile": ("1,128", 64, 256, 64),
    "two tiles and a part": ("3,100", 64, 128, 48),
    "four tiles of almost as many rows": ("394", 64, 128, 48),
    "a loop over tiles": ("7,128", 32, 128, 32),
    "a loop and a part": ("2,520", 32, 128, 32),
    "depths that do not fill partitions": ("2,128", 96, 160, 40),
}


@pytest.mark.parametrize("case", CASES)
def test_blocks_are_one_region(case: str) -> None:
    build = compile_module(read_text(block(*CASES[case])), CompileOptions(optlevel="1"))
    assert build.code is not None
    assert [region.instruction for region in build.code.regions if region.opcode != "copy"] == ["t3.fused.chain"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cast", ["f32", "bf16"])
def test_blocks(case: str, cast: str) -> None:
    check_whole(block(*CASES[case], cast=cast), levels=("1",), strict=True)


def attention(rows: int, heads: int, size: int, batch: int = 1) -> str:
    """The block above behind attention with so many heads, each of so many columns."""
    width, keys = heads * size, f"f32[{batch},{heads},{rows},{rows}]"
    x, each, row = f"bf16[{batch},{rows},{width}]", f"bf16[{batch},{heads},{rows},{size}]", f"f32[{batch},{heads},{rows}]"
    heads_ = "lhs_batch_dims={0,1}, rhs_batch_dims={0,1}"
    text = ""
    for number, name in ((8, "q"), (9, "k"), (10, "v")):
        text += f"""
  %{name} = {x} parameter({number})
  %{name}4 = bf16[{batch},{rows},{heads},{size}] reshape(%{name})
  %{name}t = {each} transpose(%{name}4), dimensions={{0,2,1,3}}"""
    text += f"""
  %s = {keys} dot(%qt, %kt), {heads_}, lhs_contracting_dims={{3}}, rhs_contracting_dims={{3}}
  %least = f32[] constant(-inf)
  %m = {row} reduce(%s, %least), dimensions={{3}}, to_apply=%max
  %ms = {keys} broadcast(%m), dimensions={{0,1,2}}
  %d = {keys} subtract(%s, %ms)
  %e = {keys} exponential(%d)
  %t = {row} reduce(%e, %zero), dimensions={{3}}, to_apply=%add
  %ts = {keys} broadcast(%t), dimensions={{0,1,2}}
  %p = {keys} divide(%e, %ts)
  %pc = {keys.replace("f32", "bf16")} convert(%p)
  %o4 = f32[{batch},{heads},{rows},{size}] dot(%pc, %vt), {heads_}, lhs_contracting_dims={{3}}, rhs_contracting_dims={{2}}
  %oc = {each} convert(%o4)
  %ot = bf16[{batch},{rows},{heads},{size}] transpose(%oc), dimensions={{0,2,1,3}}
  %x = {x} reshape(%ot)"""
    head, entry = block(f"{batch},{rows}", width, 2 * width, width, "bf16").split("ENTRY")
    entry = entry.replace(f"\n  %x = {x} parameter(0)", text).replace("parameter(10)", "parameter(0)")
    return head + MAX + "ENTRY" + entry


@pytest.mark.parametrize("rows", [96, 128, 197])
def test_attention_belongs_to_the_line_that_multiplies_it(rows: int) -> None:
    build = compile_module(read_text(attention(rows, 4, 32)), CompileOptions(optlevel="2"))
    assert build.code is not None
    regions = [region.instruction for region in build.code.regions if region.opcode != "copy"]
    assert regions == ["n1.fused.chain", "n1l", "t3.fused"]
    check_whole(attention(rows, 4, 32), levels=("1", "2"), strict=True)


def test_attention_with_a_mask_for_each_row_stands_alone() -> None:
    """As a decoder has it: in the line it took 1.6 times as long."""
    text = attention(96, 4, 32)
    text = text.replace("  %least =", """  %seen = pred[96,96] parameter(10)
  %sees = pred[1,4,96,96] broadcast(%seen), dimensions={2,3}
  %never = f32[] constant(-1e9)
  %nevers = f32[1,4,96,96] broadcast(%never), dimensions={}
  %chosen = f32[1,4,96,96] select(%sees, %s, %nevers)
  %least =""").replace("reduce(%s,", "reduce(%chosen,").replace("subtract(%s,", "subtract(%chosen,")
    build = compile_module(read_text(text), CompileOptions(optlevel="2"))
    assert build.code is not None
    assert len([region for region in build.code.regions if region.opcode != "copy"]) == 4
    check_whole(text, levels=("2",), strict=True)


@pytest.mark.parametrize("rows, batch", [(300, 1), (70, 2)])
def test_attention_before_a_line(rows: int, batch: int) -> None:
    check_whole(attention(rows, 2, 64, batch), levels=("2",), strict=True)


@pytest.mark.parametrize("target", ["v1", "v2"])
def test_levels_and_targets(target: str) -> None:
    check_whole(block("2,128", 64, 128, 48, "bf16"), target=target)


def test_members_without_columns_keep_the_rows_of_the_chain() -> None:
    """The second member alone would take rows of seven columns each, which the first does not make."""
    check_whole("""HloModule thin
ENTRY main {
  e = f32[2,7,1] parameter(0)
  b = f32[2,7,1] parameter(1)
  d = f32[2,7,1] divide(e, b)
  x = f32[2,7,1] parameter(2)
  w = f32[1,1] parameter(3)
  dot = f32[2,7,1] dot(x, w), lhs_contracting_dims={2}, rhs_contracting_dims={0}
  y = f32[2,7,1] parameter(4)
  add = f32[2,7,1] add(dot, y)
  sum = f32[2,7,1] add(d, add)
  ROOT out = (f32[2,7,1], f32[2,7,1]) tuple(sum, add)
}
""", levels=("1",), strict=True)


def scaled_product(rows: int, width: int, out: int) -> str:
    """A product of rows that their root mean square divides, of a sum."""
    full, row = f"f32[{rows},{width}]", f"f32[{rows}]"
    return f"""HloModule scaled
{ADD}
ENTRY main {{
  %zero = f32[] constant(0)
  %a = {full} parameter(0)
  %b = {full} parameter(1)
  %w = f32[{width},{out}] parameter(2)
  %x = {full} add(%a, %b)
  %sq = {full} multiply(%x, %x)
  %sum = {row} reduce(%sq, %zero), dimensions={{1}}, to_apply=%add
  %part = f32[] constant({1 / width})
  %parts = {row} broadcast(%part), dimensions={{}}
  %mean = {row} multiply(%sum, %parts)
  %root = {row} sqrt(%mean)
  %roots = {full} broadcast(%root), dimensions={{0}}
  %n = {full} divide(%x, %roots)
  ROOT %d = f32[{rows},{out}] dot(%n, %w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}
"""


@pytest.mark.parametrize("rows", [1024, 1300])
def test_a_product_follows_the_norm_of_many_rows(rows: int) -> None:
    text = scaled_product(rows, 160, 72)
    build = compile_module(read_text(text), CompileOptions(optlevel="2"))
    assert build.code is not None and [region.opcode for region in build.code.regions] == ["fusion"]
    check_whole(text, strict=True)


def test_a_product_of_few_rows_stands_alone_behind_a_norm() -> None:
    check_whole(scaled_product(300, 160, 72), strict=True)


@pytest.mark.parametrize("rows, heads, size", [(160, 12, 64), (230, 8, 64)])
def test_attention_of_uneven_tiles_has_room_before_a_line(rows: int, heads: int, size: int) -> None:
    """Runs of two tiles of rows of different heights take more than those of one."""
    build = compile_module(read_text(attention(rows, heads, size)), CompileOptions(optlevel="2"))
    assert build.code is not None
    assert [region.instruction for region in build.code.regions if region.opcode != "copy"][0] == "n1.fused.chain"


def two_products(rows: int, width: int, out: int, keeps_sum: bool) -> str:
    """A projection and its residual, a norm, and a wide product of that; keeps_sum: whether the sum is a result as well."""
    full, wide = f"f32[{rows},{width}]", f"f32[{rows},{out}]"
    sums = "lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    kept, shape = ("%a", full) if keeps_sum else ("%n", full)
    return f"""HloModule two_products
{ADD}
ENTRY main {{
  %zero = f32[] constant(0)
  %x = {full} parameter(0)
  %res = {full} parameter(1)
  %w0 = f32[{width},{width}] parameter(2)
  %w1 = f32[{width},{out}] parameter(3)
  %b1 = f32[{out}] parameter(4)
  %p = {full} dot(%x, %w0), {sums}
  %a = {full} add(%p, %res)
{norm("a", str(rows), width, "n")}
  %q = {wide} dot(%n, %w1), {sums}
  %bias = {wide} broadcast(%b1), dimensions={{1}}
  %s = {wide} add(%q, %bias)
  %t = {wide} tanh(%s)
  ROOT %both = ({wide}, {shape}) tuple(%t, {kept})
}}"""


@pytest.mark.parametrize("rows", [640, 700])
@pytest.mark.parametrize("keeps_sum", [False, True])
def test_the_norm_of_one_tile_runs_beside_the_product_of_another(rows: int, keeps_sum: bool) -> None:
    text = two_products(rows, 256, 2100, keeps_sum)
    build = compile_module(read_text(text), CompileOptions(optlevel="2"))
    assert build.code is not None and [r.instruction[-5:] for r in build.code.regions if r.opcode != "copy"] == ["chain"]
    check_whole(text, levels=("2",), strict=True)
