"""From a plan and its machine code to the members of a NEFF.

Decided here: names and places of values in the container, which constants are members of their own, the text of host
modules, the stripped module that `verify` evaluates, the debug map. The additions under neff.json's `nxcc` are:
`values` (dtype of a value inside the program where it is not the user's), `counts` (see counted_outputs.py), `module` (the
stripped HLO), `spreads` (how many products may spread a NaN, see again.py).
A variable's `nxcc` holds its `address` in the HBM arena and its HLO `dtype`; in a pipeline also a `second` address. A node's
`nxcc` holds, in a pipeline, the name of the entry that works on `second` places, and of values `passing` to later stages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from itertools import groupby
from typing import Any

from nxcc.backends.codegen.alternation import SECOND
from nxcc.backends.codegen.code import Binding, DeviceCode
from nxcc.backends.isa.debug import debug_indices
from nxcc.backends.isa.encode import encode
from nxcc.backends.isa.layout import EngineImage
from nxcc.backends.isa.program import Engine, Program
from nxcc.backends.isa.templates import VARIABLES, queue_sets
from nxcc.backends.target import Target
from nxcc.compiler.interface.counted_outputs import KEY as COUNTS
from nxcc.compiler.interface.counted_outputs import by_name
from nxcc.compiler.interface.parameters import WEIGHT, Tensor, leaf_shapes, result_dtypes
from nxcc.compiler.interface.text_values import KEY as TEXTS
from nxcc.compiler.interface.text_values import by_name as text_names
from nxcc.compiler.reports.statistics import module_statistics
from nxcc.compiler.runtime.carried import SPREADS
from nxcc.compiler.runtime.places import Place
from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.text.writer import write_text
from nxcc.ir.literals import Literal
from nxcc.ir.shapes import Shape
from nxcc.neff.members import (
    CPU,
    NEURON_CORE,
    Alias,
    DebugMap,
    HostConstant,
    InputTensor,
    InstructionRange,
    Node,
    OutputTensor,
    QueueSet,
    SourceEntry,
    Variable,
    kelf_member,
    subgraph_name,
)
from nxcc.neff.package import Chunks, EngineCode, HostModule, Package, RawMember, Subgraph
from nxcc.passes.partitioning.nodes import Node as PlanNode
from nxcc.passes.partitioning.partition import Plan

LARGE_CONSTANT_BYTES = 4096
"""Constants above this are members of their own; smaller ones stay in the HLO text."""

PIECE_BYTES = 4 << 20
"""Weights that are cast or turned are so in pieces of this size, so that a compile's memory does not grow with them."""

MODULE_NAME = "module"


@dataclass(frozen=True)
class Labels:
    """What a NEFF says about its origin: options as they took effect, the command line's flags, version and digest; and in how
    many products a NaN may spread."""

    version: str
    options: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    hlo_sha256: str = ""
    strip: bool = False
    spreads: int = 0
    metrics: dict[str, Any] | None = None


def package(module: Module, tensors: Sequence[Tensor], plan: Plan, codes: Sequence[DeviceCode], target: Target,
            labels: Labels) -> Package:
    """Everything a NEFF says. The module (as compiled) loses its large constants to members; it is not needed after.

    codes: of each core of the plan; they share one list of debug entries.
    """
    return _Packager(module, tensors, plan, codes, target, labels).package()


class _Constants:
    """Members for literals: each literal once, those that the device has under its own name."""

    def __init__(self) -> None:
        self.members: dict[int, str] = {}
        self.files: list[RawMember] = []
        self.kept: list[Literal] = []

    def put(self, literal: Literal, name: str) -> str:
        """Note that the literal lies in this member."""
        self.kept.append(literal)
        return self.members.setdefault(id(literal), name)

    def host_member(self, literal: Literal) -> str:
        """The member that holds the literal, a new one under `host/` if there is none yet."""
        found = self.members.get(id(literal))
        if found is None:
            name = f"c{len(self.files)}.bin"
            self.files.append(RawMember(name, literal_data(literal)))
            found = self.put(literal, f"host/{name}")
        return found


def literal_data(literal: Literal) -> Chunks:
    """The bytes of a literal, decoded when they are written."""
    return Chunks(literal.shape.byte_size, lambda: _pieces(literal))


def _pieces(literal: Literal) -> Any:
    from nxcc.neff.package import data_pieces
    for piece in literal.pieces(PIECE_BYTES):
        yield from data_pieces(piece)


class _Packager:
    def __init__(self, module: Module, tensors: Sequence[Tensor], plan: Plan, codes: Sequence[DeviceCode], target: Target,
                 labels: Labels) -> None:
        self.module = module
        self.tensors = {tensor.name: tensor for tensor in tensors}
        self.plan = plan
        self.codes = codes
        self.bound = frozenset(name for code in codes for name in code.bindings)
        self.target = target
        self.labels = labels
        self.constants = _Constants()
        self.host_modules: list[HostModule] = []
        self.interface = self._interface()

    def package(self) -> Package:
        statistics = module_statistics(self.module, list(self.tensors.values()))
        subgraphs = tuple(self._subgraph(core) for core in range(len(self.codes)))
        nodes = tuple(self._node(number, node) for number, node in enumerate(self.plan.nodes))
        outputs = self._outputs()
        aliases = self._aliases()
        stripped = self._stripped()
        files, self.constants.files = tuple(self.constants.files), []
        last = self.host_modules[-1]
        self.host_modules[-1] = HostModule(last.name, last.text, files)
        return Package(
            name=self.module.name, target=self.target.name, version=self.labels.version, nodes=nodes,
            inputs=tuple(self._input(name) for name in self.plan.parameters), outputs=outputs, subgraphs=subgraphs,
            requested_cores=len(self.codes),
            host_modules=tuple(self.host_modules), aliases=aliases, hlo_sha256=self.labels.hlo_sha256,
            flags=self.labels.flags, options=self.labels.options, statistics=statistics, metrics=self.labels.metrics,
            debug_map=None if self.labels.strip else debug_map(self.codes, self.target),
            nxcc={"values": self._inner_dtypes(), "orders": self._orders(), "module": stripped,
                  SPREADS: self.labels.spreads,
                  COUNTS: by_name(self.module, self.plan.results),
                  TEXTS: text_names(self.module, self.tensors.values(), self.plan.results)},
        )

    def _interface(self) -> dict[str, DType]:
        """The dtype of each value as the user sees it."""
        found = {name: shape.dtype for name, shape in self.plan.values.items()}
        found |= {name: tensor.dtype for name, tensor in self.tensors.items()}
        for name, dtype in zip(self.plan.results, result_dtypes(self.module), strict=True):
            if name not in self.tensors:
                found[name] = dtype
        return found

    def _inner_dtypes(self) -> dict[str, str]:
        return {name: shape.dtype.name for name, shape in self.plan.values.items() if self.interface[name] is not shape.dtype}

    def _orders(self) -> dict[str, list[int]]:
        """How the loader turns weights that are stored in another order of dimensions."""
        return {name: list(tensor.order) for name, tensor in self.tensors.items() if tensor.order}

    def _size(self, name: str) -> int:
        return self.plan.values[name].with_dtype(self.interface[name]).byte_size

    def _var(self, name: str) -> str:
        return name if name in self.bound else ""

    def _input(self, name: str) -> InputTensor:
        tensor = self.tensors.get(name)
        if tensor is None:
            return InputTensor(name, self.interface[name], self.plan.values[name].dims, self._size(name), self._var(name))
        return InputTensor(name, self.interface[name], tensor.dims, self._size(name), self._var(name), tensor.number,
                           tensor.hlo, tensor.role, tensor.framework if tensor.role == WEIGHT else "")

    def _output(self, name: str) -> OutputTensor:
        return OutputTensor(name, self.interface[name], self.plan.values[name].dims, self._size(name), self._var(name))

    def _outputs(self) -> tuple[OutputTensor, ...]:
        """The module's results in tuple order."""
        found = []
        for name, (path, _) in zip(self.plan.results, leaf_shapes(self.module.entry.root.shape), strict=True):
            source = self.plan.aliases.get(name)
            owner = self.tensors[source].number if source else None
            found.append(OutputTensor(name, self.interface[name], self.plan.values[name].dims, self._size(name),
                                      self._var(name), path, owner))
        return tuple(found)

    def _aliases(self) -> tuple[Alias, ...]:
        """What the module says about sharing, parameters numbered as in the module as read."""
        paths = {path for path, _ in leaf_shapes(self.module.entry.root.shape)}
        numbers = self._numbers()
        return tuple(Alias(alias.output_index, numbers[alias.parameter], alias.kind.partition("-")[0])
                     for alias in self.module.aliases if alias.output_index in paths and not alias.parameter_index)

    def _numbers(self) -> dict[int, int]:
        """Number in the module as read, by number in the module as compiled."""
        found = {}
        names = iter(self.plan.parameters)
        for index, parameter in enumerate(self.module.entry.parameters):
            for _ in leaf_shapes(parameter.shape):
                found[index] = self.tensors[next(names)].number
        return found

    # The device

    def _subgraph(self, core: int) -> Subgraph:
        program = self.codes[core].program
        images, table = encode(program, self.target.members)
        engines = {self.target.engines[engine].definition_key: _engine_code(image) for engine, image in images.items()}
        variables, files = self._variables(core)
        rows = queue_sets(program, self.target.dma.queues, self.target.members)
        queues = {name: QueueSet(**row) for name, row in rows.items()}
        return Subgraph(variables, queues, engines if program.entries else {}, tuple(files), self._kelf(core), table)

    def _kelf(self, core: int) -> int:
        """The kelf node of a core: one for all if there is one core, else one for each device region."""
        if len(self.codes) == 1:
            return 0
        return next(node.region for node in self.plan.nodes if node.core == core)

    def _variables(self, core: int) -> tuple[dict[str, Variable], list[RawMember]]:
        code = self.codes[core]
        program = code.program
        found = {VARIABLES[memory]: Variable(kind, number, size) for number, (memory, kind, size) in enumerate((
            (next(iter(VARIABLES)), "tmp-buf", program.hbm_bytes),
            (list(VARIABLES)[1], "state-buffer", program.sbuf_bytes * self.target.partitions)))}
        made = {name for node in self.plan.nodes_of(core) for name in node.outputs}
        for name, binding in code.bindings.items():
            found[name] = Variable(self._kind(name, name in made), len(found), binding.size,
                                   nxcc=_place(binding, code.second.get(name)))
        files: list[RawMember] = []
        names: dict[int, str] = {}
        for binding, literal in code.constants:
            number = len(found)
            file = names.get(id(literal))
            if file is None:
                file = names[id(literal)] = f"w{number}.bin"
                files.append(RawMember(file, literal_data(literal)))
                self.constants.put(literal, f"{subgraph_name(core)}/{file}")
            found[binding.name] = Variable("file", number, binding.size, file_name=file, nxcc=_place(binding))
        return found, files

    def _kind(self, name: str, is_made: bool) -> str:
        """What a value is to its core; on one core, values between nodes are its own business."""
        if name in self.tensors or (len(self.codes) > 1 and not is_made):
            return "input"
        return "output" if name in self.plan.results or len(self.codes) > 1 else "tmp-buf"

    # Nodes and their HLO

    def _node(self, number: int, node: PlanNode) -> Node:
        inputs = tuple(self._input(name) for name in node.inputs)
        outputs = tuple(self._output(name) for name in node.outputs)
        if node.on_device:
            kelf, subgraph = kelf_member(self._kelf(node.core)), subgraph_name(node.core) if len(self.codes) > 1 else ""
            return Node(number, NEURON_CORE, node.name, inputs, outputs, kelf, node.name, subgraph, nxcc=self._streaming(node))
        constants = self._take_constants(node.module)
        self.host_modules.append(HostModule(str(number), self._text(node.module)))
        return Node(number, CPU, node.name, inputs, outputs, hlo=f"host/{number}.hlo", constants=constants,
                    nxcc=self._streaming(node))

    def _streaming(self, node: PlanNode) -> dict[str, Any]:
        """What a stage has for a stream of requests: the entry of second places, and values that pass it."""
        if len(self.codes) == 1:
            return {}
        second = {"second": node.name + SECOND} if node.on_device else {}
        return second | {"passing": list(self.plan.passing(node))}

    def _text(self, module: Module) -> str:
        return write_text(module, metadata=not self.labels.strip)

    def _stripped(self) -> dict[str, Any]:
        """The whole module as compiled, its large constants in members; evaluated by `verify`."""
        constants = self._take_constants(self.module)
        self.host_modules.append(HostModule(MODULE_NAME, self._text(self.module)))
        rows = [{"hlo": row.hlo, "file": row.file, "dtype": row.dtype.name, "shape": list(row.shape)} for row in constants]
        return {"hlo": f"host/{MODULE_NAME}.hlo", "constants": rows}

    def _take_constants(self, module: Module) -> tuple[HostConstant, ...]:
        """Turn large constants of the entry into parameters behind the others; which members hold them."""
        _shorten_splats(module)
        entry = module.entry
        large = [i for i in entry.instructions if i.opcode == "constant" and _is_large(i)]
        builder = Builder(entry)
        count = len(entry.parameters)
        found = []
        for number, constant in enumerate(large, count):
            literal: Literal = constant.attributes["literal"]
            builder.location = constant.location
            parameter = builder.parameter(number, constant.shape.without_layout(), f"{constant.name}.constant")
            entry.replace(constant, parameter)
            entry.remove(constant)
            found.append(HostConstant(parameter.name, self.constants.host_member(literal), literal.shape.dtype,
                                      literal.shape.dims))
        if large:
            entry.sort()
            module.entry_layout = None
        return tuple(found)


def _shorten_splats(module: Module) -> None:
    """Write large constants of one repeated element as that element, broadcast: their text would have all of them."""
    for computation in module.computations:
        builder = Builder(computation)
        splats = [i for i in computation.instructions if i.opcode == "constant" and _is_large(i, splat=True)]
        for constant in splats:
            literal: Literal = constant.attributes["literal"]
            builder.location = constant.location
            element = builder.splat(literal.shape.dtype, (), literal.splat_value)
            computation.replace(constant, builder.broadcast(element, literal.shape.dims, ()))
            computation.remove(constant)
        if splats:
            computation.sort()


def _is_large(constant: Instruction, splat: bool = False) -> bool:
    literal: Literal = constant.attributes["literal"]
    shape: Shape = literal.shape
    return shape.is_array and shape.byte_size > LARGE_CONSTANT_BYTES and literal.is_splat == splat


def _engine_code(image: EngineImage) -> EngineCode:
    return EngineCode(image.json, image.binary)


def _place(binding: Binding, second: int | None = None) -> dict[str, Any]:
    return Place(binding.address, binding.dtype, binding.dims, second).to_json()


def debug_map(codes: Sequence[DeviceCode], target: Target) -> DebugMap:
    """Which HLO instruction each machine instruction comes from, by its number in its engine's stream."""
    entries = tuple(SourceEntry(row.name, row.op_name, row.source, layer_of(row.op_name)) for row in codes[0].debug)
    found: list[InstructionRange] = []
    for core, code in enumerate(codes):
        folder = f"{subgraph_name(core)}/" if core else ""
        keys = {engine: f"{folder}{facts.definition_key}" for engine, facts in target.engines.items()}
        found += _ranges(code.program, keys)
    return DebugMap(entries, tuple(found))


def _ranges(program: Program, keys: Mapping[Engine, str]) -> list[InstructionRange]:
    counts = dict.fromkeys(Engine, 0)
    found: list[InstructionRange] = []
    for _, engine, stream in program.streams():
        number = counts[engine]
        for indices, group in groupby(debug_indices(stream)):
            first, number = number, number + sum(1 for _ in group)
            if indices:
                step = (indices.step, len(indices)) if len(indices) > 1 else ()
                found.append(InstructionRange(keys[engine], first, number - 1, indices.start, *step))
        counts[engine] = number
    return found


def layer_of(op_name: str) -> str:
    """The scope in a framework's operation name: without the traced function in front and the operation at the end."""
    parts = op_name.split("/")[:-1]
    while parts and re.fullmatch(r"(jit|pjit|xla_call|jvp|vmap)\(.*\)", parts[0]):
        parts = parts[1:]
    return "/".join(parts)
