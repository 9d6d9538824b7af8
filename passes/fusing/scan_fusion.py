"""Form scan programs: a linear recurrence, what makes its coefficients and what becomes of its states are one fusion.

Before:
  a = f32[256,16,512] exponential(..)    b = f32[256,16,512] multiply(..)
  s = (f32[256,16,512], f32[256,16]) scan(a, b, h0), dimensions={2}, ..    h = f32[256,16,512] get-tuple-element(s), index=0
  p = f32[256,16,512] multiply(h, broadcast(c))    y = f32[256,512] reduce(p, 0), dimensions={1}, to_apply=add
After:
  y = f32[256,512] fusion(delta, u, coefficients, b, c), kind=kCustom, calls=scan.y, frontend_attributes={nxcc.scan="1"}

A region begins at the states and grows to what alone reads them: elementwise work and a sum over one dimension; then back to
what is read by it alone (see nxcc.ir.hlo.scanspace). The attribute is the root's dimension of the steps.
"""

from __future__ import annotations

from dataclasses import field

from nxcc.ir.dtypes import F32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names
from nxcc.ir.hlo.marks import SCAN
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.recurrences import is_linear_recurrence
from nxcc.ir.hlo.rowspace import RowMap, is_elementwise
from nxcc.ir.hlo.scanspace import scan_map, scan_maps
from nxcc.passes.cost import RowCapacity
from nxcc.passes.fusing.fusion import FREE, flow_of
from nxcc.passes.fusing.outlining import outline


@dataclass(frozen=True)
class ScanFusion:
    """Options: what the target can take."""

    capacity: RowCapacity
    name: str = "scan-fusion"

    def run(self, module: Module) -> bool:
        changed, names = False, Names(module)
        for computation in flow_of(module):
            for scan in [i for i in computation.post_order() if i.opcode == "scan"]:
                changed |= _fuse(module, Builder(computation, names=names), scan, self.capacity)
            if changed:
                computation.sort()
        return changed


def _fuse(module: Module, builder: Builder, scan: Instruction, capacity: RowCapacity) -> bool:
    computation = builder.computation
    states = list(scan.users)
    if not is_linear_recurrence(scan) or len(states) != 1 or states[0].attribute("index") != 0 or not capacity.supported(scan):
        return False
    root, steps, summed = _forward(computation, states[0], scan.attribute("dimensions")[0], capacity)
    region = _Region(root, steps, summed, capacity)
    if scan not in region.members or len(region.members) < 2 or len(region.inputs()) > capacity.max_inputs:
        return False

    def is_inside(instruction: Instruction) -> bool:
        return instruction in region.members or instruction in region.free or \
            instruction.opcode == "constant" and bool(instruction.attributes["literal"].is_splat)
    outline(module, computation, root, is_inside, "scan", {SCAN: str(steps)}, builder)
    return True


def _forward(computation: Computation, states: Instruction, steps: int,
             capacity: RowCapacity) -> tuple[Instruction, int, Instruction | None]:
    """The last value of a chain that alone reads the states, the dimension of its steps, and the sum over the states."""
    root, summed = states, None
    while root is not computation.root and len(root.users) == 1:
        (user,) = root.users
        if not user.shape.is_array or user.shape.dtype is not F32 or not capacity.supported(user) or user.control_predecessors:
            break
        if user.opcode == "reduce" and summed is None and _is_sum(user) and user.attribute("dimensions") != (steps,):
            summed = user
            steps -= user.attribute("dimensions")[0] < steps
        elif not _is_plain(user):
            break
        root = user
    return root, steps, summed


def _is_plain(instruction: Instruction) -> bool:
    return is_elementwise(instruction) and instruction.opcode != "copy" and instruction.shape.dtype is F32


def _is_sum(reduce: Instruction) -> bool:
    """A sum of one array over one dimension, from zero."""
    if len(reduce.operands) != 2 or len(reduce.attribute("dimensions")) != 1 or reduce.operands[1].opcode != "constant":
        return False
    root = reduce.called[0].root
    return root.opcode == "add" and {o.opcode for o in root.operands} == {"parameter"} and root.operands[0] is not \
        root.operands[1] and float(reduce.operands[1].attributes["literal"].splat_value) == 0


@dataclass()
class _Region:
    """members: computing instructions; free: what is copied in; maps: of all that is inside and of what it reads."""

    root: Instruction
    steps: int
    summed: Instruction | None
    capacity: RowCapacity
    members: dict[Instruction, None] = field(default_factory=dict)
    free: set[Instruction] = field(default_factory=set)
    maps: dict[Instruction, RowMap] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parent = self.root.parent
        assert parent is not None
        position = {instruction: index for index, instruction in enumerate(parent.post_order())}
        self.maps[self.root] = scan_map(self.root, self.steps)
        frontier = {self.root}
        while frontier:
            candidate = max(frontier, key=position.__getitem__)
            frontier.discard(candidate)
            if self._join(candidate):
                frontier.update(o for o in candidate.operands if o in self.maps and o not in self.members)

    def _join(self, candidate: Instruction) -> bool:
        """Add a candidate and the maps of its operands, if they agree with what is known."""
        is_free = candidate.opcode in FREE or candidate.opcode == "transpose"
        if not is_free and not self._computes(candidate):
            return False
        maps = scan_maps(candidate, self.maps[candidate])
        if maps is None:
            return False
        found = [(o, m) for o, m in zip(candidate.operands, maps, strict=True) if m is not None]
        if any(self.maps.get(o, m) != m for o, m in found):
            return False
        self.maps.update(found)
        if is_free:
            self.free.add(candidate)
        else:
            self.members[candidate] = None
        return True

    def _computes(self, candidate: Instruction) -> bool:
        if candidate is not self.root and (candidate.parent is None or candidate.parent.root is candidate
                                           or not all(self._is_inside(u) for u in candidate.users)):
            return False
        if candidate.opcode in ("scan", "get-tuple-element"):
            return True
        if candidate.control_predecessors or not self.capacity.supported(candidate):
            return False
        return candidate is self.summed or _is_plain(candidate)

    def _is_inside(self, user: Instruction) -> bool:
        """A member, or what is copied in and has no readers but such."""
        return user in self.members or user in self.free and user.parent is not None and user.parent.root is not user and all(
            self._is_inside(u) for u in user.users)

    def inputs(self) -> set[Instruction]:
        inside = self.members.keys() | self.free
        return {o for i in inside for o in i.operands if o not in inside and o.opcode != "constant"}
