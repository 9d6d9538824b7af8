"""In which order a computation's instructions become code."""

from nxcc.backends.codegen.orders import in_order
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.text.reader import read_text

TEXT = """HloModule m
mask { m = f32[8] parameter(0)   ROOT n = f32[8] negate(m) }
work { a = f32[64,512] parameter(0)   ROOT b = f32[64,512] tanh(a) }
both { c = f32[64,512] parameter(0)   k = f32[8] parameter(1)   ROOT d = f32[64,512] negate(c) }
ENTRY e {
 x = f32[64,512] parameter(0)
 v = f32[8] parameter(1)
 first = f32[64,512] fusion(x), kind=kCustom, calls=work
 second = f32[64,512] fusion(first), kind=kCustom, calls=work
 little = f32[8] fusion(v), kind=kCustom, calls=mask
 ROOT r = f32[64,512] fusion(second, little), kind=kCustom, calls=both
}
"""


def names(module: Module, early: bool) -> list[str]:
    return [i.name for i in in_order(module.entry.post_order(), early) if i.opcode == "fusion"]


def test_a_little_region_that_waits_for_nothing_runs_first() -> None:
    module = read_text(TEXT)
    assert names(module, True) == ["little", "first", "second", "r"]


def test_in_other_computations_it_runs_where_it_is_read() -> None:
    module = read_text(TEXT)
    assert names(module, False) == ["first", "second", "little", "r"]
