"""Rows too long for the chip: reductions and what reads them are one region that passes over pieces of the columns."""

from __future__ import annotations

import pytest

from nxcc.compiler.driver import compile_module
from nxcc.compiler.options import CompileOptions
from nxcc.ir.hlo.text.reader import read_text

from harness.attention import COMBINERS, softmax
from harness.whole import check_whole

LONG = 12345


def module(lines: str, *parameters: str) -> str:
    given = "\n".join(f"  %p{n} = {shape} parameter({n})" for n, shape in enumerate(parameters))
    return f"HloModule m\n{COMBINERS}\nENTRY main {{\n{given}\n  %zero0 = f32[] constant(0)\n{lines}\n}}\n"


def softmax_of(rows: int, columns: int) -> str:
    x = f"f32[{rows},{columns}]"
    return module(f"{softmax((rows, columns), 'p0')}\n  ROOT %o = {x} negate(%p)", x)


def entropy(rows: int, columns: int) -> str:
    """Logarithm of a softmax, picked by labels, and its gradient: two results, the first of them one a row."""
    x, row = f"f32[{rows},{columns}]", f"f32[{rows}]"
    return module(f"""  %low = f32[] constant(-inf)
  %zero = f32[] constant(0)
  %one = f32[] constant(1)
  %most = {row} reduce(%p0, %low), dimensions={{1}}, to_apply=%max
  %mosts = {x} broadcast(%most), dimensions={{0}}
  %c = {x} subtract(%p0, %mosts)
  %e = {x} exponential(%c)
  %sum = {row} reduce(%e, %zero), dimensions={{1}}, to_apply=%add
  %log = {row} log(%sum)
  %logs = {x} broadcast(%log), dimensions={{0}}
  %l = {x} subtract(%c, %logs)
  %place = s32[{rows},{columns}] iota(), iota_dimension=1
  %labels = s32[{rows},{columns}] broadcast(%p1), dimensions={{0}}
  %own = pred[{rows},{columns}] compare(%place, %labels), direction=EQ
  %ones = {x} broadcast(%one), dimensions={{}}
  %zeros = {x} broadcast(%zero), dimensions={{}}
  %hot = {x} select(%own, %ones, %zeros)
  %picked = {x} multiply(%l, %hot)
  %loss = {row} reduce(%picked, %zero), dimensions={{1}}, to_apply=%add
  %p = {x} exponential(%l)
  %g = {x} subtract(%p, %hot)
  %losses = {x} broadcast(%loss), dimensions={{0}}
  ROOT %o = {x} add(%g, %losses)""", x, f"s32[{rows}]")


def norm(rows: int, dims: tuple[int, ...]) -> str:
    """Mean and variance over several dimensions, with a scale that is the same for all rows."""
    sizes = ",".join(map(str, dims))
    x, row, over = f"f32[{rows},{sizes}]", f"f32[{rows}]", ",".join(str(1 + d) for d in range(len(dims)))
    count = 1
    for size in dims:
        count *= size
    return module(f"""  %zero = f32[] constant(0)
  %n = f32[] constant({count})
  %ns = {row} broadcast(%n), dimensions={{}}
  %total = {row} reduce(%p0, %zero), dimensions={{{over}}}, to_apply=%add
  %mean = {row} divide(%total, %ns)
  %means = {x} broadcast(%mean), dimensions={{0}}
  %c = {x} subtract(%p0, %means)
  %q = {x} multiply(%c, %c)
  %qs = {row} reduce(%q, %zero), dimensions={{{over}}}, to_apply=%add
  %v = {row} divide(%qs, %ns)
  %tiny = f32[] constant(1e-5)
  %tinies = {row} broadcast(%tiny), dimensions={{}}
  %ve = {row} add(%v, %tinies)
  %r = {row} rsqrt(%ve)
  %rs = {x} broadcast(%r), dimensions={{0}}
  %u = {x} multiply(%c, %rs)
  %scales = {x} broadcast(%p1), dimensions={{{over}}}
  ROOT %o = {x} multiply(%u, %scales)""", x, f"f32[{sizes}]")


CASES = {"softmax": softmax_of(70, LONG), "softmax of several tiles": softmax_of(200, LONG),
         "softmax of rows that do not stay": softmax_of(64, 3 * LONG), "entropy": entropy(64, LONG),
         "norm": norm(64, (LONG,)), "norm over two dimensions": norm(64, (3, 4115)), "norm of images": norm(66, (110, 115))}


@pytest.mark.parametrize("case", CASES)
def test_long_rows_are_one_region(case: str) -> None:
    check_whole(CASES[case], levels=("2",), strict="several" in case)
    module = read_text(CASES[case])
    compile_module(module, CompileOptions(optlevel="2"))
    long = [i.opcode for i in module.entry.instructions if i.opcode != "parameter" and i.shape.element_count >= 64]
    assert [opcode for opcode in long if opcode != "iota"] == ["fusion"]


def test_a_row_as_long_as_no_stride_is_summed() -> None:
    check_whole(module("""  %e = f32[8,1,32768] exponential(%p0)
  %s = f32[8,1] reduce(%e, %zero0), dimensions={2}, to_apply=%add
  ROOT %r = f32[8,1] sqrt(%s)""", "f32[8,1,32768]"), levels=("2",))
