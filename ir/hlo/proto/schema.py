"""The generated message classes by name; importing them, and the protobuf library with them, waits for the first use."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def message_type(name: str) -> Any:
    """The class of a message of hlo.proto."""
    from nxcc.ir.hlo.proto import hlo_pb2
    return getattr(hlo_pb2, name)


@cache
def enum_values(name: str) -> dict[int, str]:
    """Names by number of an enum such as `FftType` or `PrecisionConfig.Algorithm`."""
    outer, _, inner = name.partition(".")
    if inner:
        descriptor = message_type(outer).DESCRIPTOR.enum_types_by_name[inner]
    else:
        descriptor = message_type("DESCRIPTOR").enum_types_by_name[outer]
    return {value.number: value.name for value in descriptor.values}
