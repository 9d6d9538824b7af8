"""Instructions of very many operands: one is replaced without touching the others."""

import pytest

from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import WIDE
from nxcc.ir.hlo.text.reader import read_text


@pytest.mark.parametrize("width", [3, WIDE, WIDE + 1, 3 * WIDE])
def test_replacing_an_operand(width):
    shape = "f32[2]{0}"
    module = read_text(f"""HloModule m
ENTRY %main (a: {shape}, b: {shape}) -> ({", ".join([shape] * width)}) {{
  %a = {shape} parameter(0)
  %b = {shape} parameter(1)
  ROOT %t = ({", ".join([shape] * width)}) tuple({", ".join("%b" if i % 3 else "%a" for i in range(width))})
}}
""")
    entry = module.entry
    a, b = entry.parameters
    new = Builder(entry).make("negate", b)
    entry.replace(a, new)
    assert [operand is new for operand in entry.root.operands] == [i % 3 == 0 for i in range(width)]
    assert not a.users and list(new.users) == [entry.root] and set(b.users) == {new, entry.root}
    assert entry.post_order().index(new) < entry.post_order().index(entry.root)
