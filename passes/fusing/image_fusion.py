"""Form image programs: convolutions with what follows them, and chains of them whose images stay on the chip.

Before:
  c = f32[1,64,56,56] convolution(x, w), ..    b = f32[1,64,56,56] broadcast(bias), dimensions={1}    a = add(c, b)
  r = f32[1,64,56,56] maximum(a, zeros)        ROOT d = f32[1,64,56,56] convolution(r, v), ..
After:
  ROOT d = f32[1,64,56,56] fusion(x, w, bias, v), kind=kCustom, calls=images.d, frontend_attributes={nxcc.images="0,1,2,3"}

A region grows backwards from its root. A step takes what makes an image that the region reads as a whole: the elementwise work
before it up to the convolutions and windows that it is computed from, if all their readers are inside and everything fits on
the chip together (the target says). A value that several others read ends a region: equal blocks of a network then become equal
regions, whose code is there once. Where code is written for each call anyway (`spans_blocks`), a region goes on through it, and
what blocks hand on stays on the chip. Work on channels alone (the factors of a norm) is copied in wherever it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names
from nxcc.ir.hlo.imagespace import CHANNEL, HEADS, VIEWS, ImageMap, convolution_maps, marked, operand_maps
from nxcc.ir.hlo.marks import IMAGES
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.rowspace import UNIT, is_elementwise
from nxcc.passes.cost import ImageCapacity
from nxcc.passes.fusing.fusion import flow_of
from nxcc.passes.fusing.outlining import outline


@dataclass(frozen=True)
class ImageFusion:
    """Options: what the target can take."""

    capacity: ImageCapacity
    name: str = "image-fusion"

    def run(self, module: Module) -> bool:
        changed, names = False, Names(module)
        for computation in flow_of(module):
            changed |= _fuse(module, Builder(computation, names=names), self.capacity)
        return changed


def _fuse(module: Module, builder: Builder, capacity: ImageCapacity) -> bool:
    computation = builder.computation
    order = computation.post_order()
    finder = _Finder(computation, order, capacity)
    if not finder.maps:
        return False
    regions: list[_Region] = []
    for root in reversed(order):
        if root in finder.able:
            region = finder.region(root)
            if region is not None:
                finder.able.difference_update(region.members)
                regions.append(region)
    for number, region in enumerate(reversed(regions)):
        attributes = {IMAGES: ",".join(map(str, region.maps[region.root]))}
        outline(module, computation, region.root, region.is_inside, f"images.{number}", attributes, builder)
    if regions:
        computation.sort()
    return bool(regions)


def image_maps(order: list[Instruction]) -> dict[Instruction, ImageMap]:
    """The maps of what convolutions make, and of what is computed from that; a scalar is no image."""
    found: dict[Instruction, ImageMap] = {}
    for instruction in order:
        if not instruction.shape.is_array or not instruction.shape.element_count or not instruction.shape.rank:
            continue
        if instruction.opcode == "convolution":
            maps = convolution_maps(instruction)
            if maps is not None:
                found[instruction] = maps[1]
            continue
        source = next((o for o in instruction.operands if o in found), None)
        if source is None:
            continue
        result = _result_map(instruction, source, found[source])
        if result is not None and operand_maps(instruction, result) is not None:
            found[instruction] = result
    return found


def _result_map(instruction: Instruction, operand: Instruction, given: ImageMap) -> ImageMap | None:
    dims = instruction.shape.dims
    if is_elementwise(instruction):
        return given if len(given) == len(dims) else None
    if instruction.opcode == "transpose":
        return tuple(given[d] for d in instruction.attribute("dimensions"))
    if instruction.opcode == "reduce-window":
        return marked(dims, given)
    if instruction.opcode == "reduce":
        gone = instruction.attribute("dimensions")
        return tuple(mark for d, mark in enumerate(given) if d not in gone)
    if instruction.opcode == "concatenate":
        dim = instruction.attribute("dimensions")[0]
        return marked(dims, (CHANNEL if d == dim else mark for d, mark in enumerate(given)))
    if instruction.opcode == "reshape":
        marks = [mark for mark in given if mark != UNIT]
        if [size for size in dims if size != 1] != [size for size in operand.shape.dims if size != 1]:
            return None
        rest = iter(marks)
        return tuple(UNIT if size == 1 else next(rest) for size in dims)
    return None


@dataclass
class _Region:
    """members: image work, root first. maps: of members and what they read. free: what is copied in besides."""

    root: Instruction
    maps: dict[Instruction, ImageMap]
    members: dict[Instruction, None] = field(default_factory=dict)
    free: set[Instruction] = field(default_factory=set)

    def is_inside(self, instruction: Instruction) -> bool:
        return instruction in self.members or instruction in self.free

    @property
    def heads(self) -> list[Instruction]:
        return [m for m in self.members if m.opcode in HEADS]


class _Finder:
    """Grows the regions of one computation. able: what a region can compute and no other region has taken."""

    def __init__(self, computation: Computation, order: list[Instruction], capacity: ImageCapacity) -> None:
        self.computation = computation
        self.capacity = capacity
        self.position = {instruction: index for index, instruction in enumerate(order)}
        self.maps = image_maps(order)
        self.able = {i for i in order if i in self.maps and self._computes(i)}

    def _computes(self, instruction: Instruction) -> bool:
        if instruction.control_predecessors or instruction.opcode in VIEWS and instruction.opcode != "reshape":
            return False
        if instruction.opcode == "concatenate":
            return all(user.opcode == "convolution" for user in instruction.users)
        known = instruction.opcode in (*HEADS, "reshape") or is_elementwise(instruction) and instruction.opcode != "copy"
        return known and self.capacity.supported(instruction)

    def region(self, root: Instruction) -> _Region | None:
        """The largest region that ends in the root; None if nothing is gained."""
        if root.opcode == "concatenate" or not root.users and root is not self.computation.root:
            return None
        for most in (None, 1):
            region = _Region(root, {root: self.maps[root]})
            taken = self._closure(region, root, most)
            grown = self._with(region, taken)
            if grown is None or not grown.heads:
                continue
            if self.capacity.fits(list(grown.members), grown.maps):
                return self._extended(grown)
        return None

    def _extended(self, region: _Region) -> _Region:
        """With what makes the images that its heads read, as far as it fits."""
        waiting = region.heads
        while waiting:
            head = waiting.pop(0)
            for value in self._images_of(head):
                if value not in self.able or value in region.members or not self._enclosed(value, region.members):
                    continue
                if len(value.users) > 1 and not self._is_shared_cast(value) and not self.capacity.spans_blocks:
                    continue
                for taken in self._steps(region, head, value):
                    grown = self._with(region, taken)
                    if grown is not None and self.capacity.fits(list(grown.members), grown.maps):
                        region = grown
                        waiting.extend(t for t in taken if t.opcode in HEADS)
                        break
        return region

    def _steps(self, region: _Region, head: Instruction, value: Instruction) -> Iterator[dict[Instruction, None]]:
        """What might be taken along with an image that a head reads: all that it is computed from, or what costs little."""
        taken = self._closure(region, value, None)
        packs = head.opcode == "convolution" and self.capacity.packs(head)
        if not packs and (any(t.opcode in HEADS for t in taken) or self._images_read(taken) <= 1):
            yield taken
        if value.opcode == "concatenate" or self._is_shared_cast(value):
            yield {value: None}

    def _images_read(self, taken: dict[Instruction, None]) -> int:
        """How many images from outside some elementwise work reads, but for what repeats."""
        read = {o for value in taken for o in value.operands if o not in taken and value.opcode != "concatenate"}
        return sum(o.opcode not in VIEWS and o.shape.element_count > 1 for o in read)

    def _images_of(self, head: Instruction) -> Iterator[Instruction]:
        """What a head reads as images, with concatenations looked through."""
        stack = [head.operands[0]]
        while stack:
            value = stack.pop()
            if value.opcode == "concatenate" and value in self.able:
                stack.extend(reversed(value.operands))
            yield value

    def _closure(self, region: _Region, value: Instruction, most_heads: int | None) -> dict[Instruction, None]:
        """The value with the elementwise work before it, up to and with the heads that it is computed from."""
        taken: dict[Instruction, None] = {value: None}
        heads = int(value.opcode in HEADS)
        frontier = [] if heads else list(value.operands)
        while frontier:
            candidate = max(frontier, key=self.position.__getitem__)
            frontier = [f for f in frontier if f is not candidate]
            if candidate in taken or candidate not in self.able or candidate in region.members:
                continue
            if candidate.opcode == "concatenate":
                continue
            if len(candidate.users) > 1 and not self._is_shared_cast(candidate) and not self.capacity.spans_blocks:
                continue
            if not self._enclosed(candidate, {**region.members, **taken}):
                continue
            is_head = candidate.opcode in HEADS
            if is_head and most_heads is not None and heads >= most_heads:
                continue
            heads += is_head
            taken[candidate] = None
            if not is_head:
                frontier.extend(candidate.operands)
        return taken

    def _enclosed(self, value: Instruction, members: dict[Instruction, None]) -> bool:
        return value is not self.computation.root and all(user in members for user in value.users)

    def _is_shared_cast(self, value: Instruction) -> bool:
        """A cast of what others read as well: they and the cast read it where it lies."""
        return value.opcode == "convert" and len(value.operands[0].users) > 1

    def _with(self, region: _Region, taken: dict[Instruction, None]) -> _Region | None:
        """The region with more members; None if it is no image program or reads too much."""
        members = dict(sorted({**region.members, **taken}.items(), key=lambda item: -self.position[item[0]]))
        grown = _Region(region.root, {region.root: region.maps[region.root]}, members)
        inputs = self._inputs(grown)
        return grown if inputs is not None and inputs <= self.capacity.max_inputs else None

    def _inputs(self, region: _Region) -> int | None:
        """Maps and free values of a region, from its members; the number of its operands, or None if maps disagree."""
        outside: set[Instruction] = set()
        waiting = list(region.members)
        seen = set(waiting)
        while waiting:
            waiting.sort(key=lambda i: -self.position[i])
            value = waiting.pop(0)
            maps = operand_maps(value, region.maps[value])
            if maps is None:
                return None
            for number, (operand, found) in enumerate(zip(value.operands, maps, strict=True)):
                if found is None:
                    if number == 1 and value.opcode != "convolution":
                        region.free.add(operand)
                    else:
                        outside.add(operand)
                    continue
                if region.maps.setdefault(operand, found) != found:
                    return None
                whole = value.opcode in HEADS or value.opcode == "concatenate"
                if whole and operand in region.free:
                    # as an image it lies somewhere, whoever else reads it
                    region.free.discard(operand)
                    outside.add(operand)
                if operand in seen:
                    continue
                seen.add(operand)
                if not whole and self._is_free(operand, found):
                    region.free.add(operand)
                    waiting.extend([operand] if operand.operands else [])
                else:
                    outside.add(operand)
        return len(outside)

    def _is_free(self, value: Instruction, marks: ImageMap) -> bool:
        """Numbers and what repeats; and work on channels alone, which is small."""
        if value.opcode == "constant":
            return bool(value.attributes["literal"].is_splat)
        kept = {mark for mark in marks if mark != UNIT}
        if value.opcode in VIEWS:
            source = value.operands[0].shape.dims
            return kept <= {CHANNEL} or value.opcode == "broadcast" and sum(size != 1 for size in source) <= 1
        return kept <= {CHANNEL} and value not in self.able and is_elementwise(value) and self.capacity.supported(value)
