"""The comparison of modules says what differs."""

from __future__ import annotations

import pytest

from nxcc.ir.hlo.equality import modules_equal
from nxcc.ir.hlo.text.reader import read_text

TEXT = """HloModule m, input_output_alias={ {}: (0, {}, may-alias) }
add { a = f32[] parameter(0) b = f32[] parameter(1) ROOT r = f32[] add(a, b) }
ENTRY e {
  p = f32[2,3]{1,0} parameter(0), metadata={op_name="x"}
  c = f32[] constant(1.5)
  k = f32[2]{0} constant({0, 1})
  q = f32[] negate(c)
  t = f32[] add(q, q)
  s = f32[2]{0} reduce(p, t), dimensions={1}, to_apply=add
  ROOT r = f32[2]{0} subtract(s, k)
}
"""


@pytest.mark.parametrize(("old", "new", "said"), [
    ("HloModule m", "HloModule n", "name is"), ("may-alias", "must-alias", "aliases is"), ("op_name", "op_type", "location is"),
    ("f32[2,3]{1,0} p", "f32[2,3]{0,1} p", "entry layout is"), ("1.5", "2.5", "literal: 1 of 1 values differ"),
    ("{0, 1}", "{-0.0, 1}", "first [0]"), ("add(q, q)", "add(q, c)", "operands ['q', 'q'] against ['q', 'c']"),
    ("subtract", "add", "instruction r.1: subtract against add"), ("dimensions={1}", "dimensions={0}", "dimensions is"),
    ("  c = f32[] constant(1.5)\n", "  c = f32[] constant(1.5)\n  d = f32[] constant(2)\n", "instructions against"),
    ("ENTRY e", "ENTRY f", "named e against f"),
    ("ROOT r = f32[] add(a, b)", "ROOT r = f32[] multiply(a, b)", "computation add: instruction r: add against multiply")])
def test_difference_is_told(old: str, new: str, said: str) -> None:
    assert TEXT.count(old) >= 1
    assert said in str(modules_equal(read_text(TEXT), read_text(TEXT.replace(old, new))))


def test_definition_order_and_names_do_not_matter() -> None:
    lines = TEXT.splitlines(keepends=True)
    lines[3:6] = [lines[5], lines[4], lines[3]]
    other = "".join(lines)
    assert modules_equal(read_text(TEXT), read_text(other)) is None
    renamed = other.replace("ENTRY e", "ENTRY other").replace(" s = ", " u = ").replace("(s,", "(u,")
    assert modules_equal(read_text(TEXT), read_text(renamed)) is not None
    assert modules_equal(read_text(TEXT), read_text(renamed), names=False) is None


def test_notes_and_counts_can_be_left_out() -> None:
    other = TEXT.replace('"x"', '"y"').replace("HloModule m", "HloModule m, replica_count=2")
    assert modules_equal(read_text(TEXT), read_text(other), notes=False, counts=False) is None
    assert modules_equal(read_text(TEXT), read_text(other), notes=False) is not None


def test_missing_layout_is_row_major_and_order_of_a_schedule_counts() -> None:
    assert modules_equal(read_text(TEXT), read_text(TEXT.replace("f32[2,3]{1,0} p", "f32[2,3] p"))) is None
    scheduled = TEXT.replace("HloModule m", "HloModule m, is_scheduled=true")
    lines = scheduled.splitlines(keepends=True)
    lines[4], lines[5] = lines[5], lines[4]
    assert modules_equal(read_text(scheduled), read_text("".join(lines))) is not None


def test_stack_frames_are_compared_by_what_they_say() -> None:
    """Writers number functions anew: two entries of one name may become one."""
    tables = ('\nFileNames\n1 "a.py"\nFunctionNames\n{}\nFileLocations\n'
              "1 {{file_name_id=1 function_name_id={} line=3 end_line=3 column=4 end_column=9}}\n"
              "StackFrames\n1 {{file_location_id=1 parent_frame_id=1}}\n")
    text = TEXT.replace('op_name="x"', 'op_name="x" stack_frame_id=1').replace("may-alias) }", "may-alias) }{}")
    twice, once, other = (read_text(text.replace("}{}", "}" + tables.format(*names))) for names in (
        ('1 "f"\n2 "f"', 2), ('1 "f"', 1), ('1 "g"', 1)))
    assert modules_equal(twice, once) is None
    assert "stack frames are" in str(modules_equal(once, other))
