"""From HLO modules that the device can run to a machine program and the map of device memory.

Each instruction becomes a region: its rule writes a tile program once per structure (operator, attributes, shapes, dtypes,
strides), equal regions share it and are relocated by argument registers. What only moves data by strides becomes a view and
costs nothing; tuples, calls and fusions dissolve; while and conditional become loops and branches of the main streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

from nxcc.backends.arena import Arena, Buffer, Lifetime
from nxcc.backends.assembly import AssembledFunction, assemble, plan_of
from nxcc.backends.berths import ALONE, FIRST_OF_REGIONS, Berth, Entrance, Footprint, Work, room, touched
from nxcc.backends.isa.program import Function, Memory, Program
from nxcc.backends.lowering.fused import has_products, is_program
from nxcc.backends.lowering.images.program import passes_over_weights
from nxcc.backends.lowering.registry import Rule, rules
from nxcc.backends.lowering.turning import comes_in_elements
from nxcc.backends.lowering.views import VIEW_OPCODES, as_view, copy_view
from nxcc.backends.mainstream import MainStreams
from nxcc.backends.searching import Written, best_choices
from nxcc.backends.synchronization import Plan
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Clock, Copies, Findings, Kernel
from nxcc.backends.tile.expressions import Expr, Symbol
from nxcc.backends.tile.program import ARGUMENT_UNIT, TileProgram, View, contiguous
from nxcc.backends.unroll import unrolled
from nxcc.ir.diagnostics import OUT_OF_MEMORY, UNSUPPORTED, CompileError
from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.literals import Literal
from nxcc.ir.shapes import Shape

MAX_ARGUMENTS = 24
"""Regions with more operands and results than this get fixed addresses and are not shared; registers hold the rest."""


ATTEMPTS = ((Berth.LOWER, Copies(2, 2)), (Berth.WHOLE, Copies(2, 2)), (Berth.LOWER, Copies(2, 1)), (Berth.WHOLE, Copies(2, 1)),
            (Berth.WHOLE, Copies(1, 1)))
"""Parts of the machine and rotating tiles to try, best first; the last is what level 0 uses."""

ATTEMPT = "attempt"
"""Name of the choice from which of these on a region is tried."""

WORK_STEPS = 8
"""A region that does not fit where it should is tried in so many parts of SBUF more, one after the other."""

SMALL_CONSTANT_BYTES = 4096
"""Constants up to this size are compared by content, so that equal ones share memory and code; larger ones by identity."""


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
    arena that hold values of the program's own for a while. work: where on chip each region works, in order."""

    program: Program
    bindings: dict[str, Binding]
    constants: list[tuple[Binding, Literal]]
    debug: list[DebugEntry]
    regions: list[RegionReport] = field(default_factory=list)
    scratch: list[Lifetime] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Lowered:
    """A region's tile program and what waits for what in it. need: what it has of the machine if others may run beside it."""

    program: TileProgram
    plan: Plan
    need: Footprint | None


@dataclass(frozen=True, slots=True)
class Located:
    """An array value: a view and the buffer it lies in."""

    view: View
    buffer: Buffer


Value = Any
"""Located, or a tuple of values; None for tokens."""


def generate(nodes: Sequence[DeviceNode], values: Mapping[str, Shape], target: Target, *, optlevel: int = 0,
             aliases: Mapping[str, str] | None = None, exact_transposes: bool = False,
             debug: list[DebugEntry] | None = None, work_bytes: int = 0, clock: Clock | None = None,
             jobs: int = 1, findings: Findings | None = None) -> DeviceCode:
    """Machine code of the nodes over one arena.

    values: shapes of all names that cross a node's border. aliases: output name -> input name whose memory it takes.
    exact_transposes: see `tile.builder.Kernel`. debug: entries of other code with which this shares one map; added to, one for
    each region. work_bytes: of a partition of SBUF that a region may have, 0 for all. clock: what level 3 times products on, in
    so many processes as `jobs` says, which decide nothing; findings: what it found before, added to.
    Raises CompileError(NXC0300) for an instruction without a lowering, NXC0302 if memory does not suffice, or a fused region
    does not fit into work_bytes.
    """
    generator = _Generator(target, optlevel, exact_transposes, [] if debug is None else debug, work_bytes)
    generator.clock, generator.jobs, generator.findings = clock, jobs, {} if findings is None else findings
    generator.bind(nodes, values, aliases or {})
    for node in nodes:
        generator.node(node)
    return generator.finish()


def leaves(value: Value) -> list[Located]:
    """Array leaves of a value, depth first; tokens left out."""
    if isinstance(value, Located):
        return [value]
    if value is None:
        return []
    return [leaf for element in value for leaf in leaves(element)]


class _Generator:
    def __init__(self, target: Target, optlevel: int, exact_transposes: bool, debug: list[DebugEntry], work_bytes: int) -> None:
        self.target = target
        self.work_bytes = work_bytes
        self.optlevel = optlevel
        self.clock: Clock | None = None
        self.jobs = 1
        self.findings: Findings = {}
        self.exact_transposes = exact_transposes
        self.arena = Arena(target.hbm.bytes, len(debug))
        self.main = MainStreams(target)
        self.functions: list[Function] = []
        self.entries: list[Function] = []
        self.bindings: dict[str, Binding] = {}
        self.external: dict[str, Located] = {}
        self.constants: list[tuple[Binding, Literal]] = []
        self.debug = debug
        self.regions: list[RegionReport] = []
        self.work: list[Work] = []
        self.sbuf_bytes = 0
        self.semaphores = FIRST_OF_REGIONS
        self._lowered: dict[Any, Lowered] = {}
        self._regions: dict[Any, tuple[int, AssembledFunction]] = {}
        self._constants: dict[Any, Located] = {}
        self._bodies: Bodies = {}
        self._answers: dict[Any, Any] = {}
        self._placed: dict[Instruction, Located] = {}
        self._entry: Computation | None = None
        self._place = ("", "")

    # ---- borders ------------------------------------------------------------------------------------------------

    def bind(self, nodes: Sequence[DeviceNode], values: Mapping[str, Shape], aliases: Mapping[str, str]) -> None:
        """Give every named value and large constant its place; an aliased output takes its input's.

        From level 1 on they lie in order of use, so that the addresses of equal layers advance evenly (see backends.rolling).
        """
        produced = {name for node in nodes for name in node.outputs}
        donated = set(aliases.values())
        for used in order_of_use(nodes) if self.optlevel else ():
            if isinstance(used, Literal):
                self._literal(used)
            elif used in values and used not in aliases and used not in self.external:
                self._bind(used, values[used], mutable=used in produced or used in donated)
        for name, shape in values.items():
            if name not in aliases and name not in self.external:
                self._bind(name, shape, mutable=name in produced or name in donated)
        for output, source in aliases.items():
            if output in values:
                self._name(output, self.external[source])

    def _bind(self, name: str, shape: Shape, mutable: bool) -> None:
        self._name(name, self._allocate(shape.dtype, shape.dims, pinned=True, mutable=mutable))

    def _name(self, name: str, located: Located) -> None:
        self.external[name] = located
        view = located.view
        self.bindings[name] = Binding(name, view.dtype, view.sizes, located.buffer.address,
                                      view.elements * view.dtype.byte_size)

    def _allocate(self, dtype: DType, dims: Sequence[int], *, pinned: bool = False, mutable: bool = True) -> Located:
        size = dtype.byte_size
        dims_ = contiguous(dims, size)
        total = size
        for extent in dims:
            total *= extent
        buffer = self.arena.allocate(total, pinned=pinned, mutable=mutable)
        return Located(View(Memory.HBM, dtype, Expr(buffer.address), dims_), buffer)

    def node(self, node: DeviceNode) -> None:
        self.main = MainStreams(self.target, self.optlevel > 0 and self.target.features.control_flow)
        arguments = []
        for name, parameter in zip(node.inputs, node.module.entry.parameters, strict=True):
            located = self.external[name]
            arguments.append(located)
            assert located.view.dtype is parameter.shape.dtype, f"{name}: {located.view.dtype} for {parameter.shape}"
        targets = [self.external[name] for name in node.outputs]
        self._placed = self._placements(node, targets)
        self._entry = node.module.entry
        self._place = (node.name, "")
        root = self.computation(node.module.entry, arguments)
        self._placed = {}
        self.assign(targets, leaves(root))
        self.drop(root)
        self.entries.append(self.main.finish(node.name))

    def _placements(self, node: DeviceNode, targets: Sequence[Located]) -> dict[Instruction, Located]:
        """Results that are computed right where the caller wants them: outputs that share no memory with an input."""
        root = node.module.entry.root
        values = root.operands if root.opcode == "tuple" else (root,)
        if self.optlevel == 0 or len(values) != len(targets):
            return {}
        inputs = {id(self.external[name].buffer) for name in node.inputs}
        return {value: target for value, target in zip(reversed(values), reversed(targets), strict=True)
                if value.shape.is_array and id(target.buffer) not in inputs}

    def finish(self) -> DeviceCode:
        program = Program(self.functions, self.entries, self.sbuf_bytes, self.arena.end, self.semaphores)
        if not self.target.features.registers:
            program = unrolled(program)
        return DeviceCode(program, self.bindings, self.constants, self.debug, self.regions, self.arena.lifetimes,
                          self.work)

    # ---- values and their lifetime ------------------------------------------------------------------------------

    def keep(self, value: Value) -> Value:
        """Count one more holder of a value."""
        for leaf in leaves(value):
            self.arena.retain(leaf.buffer)
        return value

    def drop(self, value: Value) -> None:
        for leaf in leaves(value):
            self.arena.release(leaf.buffer)

    def computation(self, computation: Computation, arguments: Sequence[Value]) -> Value:
        """Emit a computation; arguments stay the caller's. The result is held once for the caller."""
        environment: dict[Instruction, Value] = {}
        order = _projections_first(computation.post_order())
        needed = _needed(computation, order)
        uses = {i: sum(1 for user in i.users if user in needed) for i in needed}
        uses[computation.root] += 1
        for instruction in order:
            if instruction not in needed:
                continue
            if instruction.opcode == "parameter":
                value = arguments[int(instruction.attributes["parameter_number"])]
            else:
                if computation is self._entry:
                    self._place = (self._place[0], instruction.name)
                last = {o for o in instruction.operands if uses[o] == 1}
                value = self.instruction(instruction, [environment[o] for o in instruction.operands],
                                         [o in last and instruction.operands.count(o) == 1 for o in instruction.operands])
            environment[instruction] = self.keep(value)
            for operand in dict.fromkeys(instruction.operands):
                uses[operand] -= 1
                if not uses[operand]:
                    self.drop(environment.pop(operand))
            if not uses[instruction]:
                self.drop(environment.pop(instruction))
        return environment[computation.root]

    # ---- instructions -------------------------------------------------------------------------------------------

    def instruction(self, instruction: Instruction, operands: list[Value], last_use: list[bool]) -> Value:
        """The value of one instruction, emitting code where it costs any."""
        if is_program(instruction):
            return self._fused(instruction, operands, last_use)
        if instruction.opcode == "copy" and not instruction.shape.is_array:
            return operands[0]
        structural = _STRUCTURAL.get(instruction.opcode)
        if structural is not None:
            return structural(self, instruction, operands)
        view = as_view(instruction, [o.view if isinstance(o, Located) else None for o in operands])
        if view is not None:
            return Located(view, operands[0].buffer)
        return self.region(instruction, operands, last_use)

    def _fused(self, instruction: Instruction, operands: list[Value], last_use: list[bool]) -> Value:
        """A fused region; if its tiles do not fit after all or it is not exact enough, its instructions one by one."""
        if self.exact_transposes and passes_over_weights(instruction):
            return self.call(instruction, operands)
        try:
            return self.region(instruction, operands, last_use)
        except CompileError as error:
            if error.code is not OUT_OF_MEMORY:
                raise
            return self.call(instruction, operands)

    def region(self, instruction: Instruction, operands: list[Value], last_use: list[bool]) -> Value:
        """Emit a region by its rule."""
        rule = rules().get(instruction.opcode)
        if rule is None:
            raise CompileError(UNSUPPORTED, f"{instruction.opcode} has no device lowering", where=instruction.name,
                               location=str(instruction.location))
        operands = list(operands)
        copies = []
        for index in rule.contiguous:
            if not operands[index].view.is_contiguous:
                operands[index] = self.keep(self._compact(operands[index]))
                copies.append(operands[index])
        given = [o.view if isinstance(o, Located) else None for o in operands]
        for index, wanted in self._once("lies", instruction, given, lambda: self._rearranged(rule, instruction, given)):
            operands[index] = self.keep(self._laid_out(operands[index], wanted))
            copies.append(operands[index])
        arrays = [leaf for operand in operands for leaf in leaves(operand)]
        taken = self._take_over(rule.in_place, operands, last_use) if instruction.shape.is_array else None
        views = [leaf.view for leaf in arrays]
        order = self._once("order", instruction, views, lambda: self._order(rule, instruction, views))
        result = taken or self._place_for(instruction, order)
        if result is None:
            result = self._result(instruction.shape, order)
        self._call(instruction, views, [leaf.view for leaf in leaves(result)])
        for copied in copies:
            self.drop(copied)
        return result

    def _once(self, question: str, instruction: Instruction, views: Sequence[View | None], ask: Callable[[], Any]) -> Any:
        """An answer that depends on what a region computes and how its operands lie: regions of equal layers share it."""
        if instruction.opcode != "fusion":
            return ask()
        key = (question, instruction.called[0], *[view and (view.dtype, view.dims) for view in views])
        if key not in self._answers:
            self._answers[key] = ask()
        return self._answers[key]

    def _place_for(self, instruction: Instruction, order: Sequence[int] | None) -> Located | None:
        """Where the caller wants a result, unless the rule would write it there element by element; it is copied then."""
        placed = self._placed.get(instruction)
        if placed is None or order is None:
            return placed
        fastest = next((d for d in reversed(order) if instruction.shape.dims[d] > 1), None)
        dims = range(len(order))
        return None if any(d != fastest and comes_in_elements(placed.view, d) for d in dims) else placed

    def _rearranged(self, rule: Rule, instruction: Instruction,
                    operands: Sequence[View | None]) -> list[tuple[int, Sequence[int]]]:
        """Operands that are copied into another order of memory first."""
        if self.optlevel == 0 or rule.lies is None:
            return []
        return list(rule.lies(instruction, operands))

    def _laid_out(self, value: Located, order: Sequence[int]) -> Located:
        """The value in a buffer of its own; order: dimensions from the slowest to the fastest."""
        shape = Shape(value.view.dtype, value.view.sizes)
        fresh: Located = self._result(shape, order)
        self.copy(fresh, value)
        return fresh

    def _compact(self, value: Located) -> Located:
        """The value in row-major order in a buffer of its own."""
        fresh = self._allocate(value.view.dtype, value.view.sizes)
        self.copy(fresh, value)
        return fresh

    def _take_over(self, operand: int | None, operands: list[Value], last_use: list[bool]) -> Located | None:
        """The operand's buffer, if the result may overwrite it: nobody else holds it, and it is written whole."""
        if operand is None or not last_use[operand] or not isinstance(operands[operand], Located):
            return None
        located: Located = operands[operand]
        buffer = located.buffer
        alone = sum(1 for o in operands for leaf in leaves(o) if leaf.buffer is buffer) == 1
        if alone and buffer.mutable and buffer.references - buffer.loans == 1 and located.view.is_contiguous:
            return located
        return None

    def _result(self, shape: Shape, order: Sequence[int] | None = None) -> Value:
        """Fresh buffers; order: dimensions of an array from the slowest to the fastest in memory."""
        if not shape.is_array:
            return tuple(self._result(element) for element in shape.elements)
        if order is None:
            return self._allocate(shape.dtype, shape.dims)
        located = self._allocate(shape.dtype, [shape.dims[d] for d in order])
        return Located(located.view.permute([order.index(d) for d in range(shape.rank)]), located.buffer)

    def _order(self, rule: Rule, instruction: Instruction, operands: Sequence[View]) -> Sequence[int] | None:
        """How a result lies in memory: as its rule says, or as an operand of the same sizes whose order suits it."""
        if self.optlevel == 0 or not instruction.shape.is_array:
            return None
        order = rule.order(instruction) if rule.order is not None else None
        if order is not None:
            return order
        if rule.follows is None:
            return None
        for operand in operands:
            dims = operand.dims
            if operand.sizes == instruction.shape.dims and all(stride > 0 for stride, size in dims if size > 1):
                order = sorted(range(len(dims)), key=lambda d: (-dims[d][0] if dims[d][1] > 1 else 0, d))
                if rule.follows(instruction, order):
                    return order
        return None

    def _call(self, instruction: Instruction, operands: list[View], results: list[View]) -> None:
        if all(view.elements == 0 for view in results):
            return
        views = operands + results
        shared = len(views) <= MAX_ARGUMENTS
        addresses = [view.address.constant for view in views]
        key = (structure_of(instruction, self._bodies), len(operands), tuple(_signature(v) for v in views),
               _overlaps(addresses), None if shared else tuple(addresses))
        location = instruction.location
        source = f"{location.source_file}:{location.source_line}" if location.source_file else ""
        self.debug.append(DebugEntry(instruction.name, location.op_name, source))
        self.arena.region = len(self.debug)
        lowered = self._lowered.get(key)
        if lowered is None:
            lowered = self._lowered[key] = self._lower(instruction, operands, results, shared)
        need = lowered.need if shared else None
        entrance = self.main.entrance(operands, results, need) if need else ALONE
        found = self._regions.get((key, entrance))
        if found is None:
            found = self._regions[key, entrance] = self._assemble(lowered, entrance)
        index, assembled = found
        arguments = {register: address // ARGUMENT_UNIT
                     for register, address in zip(assembled.argument_registers, dict.fromkeys(addresses), strict=False)}
        self.main.call(index, assembled, arguments, len(self.debug) - 1, entrance, touched(operands, results), need)
        self.regions.append(RegionReport(instruction.name, instruction.opcode, assembled.function.name, *self._place))
        self.work.append(Work(len(self.debug) - 1, entrance.sbuf_start, lowered.program.sbuf_bytes, entrance.lag))

    def _assemble(self, lowered: Lowered, entrance: Entrance) -> tuple[int, AssembledFunction]:
        """The region's streams for a way to begin."""
        assembled = assemble(lowered.program, self.target, lowered.plan, entrance)
        self.semaphores = max(self.semaphores, assembled.semaphores)
        self.functions.append(assembled.function)
        self.sbuf_bytes = max(self.sbuf_bytes, entrance.sbuf_start + lowered.program.sbuf_bytes)
        return len(self.functions) - 1, assembled

    def _lower(self, instruction: Instruction, operands: list[View], results: list[View], shared: bool) -> Lowered:
        """Write the region's tile program; its code carries the number of the first call's debug entry."""
        if self.optlevel < 3 or self.clock is None or not has_products(instruction):
            return self._first(instruction, operands, results, shared, {})[0]

        def write(choices: Mapping[str, int]) -> Written | None:
            try:
                lowered, asked = self._first(instruction, operands, results, shared, choices)
            except CompileError as error:
                if error.code is not OUT_OF_MEMORY:
                    raise
                return None
            need, whole = lowered.need, room(self.target, Berth.WHOLE)
            return Written(lowered.program, lowered.plan, asked, need is not None and 2 * need.sbuf_bytes <= whole.sbuf_bytes
                           and 2 * need.psum_banks <= whole.psum_banks)

        choices = best_choices(write, self.clock, self.target, [view.address.constant for view in operands + results],
                               self.findings, self._is_alone())
        return self._first(instruction, operands, results, shared, choices)[0]

    def _is_alone(self) -> bool:
        return self._entry is not None and _has_one_region(self._entry)

    def _first(self, instruction: Instruction, operands: list[View], results: list[View], shared: bool,
               choices: Mapping[str, int]) -> tuple[Lowered, Mapping[str, int]]:
        """The first attempt that fits, from that on which is chosen; and what the rule asked for."""
        attempts = self._attempts()
        for berth, copies, limit in attempts[min(choices.get(ATTEMPT, 0), len(attempts) - 1):]:
            try:
                kernel = self._write(instruction, operands, results, shared, berth, copies, limit, choices)
            except CompileError as error:
                if error.code is not OUT_OF_MEMORY or (berth, copies, limit) == attempts[-1]:
                    raise
                continue
            plan = plan_of(kernel.program, self.target, self.optlevel > 0)
            shares = plan.overlaps and plan.semaphores <= room(self.target, Berth.LOWER).semaphores
            program = kernel.program
            need = Footprint(program.sbuf_bytes, program.psum_banks, plan.semaphores) if shares else None
            return Lowered(program, plan, need), {ATTEMPT: len(attempts) - 1, **kernel.asked}
        raise AssertionError("the last attempt returns or raises")

    def _attempts(self) -> list[tuple[Berth, Copies, int]]:
        """Berth, rotating tiles and bytes of a partition (0: what the berth has) to try, best first.

        Where regions should be small, they get more before they work without rotating tiles.
        """
        if self.optlevel == 0:
            return [(*ATTEMPTS[-1], 0)]
        usable = self.target.sbuf.usable_bytes
        limits = range(self.work_bytes, usable, usable // WORK_STEPS) if self.work_bytes else ()
        return [*((berth, copies, limit) for limit in limits for berth, copies in ATTEMPTS if copies.rotates),
                *((berth, copies, 0) for berth, copies in ATTEMPTS)]

    def _write(self, instruction: Instruction, operands: list[View], results: list[View], shared: bool, berth: Berth,
               copies: Copies, work_bytes: int, choices: Mapping[str, int]) -> Kernel:
        """The tile program for part of the machine; CompileError(NXC0302) if it does not fit."""
        kernel = Kernel(f"{instruction.opcode}.{len(self._lowered)}", self.target, copies,
                        room(self.target, berth, work_bytes), room(self.target, Berth.WHOLE, work_bytes))
        kernel.debug = len(self.debug) - 1
        kernel.tf32 = _multiplies_tf32(instruction)
        kernel.exact_transposes = self.exact_transposes
        kernel.level, kernel.clock, kernel.jobs, kernel.findings = self.optlevel, self.clock, self.jobs, self.findings
        kernel.alone, kernel.choices = self._is_alone(), choices
        views = operands + results
        if shared:
            views = _relocatable(kernel, views)
        rules()[instruction.opcode].lower(kernel, instruction, views[:len(operands)], views[len(operands):])
        return kernel

    def copy(self, destination: Located, source: Located) -> None:
        """destination = source, as a region of its own."""
        self._call(copy_view(source.view, destination.view), [source.view], [destination.view])

    def assign(self, targets: Sequence[Located], sources: Sequence[Located]) -> None:
        """All targets = all sources at once: sources that a target would overwrite are copied aside first."""
        pending = [(t, s) for t, s in zip(targets, sources, strict=True)
                   if t.buffer is not s.buffer or t.view != s.view]
        written = {id(t.buffer) for t, _ in pending}
        staged = []
        for target, source in pending:
            if id(source.buffer) in written and target.buffer is not source.buffer or _overlapping_self(target, source):
                aside = self._allocate(source.view.dtype, source.view.sizes)
                self.keep(aside)
                self.copy(aside, source)
                staged.append((target, aside, True))
            else:
                staged.append((target, source, False))
        for target, source, temporary in staged:
            self.copy(target, source)
            if temporary:
                self.drop(source)

    # ---- structural instructions --------------------------------------------------------------------------------

    def constant(self, instruction: Instruction, operands: list[Value]) -> Value:
        return self._literal(instruction.attributes["literal"])

    def _literal(self, literal: Literal) -> Value:
        if literal.shape.is_tuple:
            return tuple(self._literal(element) for element in literal.elements)
        shape = literal.shape
        if literal.is_splat and shape.element_count > 1:
            one = Literal(Shape(shape.dtype), literal.array[(0,) * shape.rank + (...,)])
            located = self._literal(one)
            view = View(Memory.HBM, shape.dtype, located.view.address, tuple((0, size) for size in shape.dims))
            return Located(view, located.buffer)
        small = shape.byte_size <= SMALL_CONSTANT_BYTES
        key = (shape.dtype, shape.dims, literal.array.tobytes()) if small else id(literal)
        found = self._constants.get(key)
        if found is None:
            found = self._allocate(shape.dtype, shape.dims, pinned=True, mutable=False)
            binding = Binding(f"constant{len(self.constants)}", shape.dtype, shape.dims, found.buffer.address, shape.byte_size)
            self.constants.append((binding, literal))
            self._constants[key] = found
        return found

    def call(self, instruction: Instruction, operands: list[Value]) -> Value:
        return self._release_one(self.computation(instruction.called[0], operands))

    def _release_one(self, value: Value) -> Value:
        """Hand a held value on: the holder that `computation` counted becomes the caller's."""
        for leaf in leaves(value):
            leaf.buffer.references -= 1
        return value

    def while_(self, instruction: Instruction, operands: list[Value]) -> Value:
        body, condition = instruction.called
        state = self._state(instruction.shape, operands[0])
        self.keep(state)
        self.main.begin_while()
        test = self.computation(condition, [state])
        self.main.break_unless(test.view)
        self.drop(test)
        self._lend(state, 1)
        after = self.computation(body, [state])
        self._lend(state, -1)
        self.assign(leaves(state), leaves(after))
        self.drop(after)
        self.main.end()
        return self._release_one(state)

    @staticmethod
    def _lend(value: Value, count: int) -> None:
        """Let the body overwrite carried values in place once it no longer reads the old ones."""
        for leaf in leaves(value):
            leaf.buffer.loans += count

    def _state(self, shape: Shape, initial: Value) -> Value:
        """Fresh buffers that hold the loop's carried values, filled with the initial ones."""
        state = self._result(shape)
        self.keep(state)
        for target, source in zip(leaves(state), leaves(initial), strict=True):
            self.copy(target, source)
        return self._release_one(state)

    def conditional(self, instruction: Instruction, operands: list[Value]) -> Value:
        selector = operands[0]
        result = self.keep(self._result(instruction.shape))
        branches = list(zip(instruction.called, operands[1:], strict=True))
        self.main.load_selector(selector.view)
        tests = [1] if instruction.operands[0].shape.dtype.name == "pred" else list(range(len(branches) - 1))
        for test, (computation, argument) in zip(tests, branches, strict=False):
            self.main.begin_if(test)
            self._branch(computation, argument, result)
            self.main.otherwise()
        self._branch(*branches[-1], result)
        for _ in tests:
            self.main.end()
        self.main.release_selector()
        return self._release_one(result)

    def _branch(self, computation: Computation, argument: Value, result: Value) -> None:
        value = self.computation(computation, [argument])
        self.assign(leaves(result), leaves(value))
        self.drop(value)


_STRUCTURAL: dict[str, Any] = {
    "constant": _Generator.constant,
    "tuple": lambda generator, instruction, operands: tuple(operands),
    "get-tuple-element": lambda generator, instruction, operands: operands[0][instruction.attributes["index"]],
    "call": _Generator.call,
    "fusion": _Generator.call,
    "while": _Generator.while_,
    "conditional": _Generator.conditional,
    "after-all": lambda generator, instruction, operands: None,
    "add-dependency": lambda generator, instruction, operands: operands[0],
    "opt-barrier": lambda generator, instruction, operands: operands[0],
    "domain": lambda generator, instruction, operands: operands[0],
}


STRUCTURAL = frozenset(_STRUCTURAL) | {"parameter"}
"""Opcodes that cost nothing or become control flow."""

_NO_CODE = frozenset(("parameter", "constant", "tuple", "get-tuple-element")) | VIEW_OPCODES


def _has_one_region(entry: Computation) -> bool:
    return sum(instruction.opcode not in _NO_CODE for instruction in entry.post_order()) == 1


def order_of_use(nodes: Sequence[DeviceNode]) -> Iterator[str | Literal]:
    """Names and large constants that nodes read, and names that they write, in the order in which code does."""
    for node in nodes:
        entry = node.module.entry
        names = dict(zip(entry.parameters, node.inputs, strict=True))
        root = entry.root
        results = root.operands if root.opcode == "tuple" else (root,)
        written: dict[Instruction, list[str]] = {}
        for result, name in zip(results, node.outputs, strict=False):
            written.setdefault(result, []).append(name)
        for instruction in entry.post_order():
            for operand in instruction.operands:
                if operand in names:
                    yield names[operand]
                elif operand.opcode == "constant" and _is_large(operand.attributes["literal"]):
                    yield operand.attributes["literal"]
            yield from written.get(instruction, ())


def _is_large(literal: Literal) -> bool:
    return not literal.shape.is_tuple and literal.shape.byte_size > SMALL_CONSTANT_BYTES and not literal.is_splat


def _needed(computation: Computation, order: Sequence[Instruction]) -> set[Instruction]:
    """Instructions that the root depends on; on the device nothing has side effects."""
    needed = {computation.root}
    for instruction in reversed(order):
        if instruction in needed:
            needed.update(instruction.operands)
    return needed


def _projections_first(order: Sequence[Instruction]) -> list[Instruction]:
    """Parameters and their tuple elements first, so that the tuple as a whole holds no element longer than needed."""
    def rank(instruction: Instruction) -> int:
        if instruction.opcode == "parameter":
            return 0
        projects = instruction.opcode == "get-tuple-element" and instruction.operands[0].opcode == "parameter"
        return 1 if projects else 2

    return sorted(order, key=rank)


def _signature(view: View) -> Any:
    return (view.dtype.name, view.dims, view.address.constant % ARGUMENT_UNIT)


def _overlaps(addresses: Sequence[int]) -> tuple[int, ...]:
    """Which operands start at the same place: code for a result computed in place differs from code for a fresh one."""
    first: dict[int, int] = {}
    return tuple(first.setdefault(address, index) for index, address in enumerate(addresses))


def _overlapping_self(target: Located, source: Located) -> bool:
    return target.buffer is source.buffer


Bodies = dict[Computation, Any]
"""What decides the code of computations, where it is known."""


def structure_of(instruction: Instruction, bodies: Bodies | None = None) -> Any:
    """What decides a region's code besides its operand views: operator, attributes, shape, called computations.

    bodies: added to; equal layers share the computations of their regions.
    """
    attributes: tuple[Any, ...] = ()
    if instruction.attributes:
        attributes = tuple(sorted([(key, _attribute_key(value)) for key, value in instruction.attributes.items()]))
    if instruction.frontend_attributes:
        attributes += tuple(sorted((k, v) for k, v in instruction.frontend_attributes.items() if k.startswith("nxcc.")))
    shape = instruction.shape
    kind = (shape.dtype.name, shape.dims, shape.dynamic) if shape.is_array else str(shape)
    return instruction.opcode, attributes, kind, tuple([_body_key(c, bodies) for c in instruction.called])


def _multiplies_tf32(instruction: Instruction) -> bool:
    """Whether autocast lets the products of a region run on tf32 (see nxcc.passes.autocast)."""
    if instruction.opcode == "fusion":
        return any(map(_multiplies_tf32, instruction.called[0].instructions))
    return instruction.frontend_attributes.get("nxcc.matmul") == "tf32"


def _body_key(computation: Computation, bodies: Bodies | None) -> Any:
    if bodies is not None and computation in bodies:
        return bodies[computation]
    numbers: dict[Instruction, int] = {}
    rows = []
    for instruction in computation.post_order():
        numbers[instruction] = len(numbers)
        rows.append((structure_of(instruction, bodies), tuple([numbers[o] for o in instruction.operands])))
    key = _Known((tuple(rows), numbers[computation.root]))
    if bodies is not None:
        bodies[computation] = key
    return key


class _Known(tuple[Any, ...]):
    """A key that is hashed once."""

    def __hash__(self) -> int:
        found = self.__dict__.get("hash")
        if found is None:
            found = self.__dict__["hash"] = super().__hash__()
        return found


def _attribute_key(value: Any) -> Any:
    if isinstance(value, Literal):
        return (str(value.shape), value.array.tobytes() if value.shape.byte_size <= SMALL_CONSTANT_BYTES else id(value))
    return repr(value)


def _relocatable(kernel: Kernel, views: Sequence[View]) -> list[View]:
    """The views with their addresses in argument registers; equal addresses share one, so that a rule sees what is in place."""
    symbols: dict[int, Symbol] = {}
    moved = []
    for view in views:
        address = view.address.constant
        if address not in symbols:
            symbols[address] = kernel.symbol("a", "argument", 0, kernel.target.hbm.bytes // ARGUMENT_UNIT)
        base = Expr(address % ARGUMENT_UNIT, ((symbols[address], ARGUMENT_UNIT),))
        moved.append(View(view.memory, view.dtype, base, view.dims))
    kernel.program.arguments = tuple(symbols.values())
    return moved
