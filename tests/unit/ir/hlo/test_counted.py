"""Which results count only as far as another one says: as the module's attribute tells it, and what does not fit."""

import pytest

from nxcc.ir.diagnostics import CompileError
from nxcc.ir.hlo.counted import ATTRIBUTE, Counted, counted_of, declare_counted
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.text.writer import write_text

TEXT = """HloModule m
ENTRY main {
  x = f32[4,3] parameter(0)
  n = s32[] constant(2)
  ROOT r = (f32[4,3], s32[]) tuple(x, n)
}
"""


def test_what_is_declared_is_read_again_from_the_text() -> None:
    module = read_text(TEXT)
    assert counted_of(module) == ()
    declare_counted(module, [Counted(0, 1, 1)])
    assert counted_of(read_text(write_text(module))) == (Counted(0, 1, 1),)


@pytest.mark.parametrize("words", ["0:0", "0:0:1:1", "0:2:1", "0:0:0", "2:0:1", "0:0:7", "a:0:1", "0:-1:1", ",",
                                   "9" * 5000 + ":0:1"])
def test_what_does_not_fit_the_results_is_refused(words: str) -> None:
    module = read_text(TEXT)
    module.frontend_attributes[ATTRIBUTE] = words
    with pytest.raises(CompileError, match="does not fit the results"):
        counted_of(module)
