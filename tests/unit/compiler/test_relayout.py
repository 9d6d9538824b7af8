"""Which modules are turned exactly unless told otherwise."""

from __future__ import annotations

import pytest

from nxcc.compiler.console.progress import Journal
from nxcc.compiler.driver import Build, Source, compile_module, lowering_of
from nxcc.compiler.options import options_from
from nxcc.compiler.reports.report_text import build_lines
from nxcc.compiler.session import build_report
from nxcc.ir.hlo.text.reader import read_text


def compiled(rows: int, level: str = "2", relayout: str = "", dtype: str = "f32") -> Build:
    """Two products that read rows * 128 + 128 * 128 elements each."""
    module = read_text(f"""HloModule m
ENTRY e {{ x = {dtype}[{rows},128] parameter(0)
  w = {dtype}[128,128] parameter(1)
  y = {dtype}[{rows},128] dot(x, w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  t = {dtype}[{rows},128] negate(y)
  ROOT z = {dtype}[{rows},128] dot(t, w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}} }}""")
    return compile_module(module, options_from(optlevel=level, relayout=relayout), Source())


@pytest.mark.parametrize(("rows", "relayout", "exact"), [(128, "", True), (129, "", False), (129, "exact", True),
                                                         (64, "fast", False)])
def test_small_modules_turn_bits(rows: int, relayout: str, exact: bool) -> None:
    build = compiled(rows, relayout=relayout)
    assert lowering_of(build).exact_transposes == exact
    report = build_report(build, Journal(quiet=True))
    assert report["spreading_products"] == (0 if exact else 2)
    assert any("--relayout exact" in line for line in build_lines(report)) != exact


def test_nothing_is_turned_by_a_product_at_level_0_or_in_integers() -> None:
    assert build_report(compiled(1000, "0"), Journal(quiet=True))["spreading_products"] == 0
    assert build_report(compiled(1000, dtype="s8"), Journal(quiet=True))["spreading_products"] == 0
