"""The generated message classes by name; importing them, and the protobuf library with them, waits for the first use."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def message_type(name: str) -> Any:
    """The class of a message of graph.proto."""
    from nxcc.ir.graphdef import graph_pb2
    return getattr(graph_pb2, name)
