"""Whatever is done to HLO text, the reader yields a module that prints and reads again, or one kind of error."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from nxcc.ir.diagnostics import CompileError
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.text.writer import write_text

MODULES = (
    """HloModule m, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias) },
  entry_computation_layout={(f32[2,3]{1,0})->(f32[2], s32[])}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %r = f32[] add(%a, %b)
}

ENTRY %e (p: f32[2,3]) -> (f32[2], s32[]) {
  %p = f32[2,3]{1,0:T(8,128)S(1)} parameter(0), sharding={devices=[2,1]<=[2]}, metadata={op_name="a" source_line=3}
  %z = f32[] constant(-inf)
  %s = f32[2]{0} reduce(%p, /*index=1*/%z), dimensions={1}, to_apply=%add, backend_config={"a": "}"}
  %c = (s32[], c64[2,1]) constant((1, {{(1, nan)}, {(-0.5, 1e3)}})), frontend_attributes={x="y",z={1}}
  %g = s32[] get-tuple-element(%c), index=0, control-predecessors={%s}
  ROOT %t = (f32[2]{0}, s32[]) tuple(%s, %g)
}
""",
    """ENTRY e {
  p = f32[1,8,8,3] parameter(0)
  k = bf16[3,3,3,4] parameter(1)
  c = f32[1,4,4,4] convolution(p, f32[3,3,3,4] convert(k)), window={size=3x3 stride=2x2 pad=0_1x0_1}, dim_labels=b01f_01io->b01f
  s = ((f32[1,4,4,4]), f32[1,4,4,4], s32[]) negate-start(c)
  d = f32[1,4,4,4] negate-done(s)
  w = f32[1,4,4,4] fusion(d), kind=kLoop, calls={ a = f32[1,4,4,4] parameter(0) ROOT r = slice(a), slice={[0:1], [0:4:1]} }
  ROOT r = f32[3,4,4,4] pad(w, f32[] constant(0)), padding=0_2x0_0x0_0x0_0
}
""",
    """HloModule m

FileNames
1 "a.py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=1 function_name_id=1 line=3 end_line=3 column=4 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}

b { x = s32[] parameter(0) ROOT y = s32[] negate(x) }, execution_thread="t"
ENTRY e { i = s32[] parameter(0) ROOT r = s32[] conditional(i, i, i), branch_computations={b, { a = s32[] parameter(0) }},
  metadata={stack_frame_id=1} }
""")
PIECES = st.sampled_from((
    *"{}()[],=:%#\"'<>-_.x0\n\\/*", "1e99", "f32[", "{...}", "ROOT ", "constant(", "/*", "9" * 30, "\x00", "é"))


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A module with up to three places cut, replaced, doubled or filled."""
    text = draw(st.sampled_from(MODULES))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from((0, 0, 1, 3, 20, 100))))
        kind = draw(st.sampled_from(("replace", "double", "truncate")))
        if kind == "replace":
            text = text[:start] + draw(PIECES) + text[end:]
        elif kind == "double":
            text = text[:end] + text[start:end] + text[end:]
        else:
            text = text[:start]
    return text


@settings(max_examples=400, deadline=None)
@given(damaged())
def test_damaged_text_is_a_module_or_an_error(text: str) -> None:
    try:
        module = read_text(text)
    except CompileError as error:
        assert error.where.startswith("<text>:")
        return
    printed = write_text(module)
    assert write_text(read_text(printed)) == printed


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda s: s.encode()))
def test_any_bytes_are_a_module_or_an_error(data: bytes) -> None:
    try:
        read_text(data)
    except CompileError:
        return
