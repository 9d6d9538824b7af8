"""From HLO modules that the device can run to a machine program and the map of device memory.

Each instruction becomes a region: its rule writes a tile program once per structure (operator, attributes, shapes, dtypes,
strides), equal regions share it and are relocated by argument registers. What only moves data by strides becomes a view and
costs nothing; tuples, calls and fusions dissolve; while and conditional become loops and branches of the main streams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nxcc.backends.assembly import AssembledFunction, assemble
from nxcc.backends.berths import ALONE, FIRST_OF_REGIONS, Entrance, Work, touched
from nxcc.backends.codegen.arena import Arena
from nxcc.backends.codegen.attempts import Lowered, Manner, RegionWriter
from nxcc.backends.codegen.code import Binding, DebugEntry, DeviceCode, DeviceNode, RegionReport
from nxcc.backends.codegen.control import RULES
from nxcc.backends.codegen.lapping import Reach, lapped, reaches_of
from nxcc.backends.codegen.mainstream import MainStreams
from nxcc.backends.codegen.orders import in_order, needed, order_of_result, order_of_use, works_alone
from nxcc.backends.codegen.structure import SMALL_CONSTANT_BYTES, Bodies, overlaps, signature, structure_of
from nxcc.backends.codegen.unroll import unrolled
from nxcc.backends.codegen.values import Located, Value, leaves, release_one
from nxcc.backends.isa.program import Function, Memory, Program
from nxcc.backends.lowering.fused import is_program
from nxcc.backends.lowering.images.program import passes_over_weights
from nxcc.backends.lowering.registry import Rule, rules
from nxcc.backends.lowering.turning import comes_in_elements
from nxcc.backends.lowering.views import as_view, copy_view
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Clock, Findings
from nxcc.backends.tile.expressions import Expr
from nxcc.backends.tile.program import ARGUMENT_UNIT, View, contiguous
from nxcc.ir.diagnostics import OUT_OF_MEMORY, UNSUPPORTED, CompileError
from nxcc.ir.dtypes import DType
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.literals import Literal
from nxcc.ir.shapes import Shape

MAX_ARGUMENTS = 28
"""Regions with more operands and results than this get fixed addresses and are not shared; registers hold the rest."""


def generate(nodes: Sequence[DeviceNode], values: Mapping[str, Shape], target: Target, *, optlevel: int = 0,
             aliases: Mapping[str, str] | None = None, exact_transposes: bool = False,
             debug: list[DebugEntry] | None = None, work_bytes: int = 0, clock: Clock | None = None,
             jobs: int = 1, findings: Findings | None = None, written: dict[Any, Lowered] | None = None) -> DeviceCode:
    """Machine code of the nodes over one arena.

    values: shapes of all names that cross a node's border. aliases: output name -> input name whose memory it takes.
    exact_transposes: see `tile.builder.Kernel`. debug: entries of other code with which this shares one map; added to, one for
    each region. work_bytes: of a partition of SBUF that a region may have, 0 for all. clock: what level 3 times products on, in
    so many processes as `jobs` says, which decide nothing; findings: what it found before, added to. written: tile programs of
    the same nodes with more room, which stand here too where they fit; those that are new are added.
    Raises CompileError(NXC0300) for an instruction without a lowering, NXC0302 if memory does not suffice, or a fused region
    does not fit into work_bytes.
    """
    manner = Manner(optlevel, exact_transposes, work_bytes, clock, jobs, {} if findings is None else findings)
    generator = Generator(target, manner, [] if debug is None else debug, {} if written is None else written)
    generator.bind(nodes, values, aliases or {})
    for node in nodes:
        generator.node(node)
    return generator.finish()


class Generator:
    """Walks nodes' computations: what is emitted, what is in device memory, who still holds it."""

    def __init__(self, target: Target, manner: Manner, debug: list[DebugEntry], written: dict[Any, Lowered]) -> None:
        self.target = target
        self.optlevel = manner.optlevel
        self.exact_transposes = manner.exact_transposes
        self.writer = RegionWriter(target, manner, written)
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
        self._regions: dict[Any, tuple[int, AssembledFunction]] = {}
        self._reaches: dict[Any, list[Reach]] = {}
        self._laps: dict[Any, Entrance] = {}
        self._constants: dict[Any, Located] = {}
        self._bodies: Bodies = {}
        self._answers: dict[Any, Any] = {}
        self._placed: dict[Instruction, Located] = {}
        self._entry: Computation | None = None
        self._place = ("", "")

    # ---- borders ------------------------------------------------------------------------------------------------

    def bind(self, nodes: Sequence[DeviceNode], values: Mapping[str, Shape], aliases: Mapping[str, str]) -> None:
        """Give every named value and large constant its place; an aliased output takes its input's.

        From level 1 on they lie in order of use, so that the addresses of equal layers advance evenly (see rolling.py).
        """
        produced = {name for node in nodes for name in node.outputs}
        donated = set(aliases.values())
        for used in order_of_use(nodes) if self.optlevel else ():
            if isinstance(used, Literal):
                self.literal(used)
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
        self.writer.alone = works_alone(self._entry)
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
        order = in_order(computation.post_order(), self.optlevel > 0 and computation is self._entry)
        alive = needed(computation, order)
        uses = {i: sum(1 for user in i.users if user in alive) for i in alive}
        uses[computation.root] += 1
        for instruction in order:
            if instruction not in alive:
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
        rule = RULES.get(instruction.opcode)
        if rule is not None:
            return rule(self, instruction, operands)
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
        for index, wanted in self._once("lies", instruction, given, lambda: self._copied_first(rule, instruction, given)):
            operands[index] = self.keep(self._laid_out(operands[index], wanted))
            copies.append(operands[index])
        arrays = [leaf for operand in operands for leaf in leaves(operand)]
        taken = self._take_over(rule.in_place, operands, last_use) if instruction.shape.is_array else None
        views = [leaf.view for leaf in arrays]
        order = self._once("order", instruction, views, lambda: self._order(rule, instruction, views))
        result = taken or self._place_for(instruction, order)
        if result is None:
            result = self.result(instruction.shape, order)
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

    def _copied_first(self, rule: Rule, instruction: Instruction,
                      operands: Sequence[View | None]) -> list[tuple[int, Sequence[int]]]:
        """Operands that are copied into another order of memory first."""
        return list(rule.lies(instruction, operands)) if self.optlevel and rule.lies is not None else []

    def _order(self, rule: Rule, instruction: Instruction, operands: Sequence[View]) -> Sequence[int] | None:
        """How a result lies in memory: dimensions from the slowest to the fastest; None for row-major."""
        return order_of_result(rule, instruction, operands) if self.optlevel and instruction.shape.is_array else None

    def _laid_out(self, value: Located, order: Sequence[int]) -> Located:
        """The value in a buffer of its own; order: dimensions from the slowest to the fastest."""
        shape = Shape(value.view.dtype, value.view.sizes)
        fresh: Located = self.result(shape, order)
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

    def result(self, shape: Shape, order: Sequence[int] | None = None) -> Value:
        """Fresh buffers; order: dimensions of an array from the slowest to the fastest in memory."""
        if not shape.is_array:
            return tuple(self.result(element) for element in shape.elements)
        if order is None:
            return self._allocate(shape.dtype, shape.dims)
        located = self._allocate(shape.dtype, [shape.dims[d] for d in order])
        return Located(located.view.permute([order.index(d) for d in range(shape.rank)]), located.buffer)

    def _call(self, instruction: Instruction, operands: list[View], results: list[View]) -> None:
        if all(view.elements == 0 for view in results):
            return
        views = operands + results
        shared = len(views) <= MAX_ARGUMENTS
        addresses = [view.address.constant for view in views]
        key = (structure_of(instruction, self._bodies), len(operands), tuple(signature(v) for v in views),
               overlaps(addresses), None if shared else tuple(addresses))
        location = instruction.location
        source = f"{location.source_file}:{location.source_line}" if location.source_file else ""
        self.debug.append(DebugEntry(instruction.name, location.op_name, source))
        self.arena.region = len(self.debug)
        lowered = self.writer.region(key, instruction, operands, results, len(self.debug) - 1, shared)
        need = lowered.need if shared else None
        entrance = self._lapped(key, lowered, self.main.entrance(operands, results, need)) if need else ALONE
        found = self._regions.get((key, entrance))
        if found is None:
            found = self._regions[key, entrance] = self._assemble(lowered, entrance)
        index, assembled = found
        arguments = {register: address // ARGUMENT_UNIT
                     for register, address in zip(assembled.argument_registers, dict.fromkeys(addresses), strict=False)}
        self.main.call(index, assembled, arguments, len(self.debug) - 1, entrance, touched(operands, results), need)
        self.regions.append(RegionReport(instruction.name, instruction.opcode, assembled.function.name, *self._place))
        self.work.append(Work(len(self.debug) - 1, entrance.sbuf_start, lowered.program.sbuf_bytes, entrance.lag))

    def _lapped(self, key: Any, lowered: Lowered, entrance: Entrance) -> Entrance:
        """The entrance of a region that has no room beside the one before with the best place of its memory."""
        if not any(entrance.taken):
            return entrance
        found = self._laps.get((key, entrance))
        if found is None:
            reaches = self._reaches.get(key)
            if reaches is None:
                reaches = self._reaches[key] = reaches_of(lowered.program)
            found = self._laps[key, entrance] = lapped(lowered.program, reaches, self.target.sbuf.align_bytes, entrance)
        return found

    def _assemble(self, lowered: Lowered, entrance: Entrance) -> tuple[int, AssembledFunction]:
        """The region's streams for a way to begin."""
        assembled = assemble(lowered.program, self.target, lowered.plan, entrance)
        self.semaphores = max(self.semaphores, assembled.semaphores)
        self.functions.append(assembled.function)
        self.sbuf_bytes = max(self.sbuf_bytes, entrance.sbuf_start + (entrance.size or lowered.program.sbuf_bytes))
        return len(self.functions) - 1, assembled

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
            if id(source.buffer) in written and target.buffer is not source.buffer or target.buffer is source.buffer:
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

    # ---- constants and calls --------------------------------------------------------------------------------

    def literal(self, literal: Literal) -> Value:
        if literal.shape.is_tuple:
            return tuple(self.literal(element) for element in literal.elements)
        shape = literal.shape
        if literal.is_splat and shape.element_count > 1:
            one = Literal(Shape(shape.dtype), literal.array[(0,) * shape.rank + (...,)])
            located = self.literal(one)
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
        return release_one(self.computation(instruction.called[0], operands))
