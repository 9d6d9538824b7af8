"""Let row programs that hand their rows on be one region, so that what passes between them stays on the chip.

Before:
  n = (f32[128,768], bf16[128,768]) fusion(x, wo, r), calls=rows.1, ..     n1 = get-tuple-element(n), index=1
  h = bf16[128,3072] fusion(n1, w1), calls=rows.2, ..                      o = f32[128,768] fusion(h, w2, n0), calls=rows.3, ..
After:
  o = f32[128,768] fusion(x, wo, r, w1, w2), calls=chain.1, frontend_attributes={nxcc.chain="128"}
  chain.1 { n = .. fusion(p0, ..), calls=rows.1   h = .. fusion(n1, ..), calls=rows.2   ROOT o = .. fusion(h, .., n0), .. }

A region joins the chain of one that it reads row by row, if nothing else that it reads depends on that chain and the target
has room for all of it; one of them multiplies. The number of rows is noted. Attention joins the chain whose first region
multiplies its result, where a chain has few rows: what it waits for does not hold up the chain's matrices then.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field
from typing import Any

import numpy as np

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names, clone_instruction, inline_call
from nxcc.ir.hlo.marks import CHAIN, ROWS, is_row_chain, is_row_program, row_dims
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.operator import find
from nxcc.ir.hlo.rowspace import COLUMN, UNIT, RowMap, maps_of, row_map
from nxcc.ir.shapes import tuple_of
from nxcc.passes.common_subexpressions import Key
from nxcc.passes.cost import RowCapacity
from nxcc.passes.fusing.fusion import flow_of

MEMBERS_MAX = 6
"""Regions of a chain at most."""

VIEWS = ("reshape", "transpose")
"""What may stand between a member's result and the member that reads it."""

PATH_MAX = 256
"""Instructions looked at to find out whether a region depends on a chain; beyond it, it counts as dependent."""


@dataclass(frozen=True)
class ChainRegions:
    """Options: what the target can take."""

    capacity: RowCapacity
    name: str = "chain-regions"

    def run(self, module: Module) -> bool:
        changed, names = False, Names(module)
        bodies = _Bodies(module, names)
        for computation in flow_of(module):
            chains = _Chains(computation, self.capacity).find()
            builder = Builder(computation, names=names)
            chained = {member for chain in chains for member in chain.members}
            lone = [i for i in computation.post_order() if _is_lone_product(i) and i not in chained]
            for product in lone:
                inline_call(product, builder)
            for chain in chains:
                _outline(builder, chain, bodies)
            if chains or lone:
                computation.sort()
            changed |= bool(chains or lone)
        return changed


@dataclass(eq=False)
class _Chain:
    """members: regions in order. rows: of each. head: attention whose rows the first of them multiplies, and what stands
    between the two."""

    rows: int
    members: list[Instruction] = field(default_factory=list)
    head: list[Instruction] = field(default_factory=list)

    @property
    def operands(self) -> Iterator[Instruction]:
        return (o for m in self.members for o in m.operands)


class _Chains:
    """Chains of one computation."""

    def __init__(self, computation: Computation, capacity: RowCapacity) -> None:
        self.order = computation.post_order()
        self.capacity = capacity
        self.position = {instruction: number for number, instruction in enumerate(self.order)}
        self.chain_of: dict[Instruction, _Chain] = {}
        self.by_rows: dict[tuple[Computation, str, int], frozenset[int]] = {}

    def find(self) -> list[_Chain]:
        for region in self.order:
            if not is_row_program(region):
                continue
            rows = _rows_of(region)
            if rows is None:
                continue
            chain = next((c for c in self._before(region, rows) if self._takes(c, region)), None)
            if chain is None:
                chain = _Chain(rows)
            if chain is not None:
                chain.members.append(region)
                self.chain_of[region] = chain
        chains = dict.fromkeys(self.chain_of.values())
        found = [chain for chain in chains if len(chain.members) > 1 and any(map(_multiplies, chain.members))]
        for chain in found:
            chain.head = self._head(chain)
        circle = self._circle(found)
        while circle:
            found.remove(min(circle, key=lambda chain: len(chain.members)))
            circle = self._circle(found)
        return found

    def _circle(self, chains: list[_Chain]) -> list[_Chain]:
        """Chains that cannot be computed at once, as each of them reads what another makes; empty if there are none."""
        parts = {value: chain for chain in chains for value in _inside(chain)}
        waiting: dict[object, int] = {}
        readers: dict[object, list[object]] = {}
        for value in self.order:
            unit = parts.get(value, value)
            waiting.setdefault(unit, 0)
            for operand in value.operands:
                maker = parts.get(operand, operand)
                if maker is not unit:
                    readers.setdefault(maker, []).append(unit)
                    waiting[unit] += 1
        ready = [unit for unit, count in waiting.items() if not count]
        while ready:
            for reader in readers.get(ready.pop(), ()):
                waiting[reader] -= 1
                if not waiting[reader]:
                    ready.append(reader)
        return [chain for chain in chains if waiting[chain]]

    def _head(self, chain: _Chain) -> list[Instruction]:
        """Attention that only the first member of a chain reads, as rows of all its heads' columns; what follows it as well."""
        for number, operand in enumerate(chain.members[0].operands):
            path = [operand]
            while path[-1].opcode in VIEWS:
                path.append(path[-1].operands[0])
            head = path[-1]
            alone = all(len(value.users) == 1 for value in path) and not head.control_predecessors
            if len(path) > 1 and alone and _is_attention(head, chain.rows) and _rows_of_heads(path) \
                    and number in self._by_rows(chain.members[0], chain.rows):
                inputs = {o for m in (head, *chain.members) for o in m.operands if source_of(o) not in (*chain.members, *path)}
                if len(inputs) <= self.capacity.max_inputs and self.capacity.heads(head, chain.members, chain.rows):
                    return path[::-1]
        return []

    def _before(self, region: Instruction, rows: int) -> Iterator[_Chain]:
        """Chains of what the region reads row by row."""
        for number, operand in enumerate(region.operands):
            chain = self.chain_of.get(source_of(operand))
            if chain is not None and chain.rows == rows and self._handed(region, number, rows):
                yield chain

    def _takes(self, chain: _Chain, region: Instruction) -> bool:
        members = [*chain.members, region]
        inputs = {o for m in members for o in m.operands if source_of(o) not in members}
        if len(members) > MEMBERS_MAX or len(inputs) > self.capacity.max_inputs or region.control_predecessors:
            return False
        handed = [o for n, o in enumerate(region.operands)
                  if source_of(o) in chain.members and self._handed(region, n, chain.rows)]
        others = [o for o in region.operands if o not in handed]
        return not self._depends(others, chain) and self.capacity.chains(members, chain.rows)

    def _handed(self, region: Instruction, number: int, rows: int) -> bool:
        """Whether a region reads an operand row by row, each row as the region before left it."""
        return number in self._by_rows(region, rows) and _keeps_columns(region.operands[number])

    def _by_rows(self, region: Instruction, rows: int) -> frozenset[int]:
        key = region.called[0], region.frontend_attributes[ROWS], rows
        if key not in self.by_rows:
            self.by_rows[key] = _taken_by_rows(region, rows)
        return self.by_rows[key]

    def _depends(self, values: Iterable[Instruction], chain: _Chain) -> bool:
        """Whether any of the values is computed from what the chain makes, other chains being computed at once."""
        first = self.position[chain.members[0]]
        stack = list(values)
        seen: set[Instruction] = set()
        while stack:
            current = stack.pop()
            if current in seen:
                continue
            if current in chain.members or len(seen) > PATH_MAX:
                return True
            seen.add(current)
            other = self.chain_of.get(current)
            if other is not None and len(other.members) > 1:
                stack.extend(o for o in other.operands if o not in seen)
            elif self.position[current] > first:
                stack.extend(current.operands)
        return False


def dissolve_chains(computation: Computation) -> None:
    """Let the members of chains be regions again, so that they may be apart."""
    builder = Builder(computation)
    for chain in [i for i in computation.post_order() if is_row_chain(i)]:
        inline_call(chain, builder)
    computation.sort()


def source_of(value: Instruction) -> Instruction:
    """The region that makes a value, which may have another shape of the same rows and columns."""
    while value.opcode in ("reshape", "get-tuple-element"):
        value = value.operands[0]
    return value


def _rows_of(region: Instruction) -> int | None:
    """How many rows a region has that a chain can take; None for others."""
    body, rows = region.called[0], row_dims(region)
    order = body.post_order()
    if any(i.opcode == "dot" and i.attribute("lhs_batch_dims") for i in order):
        return None
    roots = body.root.operands if body.root.opcode == "tuple" else (body.root,)
    counts = {math.prod(root.shape.dims[:rows]) for root in roots}
    return counts.pop() if len(counts) == 1 and all(root.shape.rank == rows + 1 for root in roots) else None


def _is_attention(region: Instruction, rows: int) -> bool:
    """Whether a region has a matrix for each of many and a single batch of so many rows."""
    if not is_row_program(region) or not region.shape.is_array:
        return False
    batches = {len(i.attribute("lhs_batch_dims")) for i in region.called[0].instructions if i.opcode == "dot"}
    dims = region.shape.dims
    return len(batches) == 1 and 0 not in batches and math.prod(dims[:max(batches) - 1]) == 1 and dims[-2] == rows \
        and row_dims(region) == len(dims) - 1 == max(batches) + 1


def _rows_of_heads(path: Sequence[Instruction]) -> bool:
    """Whether a value is [.., rows, columns of all heads] of attention [.., heads, rows, columns], the last of the path."""
    heads, rows, columns = path[-1].shape.dims[-3:]
    place = np.arange(heads * rows * columns).reshape(path[-1].shape.dims)
    for view in path[-2::-1]:
        place = place.transpose(view.attribute("dimensions")) if view.opcode == "transpose" else place.reshape(view.shape.dims)
    wanted = np.arange(heads * rows * columns).reshape(heads, rows, columns).transpose(1, 0, 2)
    return place.shape[-1] == heads * columns and np.array_equal(place.reshape(-1), wanted.reshape(-1))


def _is_lone_product(region: Instruction) -> bool:
    """Whether a region is nothing but a product, which is no region unless it is part of a chain."""
    return is_row_program(region) and region.called[0].root.opcode == "dot" \
        and all(o.opcode == "parameter" for o in region.called[0].root.operands)


def _multiplies(region: Instruction) -> bool:
    return any(i.opcode == "dot" for i in region.called[0].instructions)


def _taken_by_rows(region: Instruction, rows: int) -> frozenset[int]:
    """Numbers of the operands that a region's body reads row by row, in order."""
    body = region.called[0]
    order = body.post_order()
    roots = body.root.operands if body.root.opcode == "tuple" else (body.root,)
    maps = maps_of(order, {root: row_map(root, row_dims(region)) for root in roots})
    if maps is None:
        return frozenset()
    matrices = {i.operands[1] for i in order if i.opcode == "dot"}
    return frozenset(number for number, parameter in enumerate(body.parameters) if parameter in maps
                     and parameter not in matrices and _is_plain(maps[parameter], parameter.shape.dims, rows))


def _keeps_columns(value: Instruction) -> bool:
    """Whether a value has its rows as the region left them that made it."""
    while value.opcode == "reshape":
        if value.shape.dims[-1:] != value.operands[0].shape.dims[-1:]:
            return False
        value = value.operands[0]
    return value.shape.is_array


def _is_plain(marks: RowMap, dims: Sequence[int], rows: int) -> bool:
    """All rows in order, then columns."""
    kept = [mark for mark in marks[:-1] if mark != UNIT]
    return marks[-1:] in ((COLUMN,), (UNIT,)) and COLUMN not in kept and kept == sorted(kept) and math.prod(dims[:-1]) == rows


# ---- rewriting -----------------------------------------------------------------------------------------------------


class _Bodies:
    """Computations of chains; chains of equal members that hand on the same are one computation."""

    def __init__(self, module: Module, names: Names) -> None:
        self.module, self.names = module, names
        self.made: dict[Key, Computation] = {}

    def body(self, inside: Sequence[Instruction], results: Sequence[Instruction]) -> tuple[Computation, list[Instruction]]:
        """The computation of these instructions, and what it reads."""
        places = {instruction: place for place, instruction in enumerate(inside)}
        inputs: dict[Instruction, int] = {}
        rows = []
        for i in inside:
            operands = tuple(places[o] if o in places else ~inputs.setdefault(o, len(inputs)) for o in i.operands)
            rows.append((i.opcode, i.shape, i.called, operands, *_sorted(i.attributes), *_sorted(i.frontend_attributes)))
        key = (*rows, *(value.shape for value in inputs), *(places[result] for result in results))
        found = self.made.get(key)
        if found is None:
            found = self.made[key] = self._made(inside, list(inputs), results)
        return found, list(inputs)

    def _made(self, inside: Sequence[Instruction], inputs: Sequence[Instruction],
              results: Sequence[Instruction]) -> Computation:
        body = Computation(self.names.of_computation(f"chain.{len(self.made)}"))
        body.is_fusion = True
        inner = Builder(body)
        copies = {value: inner.parameter(number, value.shape.without_layout(), f"p{number}")
                  for number, value in enumerate(inputs)}
        for instruction in inside:
            copies[instruction] = body.add(clone_instruction(instruction, [copies[o] for o in instruction.operands],
                                                             name=inner.unique_name(instruction.name)))
        body.root = copies[results[0]] if len(results) == 1 else inner.make("tuple", *(copies[r] for r in results))
        return self.module.add(body)


def _sorted(values: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(values.items())


def _outline(builder: Builder, chain: _Chain, bodies: _Bodies) -> None:
    """One fusion for the chain, with the values that others read as results."""
    computation = builder.computation
    inside = _inside(chain)
    _view_outside(builder, inside)
    results = [i for i in inside if i.shape.is_array and _leaves(i, computation, set(inside))]
    body, inputs = bodies.body(inside, results)
    last = chain.members[-1]
    shape = results[0].shape if len(results) == 1 else tuple_of(*(r.shape for r in results))
    fusion = Instruction(builder.unique_name(f"{last.name}.chain"), find("fusion"), shape, inputs, {"kind": "kCustom"}, (body,),
                         last.location)
    fusion.frontend_attributes = {CHAIN: str(chain.rows)}
    computation.add(fusion)
    for index, result in enumerate(results):
        builder.location = result.location
        computation.replace(result, fusion if len(results) == 1 else builder.make("get-tuple-element", fusion, index=index))
    for instruction in reversed(inside):
        if not instruction.users:
            computation.remove(instruction)


def _inside(chain: _Chain) -> list[Instruction]:
    """The members and what stands between them, in order."""
    inside: dict[Instruction, None] = dict.fromkeys(chain.head)
    for member in chain.members:
        for operand in member.operands:
            if source_of(operand) in chain.members:
                path = []
                while operand not in inside:
                    path.append(operand)
                    operand = operand.operands[0]
                inside.update(dict.fromkeys(reversed(path)))
        inside[member] = None
        if member.shape.is_tuple:
            inside.update(dict.fromkeys(u for u in member.users if u.opcode == "get-tuple-element"))
    return list(inside)


def _view_outside(builder: Builder, inside: Sequence[Instruction]) -> None:
    """Who reads a view of a result outside looks at the result itself: members store what they make, in one form."""
    computation, kept = builder.computation, set(inside)
    copies: dict[Instruction, Instruction] = {}

    def copied(value: Instruction) -> Instruction:
        if value not in kept or value.opcode not in VIEWS:
            return value
        if value not in copies:
            name = builder.unique_name(value.name)
            copies[value] = computation.add(clone_instruction(value, [copied(value.operands[0])], name=name))
        return copies[value]

    for view in inside:
        if view.opcode not in VIEWS or not _leaves(view, computation, kept):
            continue
        for user in [user for user in view.users if user not in kept]:
            computation.set_operands(user, [copied(o) if o is view else o for o in user.operands])
        if computation.root is view:
            computation.root = copied(view)


def _leaves(value: Instruction, computation: Computation, inside: set[Instruction]) -> bool:
    """Whether a value is read outside."""
    return value is computation.root or any(user not in inside for user in value.users)
