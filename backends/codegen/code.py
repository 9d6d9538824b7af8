"""What code generation takes and gives: nodes, and the machine program with what a loader and a reader must know of it."""

from __future__ import annotations

from dataclasses import field

from nxcc.backends.berths import Work
from nxcc.backends.codegen.arena import Lifetime
from nxcc.backends.isa.program import Program
from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Module
from nxcc.ir.literals import Literal


@dataclass(frozen=True)
class DeviceNode:
    """A module that runs on the device. inputs, outputs: value names of its entry parameters and flattened result leaves."""

    name: str
    module: Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Binding:
    """A named value's place in the arena; address and size in bytes."""

    name: str
    dtype: DType
    dims: tuple[int, ...]
    address: int
    size: int


@dataclass(frozen=True)
class DebugEntry:
    """What an instruction range belongs to: HLO instruction, framework name, source line."""

    name: str
    op_name: str
    source: str


@dataclass(frozen=True)
class RegionReport:
    """One call of a region: the HLO instruction, its opcode, and the function that runs it. node, part_of: the node and the
    instruction of its entry that it belongs to."""

    instruction: str
    opcode: str
    function: str
    node: str = ""
    part_of: str = ""


@dataclass()
class DeviceCode:
    """program: one entry a node. constants: what the loader writes into the arena before the first run. scratch: blocks of the
    arena that hold values of the program's own for a while. work: where on chip each region works, in order. second: addresses
    of the second places of values that have two (see `alternation`)."""

    program: Program
    bindings: dict[str, Binding]
    constants: list[tuple[Binding, Literal]]
    debug: list[DebugEntry]
    regions: list[RegionReport] = field(default_factory=list)
    scratch: list[Lifetime] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    second: dict[str, int] = field(default_factory=dict)
