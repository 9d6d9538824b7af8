"""Say in operators what the input says in layouts, then forget layouts.

Before:
  t = f32[2,3]{0,1} transpose(p), dimensions={1,0}    ROOT b = f32[6]{0} bitcast(t)
After:
  t = f32[2,3] transpose(p), dimensions={1,0}    t.1 = f32[3,2] transpose(t), dimensions={1,0}    ROOT b = f32[6] reshape(t.1)

Only a bitcast reads layouts: it keeps memory and changes the meaning of its order. Between element types of one width it
becomes reshapes and transposes, and a bitcast-convert if they differ. Where one remains, all layouts stay.
"""

from __future__ import annotations

from nxcc.ir.dtypes import PRED
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.shapes import Shape
from nxcc.passes.rewriting import settle


@dataclass(frozen=True)
class NormalizeLayouts:
    name: str = "normalize-layouts"

    def run(self, module: Module) -> bool:
        changed, names = False, Names(module)
        for computation in module.reachable():
            changed |= _replace_bitcasts(Builder(computation, names=names))
        if not any(i.opcode == "bitcast" for i in module.instructions()):
            changed |= _forget_layouts(module)
        return changed


def _replace_bitcasts(builder: Builder) -> bool:
    computation = builder.computation
    found = [i for i in computation.instructions if i.opcode == "bitcast" and _is_plain(i)]
    if not found:
        return False
    for bitcast in found:
        builder.location = bitcast.location
        computation.replace(bitcast, _as_movement(bitcast, builder))
        computation.remove(bitcast)
    settle(computation)
    return True


def _is_plain(bitcast: Instruction) -> bool:
    source, result = bitcast.operands[0].shape, bitcast.shape
    if not (source.is_array and result.is_array) or source.dynamic or bitcast.control_predecessors:
        return False
    same = source.dtype is result.dtype or _is_retyped(source, result)
    return same and source.element_count == result.element_count


def _is_retyped(source: Shape, result: Shape) -> bool:
    """Whether elements are read as other ones of the same width."""
    alike = source.dtype.bits == result.dtype.bits == 8 * source.dtype.byte_size
    return alike and PRED not in (source.dtype, result.dtype) and source.dtype.is_complex is result.dtype.is_complex


def _order(shape: Shape) -> tuple[int, ...]:
    """Dimensions from the slowest to the fastest."""
    if shape.layout is None:
        return tuple(range(shape.rank))
    return tuple(reversed(shape.layout.minor_to_major))


def _as_movement(bitcast: Instruction, builder: Builder) -> Instruction:
    value = bitcast.operands[0]
    source, target = _order(value.shape), _order(bitcast.shape)
    if source != tuple(range(len(source))):
        value = builder.transpose(value, source)
    if value.shape.dtype is not bitcast.shape.dtype:
        value = builder.make("bitcast-convert", value, shape=value.shape.with_dtype(bitcast.shape.dtype))
    physical = tuple(bitcast.shape.dims[d] for d in target)
    value = builder.reshape(value, physical)
    if target != tuple(range(len(target))):
        value = builder.transpose(value, [target.index(d) for d in range(len(target))])
    # a bitcast that reads this one needs its layout
    value.shape = bitcast.shape
    return value


def _forget_layouts(module: Module) -> bool:
    # a module has few shapes; equal ones stay one object, which is quicker to compare
    plain: dict[int, tuple[Shape, Shape]] = {}
    changed = False
    for instruction in module.instructions():
        shape = instruction.shape
        known = plain.get(id(shape))
        if known is None:
            known = plain[id(shape)] = shape, shape.without_layout() if _has_layout(shape) else shape
        if known[1] is not shape:
            instruction.shape = known[1]
            changed = True
    return changed


def _has_layout(shape: Shape) -> bool:
    said = shape.layout is not None and bool(shape.rank or shape.layout.extension)
    return said or any(_has_layout(element) for element in shape.elements)
