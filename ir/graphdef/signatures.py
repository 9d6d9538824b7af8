"""Signatures of TensorFlow operators: arguments in order, attributes with their types and defaults.

Read from opdefs.txt, a table distilled from TensorFlow's operator registry, one line an operator, parsed when it is needed.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from typing import Any

from nxcc.ir.facts import dataclass
from nxcc.ir.graphdef.datatypes import by_name

_LINE = re.compile(r"(\w+)\((.*?)\) -> \((.*?)\)(.*)")


@dataclass(frozen=True, slots=True)
class Argument:
    """An input or output. type: a type's name or the attribute that gives it.

    count: the attribute that says how many tensors it stands for. is_list: `type` is a list attribute, one tensor a member.
    """

    name: str
    type: str
    count: str = ""
    is_list: bool = False


@dataclass(frozen=True, slots=True)
class Attribute:
    """kind: TensorFlow's name of the attribute's type. default: a value as attribute_value gives it; None: required."""

    kind: str
    default: Any = None


@dataclass(frozen=True)
class Signature:
    """One operator."""

    name: str
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    attributes: dict[str, Attribute]


@cache
def _lines() -> dict[str, str]:
    text = resources.files("nxcc.ir.graphdef").joinpath("opdefs.txt").read_text()
    return {line[:line.index("(")]: line for line in text.splitlines() if not line.startswith("#")}


@cache
def signature(operator: str) -> Signature | None:
    """The signature of an operator; None if the table has no such operator."""
    line = _lines().get(operator)
    if line is None:
        return None
    match = _LINE.fullmatch(line)
    assert match is not None, line
    name, inputs, outputs, rest = match.groups()
    return Signature(name, _arguments(inputs), _arguments(outputs), dict(map(_attribute, rest.split())))


def known_names() -> tuple[str, ...]:
    return tuple(_lines())


def _arguments(text: str) -> tuple[Argument, ...]:
    return tuple(_argument(part) for part in text.split(", ") if part)


def _argument(text: str) -> Argument:
    name, _, kind = text.partition(":")
    if kind.startswith("*"):
        return Argument(name, kind[1:], is_list=True)
    count, star, element = kind.partition("*")
    return Argument(name, element, count) if star else Argument(name, kind)


def _attribute(text: str) -> tuple[str, Attribute]:
    name, _, rest = text.partition(":")
    kind, has_default, default = rest.partition("=")
    return name, Attribute(kind, _default(kind, default) if has_default else None)


def _default(kind: str, text: str) -> Any:
    if kind == "type":
        return _type_number(text)
    value = json.loads(text)
    if kind == "list(type)":
        return tuple(_type_number(name) for name in value)
    if kind == "shape":
        return Unranked if value == "unknown_rank" else tuple(value)
    if kind == "func":
        return str(value)
    return tuple(value) if isinstance(value, list) else value


def _type_number(name: str) -> int:
    row = by_name(name)
    return row.number if row is not None else 0


class Unranked:
    """Stands for a shape of unknown rank, as the value of an attribute."""


def attribute_value(kind: str, message: Any) -> Any:
    """An AttrValue message as a plain value.

    int, float, bool, str (string), int (type), tuple (lists), tuple of int or Unranked (shape), str (func: the name).
    None if the message holds another kind of value than the signature asks for.
    """
    if kind.startswith("list("):
        if message.WhichOneof("value") != "list":
            return None
        member = kind[5:-1]
        return tuple(_READ[member](x) for x in getattr(message.list, _FIELDS[member]))
    field = _FIELDS.get(kind)
    if field is None or message.WhichOneof("value") != field:
        return None
    return _READ[kind](getattr(message, field))


def shape_value(message: Any) -> Any:
    """A TensorShapeProto as a tuple of sizes, -1 where unknown, or Unranked."""
    return Unranked if message.unknown_rank else tuple(d.size for d in message.dim)


_FIELDS = {"int": "i", "float": "f", "bool": "b", "string": "s", "type": "type", "shape": "shape", "func": "func"}
_READ: dict[str, Any] = {
    "int": int, "float": float, "bool": bool, "string": lambda s: s.decode("utf-8", "replace"), "type": int,
    "shape": shape_value, "func": lambda f: f.name}
