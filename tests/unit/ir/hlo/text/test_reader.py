"""What the reader makes of unusual text, and what it says of wrong text."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from nxcc.ir.diagnostics import (
    ELIDED_CONSTANT,
    EMPTY_INPUT,
    INVALID_MODULE,
    LIMIT_EXCEEDED,
    TEXT_SYNTAX,
    UNKNOWN_OPERATOR,
    Code,
    CompileError,
)
from nxcc.ir.hlo.equality import modules_equal
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.text.writer import write_text

DEEP = 20_000


def entry(*lines: str) -> str:
    return "HloModule m\nENTRY e {\n" + "\n".join("  " + line for line in lines) + "\n}\n"


def error(text: str | bytes) -> CompileError:
    with pytest.raises(CompileError) as caught:
        read_text(text, name="m.hlo")
    return caught.value


def root_shape(module: Module) -> str:
    return str(module.entry.root.shape)


def test_unknown_attribute_lists_those_allowed() -> None:
    found = error(entry("p = f32[4] parameter(0)", "ROOT r = f32[4] reverse(p), dimension={0}"))
    assert (found.code, found.where) == (TEXT_SYNTAX, "m.hlo:4:31")
    assert found.remedy == "did you mean dimensions?"
    assert "dimensions" in found.why and "sharding" in found.why
    assert found.details == ("  ROOT r = f32[4] reverse(p), dimension={0}", " " * 30 + "^")


def test_unknown_operator_names_the_nearest() -> None:
    found = error(entry("p = f32[4] parameter(0)", "ROOT r = f32[4] negative(p)"))
    assert (found.code, found.where, found.remedy) == (UNKNOWN_OPERATOR, "m.hlo:4:19", "did you mean negate?")


@pytest.mark.parametrize(("line", "what"), [
    ("ROOT r = f32[4,4] dot(p, p), operand_precision={hi,default}", "'hi' is no value of operand_precision"),
    ("ROOT r = c64[4] fft(p), fft_type=DCT, fft_length={4}", "'DCT' is no value of fft_type")])
def test_unknown_word_is_refused(line: str, what: str) -> None:
    assert error(entry("p = f32[4] parameter(0)", line)).what == what


def test_long_line_is_cut_around_the_fault() -> None:
    line = "ROOT r = f32[4] negate(p), " + 'metadata={op_name="' + "x" * 500 + '"}, foo=1'
    found = error(entry("p = f32[4] parameter(0)", line))
    excerpt, caret = found.details
    assert len(excerpt) <= 120 and excerpt[caret.index("^"):].startswith("foo=1")


def test_value_out_of_range_is_pointed_at() -> None:
    found = error(entry("ROOT c = s8[3] constant({1, 2, 300})"))
    assert (found.where, found.why) == ("m.hlo:3:34", "its values are -128 to 127")


@pytest.mark.parametrize(("text", "code"), [
    ("", EMPTY_INPUT), (b" \n", EMPTY_INPUT), ("HloModule m\x00", TEXT_SYNTAX), (b"\xff\xfe", TEXT_SYNTAX),
    (entry("p = f32[2] parameter(0)", "ROOT r = add(p)"), INVALID_MODULE),
    (entry("ROOT c = f32[20] constant({...})"), ELIDED_CONSTANT),
    (entry("ROOT c = (f32[20], s32[]) constant(({...}, 1))"), ELIDED_CONSTANT)])
def test_wrong_text_has_its_code(text: str | bytes, code: Code) -> None:
    assert error(text).code is code


@pytest.mark.parametrize("line", [
    "ROOT r = f32[] " + "add(" * DEEP, "ROOT r = f32[] " + "negate(" * DEEP + "p" + ")" * DEEP,
    "ROOT r = " + "(" * DEEP + "f32[]" + ")" * DEEP + " tuple()",
    "ROOT r = f32[] fusion(), " + "calls={ a = f32[] fusion(), " * DEEP,
    "t0 = f32[] constant(1) " + " ".join(f"t{i + 1} = tuple(t{i})" for i in range(200)),
    "t0 = f32[] constant(1) " + " ".join(f"t{i + 1} = tuple(t{i}, t{i})" for i in range(60)),
    "ROOT r = f32[" + "1," * DEEP + "1] constant(1)", "ROOT r = f32[" + "9" * 30 + "] parameter(0)",
    "ROOT r = f32[1000000000000] constant(1)", "ROOT r = f32[4] parameter(0), sharding={devices=[99999,99999]0,1}"],
    ids=["operands", "closed", "tuple-shape", "bodies", "tuples", "doubling", "rank", "dimension", "constant", "devices"])
def test_depth_and_size_are_limited(line: str) -> None:
    assert error(entry(line)).code is LIMIT_EXCEEDED


@pytest.mark.parametrize("line", [
    "ROOT r = f32[] constant(" + "{" * DEEP + "}" * DEEP + ")", "ROOT r = f32[] constant(" + "(" * DEEP + ")" * DEEP + ")",
    "ROOT r = f32[] parameter(0), sharding=" + "{" * DEEP + "}" * DEEP,
    "ROOT r = f32[] parameter(0), origin={" + "(" * DEEP + ")" * DEEP + "}",
    "ROOT r = f32[9000000000000000000,0] constant({})", "ROOT r = f32[1000000000000] constant({1})"],
    ids=["braces", "parentheses", "sharding", "origin", "empty", "few"])
def test_nonsense_of_any_depth_is_an_error(line: str) -> None:
    error(entry(line))


def test_log_prefixes_are_ignored_and_columns_kept() -> None:
    prefix = "I0521 12:04:45.883483    1509 service.cc:186] "
    lines = entry("p = f32[4] parameter(0)", "ROOT r = f32[4] negate(p)").splitlines()
    assert root_shape(read_text("\n".join(prefix + line for line in lines))) == "f32[4]"
    found = error("\n".join(prefix + line for line in lines).replace("negate", "negat"))
    assert found.where == f"m.hlo:4:{len(prefix) + 19}"


@pytest.mark.parametrize("text", ["f32[6] negate(f32[6] p)", "f32[6] fusion(f32[6] p), kind=kLoop, calls={ "
                                  "a = f32[6] parameter(0) ROOT c = f32[6] negate(a) }"])
def test_bare_instruction_needs_no_name(text: str) -> None:
    entry = read_text(text).entry
    assert [i.opcode for i in entry.instructions] == ["parameter", text.split("(")[0].split()[1]]
    assert (entry.root.name, entry.parameters[0].name) == ("_", "p")


def test_bare_instruction_makes_parameters_of_unknown_operands() -> None:
    module = read_text("r = f32[4] fusion(f32[4] x, s32[]), kind=kLoop, calls={ a = f32[4] parameter(0) b = s32[] parameter(1) "
                       "ROOT c = f32[4] negate(a) }")
    assert [p.name for p in module.entry.parameters] == ["x", "_1"]
    assert [c.name for c in module.computations] == ["_", "_.1"] and module.entry.root.called[0].is_fusion


def test_clashing_names_are_numbered_as_xla_does() -> None:
    module = read_text("f { a = f32[] parameter(0) ROOT a.1 = f32[] negate(a) }\n"
                       "ENTRY e { a = f32[] parameter(0) a.1 = f32[] call(a), to_apply=f ROOT b.0 = f32[] negate(a.1) }")
    assert [i.name for i in module.instructions()] == ["a", "a.1", "a.2", "a.3", "b.0"]


def test_shapes_left_out_are_inferred_with_layouts() -> None:
    module = read_text(entry("p = f32[2,3]{0,1} parameter(0)", "n = negate(p)", "ROOT t = tuple(n, n)"))
    layouts = [e.layout.minor_to_major for e in module.entry.root.shape.elements if e.layout]
    assert layouts == [(0, 1), (0, 1)]


def test_async_start_shares_its_notes_with_the_wrapped_instruction() -> None:
    module = read_text(entry(
        "p = f32[4] parameter(0)", 's = ((f32[4]), f32[4], s32[]) negate-start(p), metadata={op_name="n"}',
        "u = ((f32[4]), f32[4], s32[]) negate-update(s)", 'ROOT d = f32[4] negate-done(u), backend_config="late"'))
    work = module.entry.root.operands[0].operands[0].called[0].root
    assert (work.opcode, work.location.op_name, work.backend_config) == ("negate", "n", b"late")


def test_async_done_of_another_operator_is_refused() -> None:
    start = "s = ((f32[4]), f32[4], s32[]) negate-start(p)"
    found = error(entry("p = f32[4] parameter(0)", start, "ROOT d = f32[4] abs-done(s)"))
    assert found.what == "abs-done must continue a abs-start"


def test_stack_frame_gives_file_and_line() -> None:
    tables = ('FileNames\n1 "a.py"\n\nFunctionNames\n1 "f"\n\nFileLocations\n'
              "1 {file_name_id=1 function_name_id=1 line=3 end_line=4 column=5 end_column=6}\n\nStackFrames\n"
              "1 {file_location_id=1 parent_frame_id=1}\n\n")
    text = "HloModule m\n" + tables + 'ENTRY e { ROOT p = f32[] parameter(0), metadata={op_name="x" stack_frame_id=1} }'
    location = read_text(text).entry.root.location
    assert (location.source_file, location.source_line, location.source_end_column) == ("a.py", 3, 6)


def test_strings_keep_bytes_that_are_not_text() -> None:
    module = read_text(entry(r'ROOT r = f32[] custom-call(), custom_call_target="f", backend_config="\377\000\x41\n"'))
    assert module.entry.root.backend_config == b"\xff\x00A\n"
    module = read_text(b'HloModule m\nENTRY e { ROOT p = f32[] parameter(0), metadata={op_name="\xff"} }')
    assert module.entry.root.location.op_name == "\udcff"


def test_braced_config_is_kept_byte_for_byte() -> None:
    module = read_text(entry('ROOT r = f32[] custom-call(), custom_call_target="f", backend_config={ "a" : "}",\n  b}'))
    assert module.entry.root.backend_config == b'{ "a" : "}",\n  b}'


def test_attribute_equal_to_its_default_is_left_out() -> None:
    module = read_text(entry("p = f32[4] parameter(0)", "ROOT r = pred[4] compare(p, p), direction=LT, type=FLOAT"))
    assert module.entry.root.attributes == {"direction": "LT"}


def test_send_yields_its_data_whatever_was_written() -> None:
    module = read_text(entry("p = f32[4] parameter(0)", "t = token[] after-all()", "ROOT s = f32[9] send(p, t), channel_id=1"))
    assert root_shape(module) == "(f32[4], u32[], token[])"


def test_sharding_of_a_tuple_holds_for_each_part() -> None:
    module = read_text(entry("ROOT p = (f32[4], (s32[])) parameter(0), sharding={replicated}"))
    assert module.entry.root.sharding.kind == "tuple" and len(module.entry.root.sharding.elements) == 2


def test_scalar_for_an_array_sets_the_first_element() -> None:
    literal = read_text(entry("ROOT c = f32[2,2] constant(5)")).entry.root.attributes["literal"]
    assert np.array_equal(literal.array, [[5, 0], [0, 0]])


def test_import_loads_no_parser_generator() -> None:
    code = "import sys, nxcc.ir.hlo.text.reader; sys.exit('lark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


SUM = "HloModule m\nENTRY e {{ a = f32[] constant(1)\n b = f32[] constant(2)\n ROOT r = f32[] add({}) }}"
WINDOW = """HloModule m
ENTRY e {{ x = f32[1,4,4,1] parameter(0)
  k = f32[2,2,1,1] parameter(1)
  ROOT r = f32[1,3,3,1] convolution(x, k), window={{size=2x2 rhs_reversal={}}}, dim_labels=b01f_01io->b01f }}
"""


@pytest.mark.parametrize("operands", ["a, f32[], b", "f32[], a, f32[] b", "a, , b", "a, b,", ",a, f32[] b"])
def test_commas_between_operands_are_read_over(operands: str) -> None:
    """As XLA's parser does."""
    module = read_text(SUM.format(operands))
    assert [operand.name for operand in module.entry.root.operands] == ["a", "b"]


@pytest.mark.parametrize("operands", ["a f32[], b", "a b", "f32[], a", "a, f32[]"])
def test_operands_that_xla_refuses(operands: str) -> None:
    with pytest.raises(CompileError):
        read_text(SUM.format(operands))


@pytest.mark.parametrize(("written", "meant"), [("1", (True, False)), ("0x1x1", (False, True))])
def test_rank_of_a_reversal_is_free(written: str, meant: tuple[bool, ...]) -> None:
    module = read_text(WINDOW.format(written))
    assert tuple(d.reversal for d in module.entry.root.attribute("window").dims) == meant


@pytest.mark.parametrize(("line", "printed"), [
    ("ROOT r = (f32[2], s32[2]) topk(p), k=2", "k=2, largest=true"),
    ("ROOT r = f32[4] all-reduce(p), to_apply={ a = f32[] parameter(0) b = f32[] parameter(1) ROOT s = f32[] add(a, b) }, "
     "mode=cross_replica", "replica_groups={}, to_apply"),
    ("ROOT r = f32[4] negate(p), origin={}", "origin={()}"),
    ("ROOT r = f32[4] negate(p), outer_dimension_partitions={4}", "negate(%p)\n"),
    ("ROOT r = f32[4] custom-call(p), custom_call_target=\"AwsNeuronErf\", api_version=API_VERSION_UNSPECIFIED", "Erf\"\n"),
    ("ROOT c = pred[3] constant({2, 0, -3})", "constant({1, 0, 1})"),
    ("ROOT c = f8e4m3fn[2] constant({inf, -inf})", "constant({nan, -nan})"),
    ("ROOT c = f4e2m1fn[] constant(inf)", "constant(6)")])
def test_what_is_left_out_or_said_otherwise_means_what_xla_takes_it_for(line: str, printed: str) -> None:
    module = read_text(entry("p = f32[4] parameter(0)", line))
    assert printed in write_text(module)


def test_frames_are_equal_whatever_the_numbers_of_their_functions() -> None:
    tables = ("FileNames\n1 \"a.py\"\n\nFunctionNames\n{0} \"f\"\n{1} \"g\"\n\nFileLocations\n"
              "1 {{file_name_id=1 function_name_id={0} line=3 end_line=3 column=1 end_column=2}}\n\n"
              "StackFrames\n1 {{file_location_id=1 parent_frame_id=1}}\n\n")
    body = "ENTRY e { ROOT c = f32[] constant(1), metadata={op_name=\"x\" stack_frame_id=1} }"
    first, second = (tables.format(*order) for order in ((1, 2), (2, 1)))
    second = second.replace("2 \"f\"\n1 \"g\"", "1 \"g\"\n2 \"f\"")
    one, other = (read_text("HloModule m\n\n" + text + body) for text in (first, second))
    assert modules_equal(one, other) is None
