"""hlo.proto and the classes generated from it agree."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

from nxcc.ir import dtypes
from nxcc.ir.hlo.proto.schema import enum_values, message_type

FIELD = re.compile(r"(?:(repeated|optional) )?(map<\w+, [\w.]+>|[\w.]+) (\w+) = (\d+);")
OUTER = re.compile(r"\b[A-Z]\w*\.")
"""Descriptors name types without their outer ones."""
VALUE = re.compile(r"(\w+) = (-?\d+);")


def declared() -> dict[str, dict[str, tuple[str, str, int] | int]]:
    """Fields by message and values by enum, as hlo.proto has them: name to (label, type, number), or to the number."""
    found: dict[str, dict[str, tuple[str, str, int] | int]] = {}
    path: list[tuple[str, str]] = []
    for line in files("nxcc.ir.hlo.proto").joinpath("hlo.proto").read_text(encoding="utf-8").splitlines():
        words = line.split()
        if line.endswith("{"):
            path.append((words[0], words[1]))
            found.setdefault(".".join(name for kind, name in path if kind != "oneof"), {})
        elif words == ["}"]:
            path.pop()
        elif path:
            owner = found[".".join(name for kind, name in path if kind != "oneof")]
            if path[-1][0] == "enum":
                name, number = VALUE.fullmatch(line.strip()).groups()  # type: ignore[union-attr]
                owner[name] = int(number)
            else:
                label, kind, name, number = FIELD.fullmatch(line.strip()).groups()  # type: ignore[union-attr]
                owner[name] = (label or "", OUTER.sub("", kind), int(number))
    return found


def generated(descriptor: Any) -> dict[str, dict[str, tuple[str, str, int] | int]]:
    """The same from a descriptor of the generated module, with its nested types."""
    prefix = descriptor.full_name.removeprefix("nxcc.hlo.")
    found: dict[str, dict[str, tuple[str, str, int] | int]] = {prefix: {f.name: field(f) for f in descriptor.fields}}
    for enum in descriptor.enum_types:
        found[f"{prefix}.{enum.name}"] = {v.name: v.number for v in enum.values}
    for nested in descriptor.nested_types:
        if not nested.GetOptions().map_entry:
            found |= generated(nested)
    return found


SCALARS = {1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 8: "bool", 9: "string", 12: "bytes", 13: "uint32"}


def kind_of(field: Any) -> str:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        return f"map<{kind_of(key)}, {kind_of(value)}>"
    named = field.message_type or field.enum_type
    return named.name if named is not None else SCALARS[field.type]


def field(field: Any) -> tuple[str, str, int]:
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    label = "repeated" if field.is_repeated and not is_map else ""
    if field.has_presence and field.containing_oneof is not None and field.containing_oneof.name == f"_{field.name}":
        label = "optional"
    return label, kind_of(field), field.number


def test_generated_classes_agree_with_the_proto_file() -> None:
    """If this fails, run protoc as the head of hlo.proto says."""
    file = message_type("DESCRIPTOR")
    classes: dict[str, Any] = {name: {v.name: v.number for v in enum.values} for name, enum in file.enum_types_by_name.items()}
    for message in file.message_types_by_name.values():
        classes |= generated(message)
    assert declared() == classes


def test_element_types_have_the_numbers_of_the_enum() -> None:
    numbers = {name.lower().removesuffix("_type"): number for number, name in enum_values("PrimitiveType").items() if number}
    assert numbers == {row.name: row.number for row in dtypes.DTYPES}


def test_each_array_dtype_has_a_payload_field() -> None:
    fields = message_type("LiteralProto").DESCRIPTOR.fields_by_name
    assert [d.name for d in dtypes.DTYPES if d.is_array and d.literal_field not in fields] == []
