"""Serialized modules become Modules; what is damaged or impossible becomes an error that says where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nxcc.ir import dtypes
from nxcc.ir.diagnostics import (
    EMPTY_INPUT,
    FILE_UNREADABLE,
    INVALID_MODULE,
    LIMIT_EXCEEDED,
    PROTO_CORRUPT,
    UNKNOWN_OPERATOR,
    Code,
    CompileError,
)
from nxcc.ir.hlo.attributes import Domain, IoAlias, ReplicaGroups, Sharding
from nxcc.ir.hlo.equality import modules_equal
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.proto.reader import read_module
from nxcc.ir.hlo.proto.schema import message_type

F32 = dtypes.F32.number


def shape(*dims: int, dtype: int = F32) -> Any:
    return message_type("ShapeProto")(element_type=dtype, dimensions=dims)


def instruction(name: str, opcode: str, number: int, *operands: int, **fields: Any) -> Any:
    return message_type("HloInstructionProto")(**{
        "name": name, "opcode": opcode, "id": number, "operand_ids": operands, "shape": shape(4), **fields})


def computation(name: str, number: int, *instructions: Any, root: int | None = None) -> Any:
    return message_type("HloComputationProto")(name=name, id=number, instructions=instructions,
                                               root_id=instructions[-1].id if root is None else root)


def module(*computations: Any, **fields: Any) -> Any:
    entry = computations[-1]
    return message_type("HloModuleProto")(**{
        "name": "m", "entry_computation_name": entry.name, "entry_computation_id": entry.id, "computations": computations,
        **fields})


def of(*instructions: Any, **fields: Any) -> Any:
    """A module whose entry has these instructions."""
    return module(computation("main", 7, *instructions), **fields)


def root_of(*instructions: Any, **fields: Any) -> Instruction:
    return read_module(of(*instructions, **fields).SerializeToString()).entry.root


P = instruction("p", "parameter", 0)


# Which message


@pytest.mark.parametrize("wrap", [
    lambda m: m,
    lambda m: message_type("HloProto")(hlo_module=m),
    lambda m: message_type("HloSnapshot")(hlo=message_type("HloProto")(hlo_module=m), execution_platform="cpu"),
], ids=["module", "proto", "snapshot"])
def test_message_is_recognised_by_its_form(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(wrap(of(P)).SerializeToString())
    assert read_module(path).entry.name == "main"


def test_module_name_that_walks_as_a_message_is_a_name() -> None:
    assert read_module(of(P, name="\n\x01a\x12\x01b").SerializeToString()).name == "\n\x01a\x12\x01b"


# References


def test_ids_are_opaque_and_order_is_free() -> None:
    entry = computation("main", 3, instruction("n", "negate", 2**40, -5), instruction("p", "parameter", -5), root=2**40)
    found = read_module(module(entry).SerializeToString()).entry
    assert [i.name for i in found.instructions] == ["p", "n"]
    assert found.root.operands == tuple(found.parameters)


def test_callees_come_before_callers() -> None:
    scalar = instruction("a", "parameter", 10)
    call = instruction("c", "call", 1, 0, called_computation_ids=[9])
    message = module(computation("main", 7, P, call), computation("body", 9, scalar))
    message.entry_computation_name, message.entry_computation_id = "main", 7
    found = read_module(message.SerializeToString())
    assert [c.name for c in found.computations] == ["body", "main"]
    assert found.entry.root.called == (found.computations[0],)


def test_schedule_gives_order_and_order_of_users() -> None:
    message = of(P, instruction("a", "negate", 1, 0), instruction("b", "negate", 2, 0), instruction("t", "add", 3, 1, 2))
    message.schedule.sequences[7].instruction_ids.extend([0, 2, 1, 3])
    found = read_module(message.SerializeToString())
    assert found.is_scheduled
    assert [i.name for i in found.entry.instructions] == ["p", "b", "a", "t"]
    assert [u.name for u in found.entry.parameters[0].users] == ["b", "a"]


LOOP = computation("loop", 9, instruction("c", "call", 1, called_computation_ids=[7]))


@pytest.mark.parametrize(("message", "what"), [
    (of(P, instruction("n", "negate", 1, 5)), "operand 5, which does not exist"),
    (of(P, instruction("n", "call", 1, 0, called_computation_ids=[5])), "calls computation 5, which does not exist"),
    (of(P, instruction("n", "negate", 1, 0, control_predecessor_ids=[5])), "control predecessor 5"),
    (of(P, instruction("n", "negate", 0, 0)), "same id"),
    (of(P, instruction("a", "negate", 1, 2), instruction("b", "negate", 2, 1)), "computed before its operand"),
    (of(P, instruction("a", "negate", 1, 1)), "computed before its operand"),
    (module(computation("main", 7, P), computation("other", 7, P)), "same id"),
    (module(LOOP, computation("main", 7, instruction("c", "call", 1, called_computation_ids=[9]))), "calls itself"),
    (module(computation("main", 7, P, root=3)), "root 3 of computation main does not exist"),
    (of(P, entry_computation_id=1, entry_computation_name="x"), "entry computation x does not exist"),
    (of(instruction("i", "iota", 0)), "iota needs iota_dimension"),
    (of(instruction("c", "convolution", 1)), "convolution needs dim_labels"),
    (of(P, instruction("r", "fft", 1, 0, fft_type=9)), "FftType has no value 9"),
    (of(instruction("p", "parameter", 0, shape=shape(4, dtype=99))), "element type 99"),
    (of(instruction("p", "parameter", 0, shape=shape(-4))), "negative dimension -4"),
    (of(instruction("c", "constant", 0, literal=message_type("LiteralProto")(shape=shape(2), f32s=[1, 2]))),
     "its literal is f32[2]"),
    (of(instruction("c", "constant", 0, shape=shape(dtype=17), literal=message_type("LiteralProto")(shape=shape(dtype=17)))),
     "a literal cannot be of type token"),
    (of(P, instruction("n", "negate", 1, 0, backend_config_payload=message_type("Payload")(id=3))), "payload 3 of 0"),
])
def test_module_that_makes_no_sense_is_an_error(message: Any, what: str) -> None:
    with pytest.raises(CompileError) as caught:
        read_module(message.SerializeToString())
    assert caught.value.code is INVALID_MODULE
    assert what in str(caught.value)


def test_unknown_operator_names_the_instruction() -> None:
    expected = "no HLO operator is named 'negat'.*at n, <bytes>: byte.*did you mean negate"
    with pytest.raises(CompileError, match=expected) as caught:
        root_of(P, instruction("n", "negat", 1, 0))
    assert caught.value.code is UNKNOWN_OPERATOR


# Attributes that take more than their declaration


def test_comparison_type_of_the_operands_is_left_out() -> None:
    plain = root_of(P, instruction("c", "compare", 1, 0, 0, comparison_direction="LT", comparison_type="FLOAT"))
    total = root_of(P, instruction("c", "compare", 1, 0, 0, comparison_direction="LT", comparison_type="TOTALORDER"))
    assert (plain.attributes, total.attribute("type")) == ({"direction": "LT"}, "TOTALORDER")


def test_absent_group_counts_are_one() -> None:
    root = root_of(P, instruction("c", "custom-call", 1, 0, custom_call_target="t"))
    assert (root.attribute("feature_group_count"), root.attributes) == (1, {"custom_call_target": "t"})


def groups(**fields: Any) -> ReplicaGroups:
    root = root_of(P, instruction("r", "all-gather", 1, 0, dimensions=[0], **fields))
    found = root.attribute("replica_groups")
    assert isinstance(found, ReplicaGroups)
    return found


def test_replica_groups_are_read_from_each_place() -> None:
    explicit = [message_type("ReplicaGroup")(replica_ids=[0, 1]), message_type("ReplicaGroup")(replica_ids=[2, 3])]
    iota = message_type("IotaReplicaGroupListProto")(num_replica_groups=2, num_devices_per_group=4, iota_reshape_dims=[4, 2],
                                                     iota_transpose_perm=[1, 0])
    mesh = message_type("MeshAxesReplicaGroupListProto")()
    mesh.mesh.axes.add(name="a", size=2)
    mesh.axes.add(mesh_axis_index=0)
    assert groups(collective_device_list={"replica_groups": explicit}).groups == ((0, 1), (2, 3))
    assert groups(replica_groups=explicit).groups == ((0, 1), (2, 3))
    assert groups(iota_collective_device_list=iota).iota == (2, 4, (4, 2), (1, 0))
    assert groups(mesh_axes_replica_group_list=mesh).mesh == "mesh['a'=2] {'a'}"


def test_old_name_of_the_channel_is_read_and_none_is_zero() -> None:
    root = root_of(P, instruction("r", "all-gather", 1, 0, dimensions=[0], all_reduce_id=4))
    none = root_of(P, instruction("r", "all-gather", 1, 0, dimensions=[0], channel_id=-1))
    assert (root.attribute("channel_id"), none.attributes) == (4, {"dimensions": (0,)})


def test_domain_follows_the_names_of_the_text() -> None:
    entry, other = (message_type("OpSharding")(type=1, tile_assignment_devices=[d]) for d in (3, 5))
    root = root_of(P, instruction("d", "domain", 1, 0, domain_exit_sharding=entry, domain_entry_sharding=other))
    assert root.attribute("domain") == Domain(Sharding("maximal", devices=(3,)), Sharding("maximal", devices=(5,)))


def test_backend_config_may_lie_in_the_payload_table() -> None:
    inline = instruction("n", "negate", 1, 0, backend_config_payload=message_type("Payload")(value=b"here"))
    indexed = instruction("n", "negate", 1, 0, backend_config_payload=message_type("Payload")(id=1))
    assert root_of(P, inline).backend_config == b"here"
    assert root_of(P, indexed, payloads=[b"no", b"there"]).backend_config == b"there"


def test_source_line_is_looked_up_in_the_stack_frames() -> None:
    tables = message_type("StackFrameIndexProto")(file_names=["a.py", "b.py"], function_names=["f"])
    tables.file_locations.add(file_name_id=2, function_name_id=1, line=8, column=3)
    tables.stack_frames.add(file_location_id=1)
    framed = instruction("n", "negate", 1, 0, metadata={"op_name": "x", "stack_frame_id": 1})
    lost = instruction("n", "negate", 1, 0, metadata={"op_name": "x", "stack_frame_id": 2})
    assert str(root_of(P, framed, stack_frame_index=tables).location) == "b.py:8 (x)"
    assert root_of(P, lost, stack_frame_index=tables).location.stack_frame_id == 0


def test_module_header_is_kept() -> None:
    message = of(P, instruction("n", "negate", 1, 0), frontend_attributes={"map": {"b": "2", "a": "1"}})
    message.input_output_alias.entries.add(parameter_number=0, kind=2)
    message.buffer_donor.entries.add(parameter_number=0, parameter_shape_index=[1])
    message.host_program_shape.parameters.append(shape(4))
    message.host_program_shape.result.CopyFrom(shape(4))
    found = read_module(message.SerializeToString())
    assert found.aliases == (IoAlias((), 0, (), "must-alias"),)
    assert found.buffer_donors == ((0, (1,)),)
    assert found.entry_layout is not None and found.entry_layout[1].dims == (4,)
    assert list(found.frontend_attributes.items()) == [("a", "1"), ("b", "2")]


def test_layout_extension_is_kept_as_text() -> None:
    tiled = shape(8, 8)
    tiled.layout.tiles.add(dimensions=[8, -2**63])
    tiled.layout.memory_space = 1
    tiled.layout.tail_padding_alignment_in_elements = 1
    layout = root_of(instruction("p", "parameter", 0, shape=tiled)).shape.layout
    assert str(layout) == "{1,0:T(8,*)S(1)}"


# Damage and limits


def test_truncated_file_says_at_which_byte() -> None:
    content = of(P).SerializeToString()
    with pytest.raises(CompileError, match=r"byte 9.: field 3 declares \d+ bytes, \d+ are left") as caught:
        read_module(content[:-20])
    assert caught.value.code is PROTO_CORRUPT


def test_fault_inside_an_instruction_says_at_which_byte() -> None:
    content = of(instruction("p", "parameter", 0, frontend_attributes={"map": {"key": "text"}})).SerializeToString()
    at = content.index(b"text")
    with pytest.raises(CompileError, match=f"byte {at}.: .*value is not UTF-8"):
        read_module(content.replace(b"text", b"\xffext"))


def nested(depth: int) -> Any:
    found = shape(4)
    for _ in range(depth):
        found = message_type("ShapeProto")(element_type=dtypes.TUPLE.number, tuple_shapes=[found])
    return found


@pytest.mark.parametrize("depth", [95, 200, 5000])
def test_deep_nesting_is_a_limit(depth: int) -> None:
    from nxcc.ir.hlo.proto.wire import write_record
    content = nested(90).SerializeToString()
    for _ in range(depth - 90):
        content = b"\x10\x0d" + write_record(4, len(content)) + content
    broken = instruction("p", "parameter", 0)
    broken.ClearField("shape")
    body = broken.SerializeToString() + write_record(3, len(content)) + content
    message = b"\x0a\x04main" + write_record(2, len(body)) + body + b"\x28\x07"
    whole = b"\x0a\x01m\x12\x04main" + write_record(3, len(message)) + message + b"\x30\x07"
    if depth < 100:
        assert read_module(whole).entry.root.shape.is_tuple
        return
    with pytest.raises(CompileError, match="nest more than 100 deep") as caught:
        read_module(whole)
    assert caught.value.code is LIMIT_EXCEEDED


@pytest.mark.parametrize(("content", "code"), [(b"", EMPTY_INPUT), (None, FILE_UNREADABLE)], ids=["empty", "missing"])
def test_file_without_content_is_an_error(content: bytes | None, code: Code, tmp_path: Path) -> None:
    path = tmp_path / "m.pb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CompileError) as caught:
        read_module(path)
    assert caught.value.code is code


def test_equal_instructions_have_attributes_of_their_own() -> None:
    pair = [instruction(f"b{n}", "broadcast", n, 0, dimensions=(0,), frontend_attributes={"map": {"k": "v"}}) for n in (1, 2)]
    entry = read_module(of(P, *pair, instruction("r", "add", 3, 1, 2)).SerializeToString()).entry
    _, first, second, _ = entry.instructions
    first.attributes["dimensions"] = (1,)
    first.frontend_attributes["k"] = "w"
    assert second.attributes["dimensions"] == (0,) and second.frontend_attributes["k"] == "v"


def test_a_comparison_forgets_the_type_of_its_own_operands_only() -> None:
    q = instruction("q", "parameter", 1, parameter_number=1, shape=shape(4, dtype=dtypes.S32.number))
    fields = {"comparison_direction": "LT", "comparison_type": "FLOAT", "shape": shape(4, dtype=dtypes.PRED.number)}
    entry = read_module(of(P, q, instruction("a", "compare", 2, 0, 0, **fields),
                           instruction("b", "compare", 3, 1, 1, **fields)).SerializeToString()).entry
    _, _, floats, integers = entry.instructions
    assert "type" not in floats.attributes and integers.attributes["type"] == "FLOAT"


@pytest.mark.parametrize("limit", [0, 64, 1 << 20])
def test_instructions_are_the_same_however_they_are_parsed(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    literal = message_type("LiteralProto")(shape=shape(40), f32s=[float(n) for n in range(40)])
    content = of(P, instruction("c", "constant", 1, shape=shape(40), literal=literal),
                 instruction("n", "negate", 2, 1, shape=shape(40)), instruction("m", "negate", 3, 2, shape=shape(40)),
                 instruction("d", "constant", 4, shape=shape(40), literal=literal)).SerializeToString()
    whole = read_module(content)
    monkeypatch.setattr("nxcc.ir.hlo.proto.bodies.SMALL_BYTES", limit)
    monkeypatch.setattr("nxcc.ir.hlo.proto.bodies.MANY", 2)
    assert modules_equal(read_module(content), whole) is None
    one, two = (i for i in whole.entry.instructions if i.opcode == "constant")
    assert one.attributes["literal"].array.tolist() == two.attributes["literal"].array.tolist()
