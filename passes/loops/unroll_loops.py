"""Write out counted loops, for a target without branches, and put the known places of slices into them.

Before (a loop of 3 turns over i, whose body reads row i of x and writes row i of y):
  s = (s32[], f32[4], f32[3,4], f32[3,4]) tuple(zero, h, x, y)    w = while(s), condition=less than 3, body=b
After `unroll-loops`:
  the instructions of b three times over, with i = 0, 1, 2
After `known-places`, once the places are folded:
  r = f32[1,4] slice(x)    y1 = f32[3,4] concatenate(slice(y), update, slice(y))

A loop is counted if one element of its state starts at a constant, a constant is added to it in each turn, and the condition
compares it with a constant. Other loops, and those that would become too large, stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names, inline_call
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.passes.dead_code import remove_uncalled
from nxcc.passes.loops.counted_loops import Count, counted, number_of
from nxcc.passes.notes import Note, Report, note_at, unheard
from nxcc.passes.rewriting import Rule, remove_unread, rewrite_module, rules_by_opcode, settle

INSTRUCTIONS_MAX = 50_000
"""Instructions that one loop may become: an LSTM cell of 50 for 1000 steps."""

@dataclass(frozen=True)
class UnrollLoops:
    """enabled: whether the target needs it."""

    enabled: bool
    report: Report = unheard
    name: str = "unroll-loops"

    def run(self, module: Module) -> bool:
        if not self.enabled:
            return False
        changed, names = False, Names(module)
        # callees first, so that an inner loop is written out before the loop around it
        for computation in module.reachable():
            for loop in [i for i in computation.instructions if i.opcode == "while"]:
                changed |= self._unroll(loop, Builder(computation, loop.location, names))
        return remove_uncalled(module) or changed

    def _unroll(self, loop: Instruction, builder: Builder) -> bool:
        count = counted(loop)
        if count is None:
            return False
        body = loop.called[0]
        size = len(count.values) * sum(1 for _ in body.instructions)
        if size > INSTRUCTIONS_MAX:
            self.report(note_at(self.name, loop, f"{len(count.values)} turns would become {size} instructions, more than "
                                                 f"{INSTRUCTIONS_MAX}: the loop stays"))
            return False
        self.report(Note(self.name, f"{loop.name}: {len(count.values)} turns are written out"))
        _write_out(loop, count, builder)
        return True


def _write_out(loop: Instruction, count: Count, builder: Builder) -> None:
    computation = builder.computation
    elements = list(loop.operands[0].operands)
    unread = [loop]
    for value in count.values:
        elements[count.index] = _constant(builder, value, count.dtype)
        state = builder.tuple(*elements)
        root = inline_call(builder.make("call", state, called=(loop.called[0],), shape=loop.shape), builder)
        _dissolve(state, computation)
        elements = list(root.operands)
        unread += [state, root]
    elements[count.index] = _constant(builder, count.last, count.dtype)
    final = builder.tuple(*elements)
    computation.replace(loop, final)
    _dissolve(final, computation)
    remove_unread(computation, [*unread, final])
    settle(computation)


def _constant(builder: Builder, value: int, dtype: DType) -> Instruction:
    return builder.splat(dtype, (), value)


def _dissolve(state: Instruction, computation: Computation) -> None:
    """Elements of a tuple are read without it."""
    for user in list(state.users):
        if user.opcode == "get-tuple-element" and user is not computation.root:
            computation.replace(user, state.operands[user.attribute("index")])
            computation.remove(user)


# ---- slices at known places ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KnownPlaces:
    """Dynamic slices and updates whose places are constants become static ones; enabled: whether the target needs it."""

    enabled: bool
    name: str = "known-places"

    def run(self, module: Module) -> bool:
        return self.enabled and rewrite_module(module, _RULES)


def _places(starts: Sequence[Instruction], room: Sequence[int]) -> list[int] | None:
    """Constant starts, clamped so that the window fits; room: the greatest start of each dimension."""
    numbers = [number_of(start) for start in starts]
    if len(numbers) != len(room):
        return None
    known = [number for number in numbers if number is not None]
    return [min(max(n, 0), most) for n, most in zip(known, room, strict=True)] if len(known) == len(room) else None


def _slice(instruction: Instruction, builder: Builder) -> Instruction | None:
    x = instruction.operands[0]
    sizes = instruction.attribute("dynamic_slice_sizes")
    first = _places(instruction.operands[1:], [total - size for total, size in zip(x.shape.dims, sizes, strict=True)])
    return None if first is None else builder.slice(x, first, [place + size for place, size in zip(first, sizes, strict=True)])


def _update(instruction: Instruction, builder: Builder) -> Instruction | None:
    """Around the one dimension in which the update is smaller; further ones would take a pad and a select."""
    x, update = instruction.operands[:2]
    dims, sizes = x.shape.dims, update.shape.dims
    first = _places(instruction.operands[2:], [total - size for total, size in zip(dims, sizes, strict=True)])
    smaller = [d for d, (total, size) in enumerate(zip(dims, sizes, strict=True)) if size < total]
    if first is None or len(smaller) > 1 or update.shape.element_count == 0:
        return None
    if not smaller:
        return update
    (d,) = smaller
    pieces = [(0, first[d]), (first[d] + sizes[d], dims[d])]
    before, after = (builder.slice(x, [low if i == d else 0 for i in range(len(dims))],
                                   [high if i == d else size for i, size in enumerate(dims)]) if low < high else None
                     for low, high in pieces)
    return builder.make("concatenate", *(part for part in (before, update, after) if part is not None), dimensions=(d,))


_RULES = rules_by_opcode((Rule("slice-at-known-place", ("dynamic-slice",), _slice),
                          Rule("update-at-known-place", ("dynamic-update-slice",), _update)))
