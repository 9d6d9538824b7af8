"""Names, orders, shardings, tables and strings: the small parts of HLO text."""

from __future__ import annotations

import pytest

from nxcc.ir.hlo.attributes import Sharding
from nxcc.ir.hlo.text.cursor import Cursor, TextError, escape, unescape
from nxcc.ir.hlo.text.names import Names
from nxcc.ir.hlo.text.order import computation_order, instruction_order
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.text.shapes import parse_shape
from nxcc.ir.hlo.text.sharding import canonical_iota, read_sharding, write_sharding
from nxcc.ir.hlo.text.writer import write_text
from nxcc.ir.shapes import shape_text


def test_numeric_suffix_counts_as_taken() -> None:
    names = Names()
    wanted = ("a", "a", "a.1", "a.7", "a", "a.0", "b.3", "b")
    assert [names.unique(n) for n in wanted] == ["a", "a.1", "a.2", "a.7", "a.3", "a.4", "b.3", "b"]


def test_first_operand_comes_first_and_control_predecessors_before_it() -> None:
    module = read_text("ENTRY e { a = f32[] parameter(0) b = f32[] parameter(1) c = f32[] constant(1) "
                       "ROOT r = f32[] add(b, a), control-predecessors={c} d = f32[] negate(a) }")
    assert [i.name for i in instruction_order(module.entry)] == ["c", "b", "a", "r", "d"]


def test_constants_have_control_predecessors_as_well() -> None:
    module = read_text("ENTRY e { a = f32[] parameter(0) c = f32[] constant(2), control-predecessors={a} "
                       "ROOT r = f32[] add(c, a) }")
    assert [i.name for i in module.entry.root.operands[0].control_predecessors] == ["a"]


def test_callees_come_before_callers() -> None:
    module = read_text("f { ROOT a = f32[] parameter(0) } unused { ROOT a = f32[] parameter(0) } "
                       "g { a = f32[] parameter(0) ROOT r = f32[] call(a), to_apply=f } "
                       "ENTRY e { a = f32[] parameter(0) ROOT r = f32[] call(a), to_apply=g }")
    assert [c.name for c in computation_order(module)] == ["unused", "f", "g", "e"]


def test_scheduled_module_keeps_its_order() -> None:
    body = "ENTRY e { a = f32[] parameter(0) n = f32[] constant(1) ROOT r = f32[] add(a, a) }"
    assert "constant" in write_text(read_text("HloModule m, is_scheduled=true\n" + body)).split("\n")[4]
    assert "constant" in write_text(read_text("HloModule m\n" + body)).split("\n")[3]


@pytest.mark.parametrize("text", [
    "{replicated}", "{maximal device=3}", "{devices=[2,2]0,1,2,3}", "{devices=[2,2]<=[2,2]T(1,0)}",
    "{devices=[2,1,2]<=[4] last_tile_dim_replicate}", "{devices=[2,1]<=[2] shard_like 7}", "{{replicated}, {manual}}", "{}",
    "{mesh['a'=2,'b'=2], [{'a', ?}, {}], replicated={'b'}}", "{maximal_mesh[device_id=3]}",
    "{mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)), [{'a':(1)2}], unreduced=max{'b'}}"])
def test_canonical_sharding_prints_the_same(text: str) -> None:
    assert write_sharding(read_sharding(Cursor(text))) == text


@pytest.mark.parametrize(("text", "canonical"), [
    ("{devices=[2,2]0,1}", "{devices=[2,2]0,1,0,0}"), ("{devices=[2]<=[2,1]T(1,0)}", "{devices=[2]<=[2]}"),
    ("{devices=[1,1,2,2]<=[4] last_tile_dims={replicated, manual}}",
     "{devices=[1,1,2,2]<=[2,2]T(1,0) last_tile_dims={manual, replicated}}"),
    ("{devices=[2,2]3,2,1,0 last_tile_dim_replicate}", "{devices=[2,2]2,3,0,1 last_tile_dim_replicate}"),
    ('{mesh["a"=2] [{"a",?}]}', "{mesh['a'=2], [{'a', ?}]}")])
def test_sharding_is_brought_to_the_form_that_xla_keeps(text: str, canonical: str) -> None:
    assert write_sharding(read_sharding(Cursor(text))) == canonical


@pytest.mark.parametrize("text", [
    "{devices=[2,2]0,1,2,3,4}", "{devices=[2,2]<=[3]}", "{devices=[0]<=[0]}", "{foo}", "{replicated", "{{{}"])
def test_wrong_sharding_is_refused(text: str) -> None:
    with pytest.raises(TextError):
        read_sharding(Cursor(text))


def test_parts_of_a_sharding() -> None:
    found = read_sharding(Cursor("{devices=[2,1,2]<=[4] last_tile_dims={manual} shard_as 5}"))
    assert found == Sharding("other", (2, 1, 2), iota_dims=(4,), last_tile_dims=("manual",), shard_group=("as", 5))


@pytest.mark.parametrize(("dims", "permutation", "expected"), [
    ((2, 3, 4), (0, 1, 2), ((24,), ())), ((2, 3, 4), (2, 0, 1), ((6, 4), (1, 0))), ((1, 1), (1, 0), ((1,), ())),
    ((2, 1, 3), (2, 1, 0), ((2, 3), (1, 0))), ((4, 2, 3), (1, 0, 2), ((4, 2, 3), (1, 0, 2)))])
def test_iota_is_shortened(dims: tuple[int, ...], permutation: tuple[int, ...], expected: object) -> None:
    assert canonical_iota(dims, permutation) == expected


@pytest.mark.parametrize(("text", "printed"), [
    ("f32[ 2 , 3 ]{ 1 , 0 }", "f32[2,3]{1,0}"), ("f32[2,3]", "f32[2,3]{1,0}"), ("f32[2,3]{1,0:D(D,C)}", "f32[2,3]{1,0}"),
    ("f32[2]{0:L(1)E(0)S(0)}", "f32[2]{0}"), ("(f32[2]{0}, /*index=1*/(), token[])", "(f32[2]{0}, (), token[])")])
def test_shape_is_kept_in_canonical_form(text: str, printed: str) -> None:
    assert shape_text(parse_shape(Cursor(text))) == printed


@pytest.mark.parametrize("text", [
    "f32[]{:S(1)}", "f32[<=4,?]{1,0}", "s4[8,128]{1,0:T(8,128)(2,1)L(1024)E(4)S(1)SC(0:4)M(16)}", "b(f32[4]{0})",
    "u8[4]{0:#(u32)*(u64)}"])
def test_canonical_shape_prints_the_same(text: str) -> None:
    assert shape_text(parse_shape(Cursor(text))) == text


@pytest.mark.parametrize("text", [
    "f32", "f32[2", "f32[2]{1}", "f32[2,3]{0}", "f33[2]", "f32[-1]", "f32[2]{0:S(1)T(8)}", "token[3]", "(f32[]"])
def test_wrong_shape_is_refused(text: str) -> None:
    with pytest.raises(TextError):
        parse_shape(Cursor(text))


def test_strings_come_back() -> None:
    for text in ('plain', 'a"b\\c\n\t\r\'', "é\udcff\x00\x7f"):
        assert unescape(f'"{escape(text)}"') == text
    assert escape("é") == r"\303\251" and unescape(r"'\x41\101\q'") == "AAq"
