"""Lookup tables: the handle, and how many entries there are; looking up is a step of a host program (`recording.py`)."""

from __future__ import annotations

import numpy as np

from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.values import Table, Value


@rule("HashTableV2")
def hash_table(call: Call) -> Value:
    return Table(call.node.name, call.scope.world.tables.get(call.node.name))


@rule("LookupTableSizeV2")
def table_size(call: Call) -> Value:
    return call.emit.constant(np.asarray(call.table_contents(0).size, np.int64))
