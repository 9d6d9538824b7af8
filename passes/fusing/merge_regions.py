"""Let row programs that would load the same twice be one, with several results.

Before:
  q = bf16[128,768] fusion(x, wq, bq), calls=rows.1, ..    k = bf16[128,768] fusion(x, wk, bk), calls=rows.2, ..
  n = f32[128,768] fusion(d), calls=rows.3, ..             c = bf16[128,768] convert(n)
After:
  qk = (bf16[128,768], bf16[128,768]) fusion(x, wq, bq, wk, bk), calls=rows.1, ..    q = get-tuple-element(qk), index=0    ..
  nc = (f32[128,768], bf16[128,768]) fusion(d), calls=rows.3, ..    n = get-tuple-element(nc), index=0    ..

Products that share their left side, each with epilogue of its own, run as one where columns do not depend on each other; the
left side is loaded and turned once. A conversion of what a region makes is made there, too. So is elementwise work whose result
a region reads row by row, though others read it as well: the sum before a norm, which the next sum reads again.
"""

from __future__ import annotations

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names, clone_instruction
from nxcc.ir.hlo.marks import ROWS, is_row_program, row_dims
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.operator import find
from nxcc.ir.hlo.rowspace import is_column_parallel, is_elementwise, maps_of, operand_maps, row_map
from nxcc.ir.shapes import tuple_of
from nxcc.passes.cost import RowCapacity
from nxcc.passes.dead_code import remove_uncalled
from nxcc.passes.fusing.fusion import FREE, columns, flow_of

PATH_MAX = 32
"""Instructions looked at to find out whether one region depends on another; beyond it they count as dependent."""


@dataclass(frozen=True)
class MergeRegions:
    """Options: what the target can take."""

    capacity: RowCapacity
    name: str = "merge-regions"

    def run(self, module: Module) -> bool:
        changed, names = False, Names(module)
        for computation in flow_of(module):
            builder = Builder(computation, names=names)
            here = _merge_siblings(module, builder, self.capacity)
            here |= _take_conversions(builder, computation not in module.layers)
            here |= _take_makers(module, builder, computation not in module.layers, self.capacity)
            if here:
                computation.sort()
            changed |= here
        if changed:
            remove_uncalled(module)
        return changed


def _regions(computation: Computation) -> list[Instruction]:
    return [i for i in computation.post_order() if is_row_program(i) and i.shape.is_array]


def _results(computation: Computation) -> set[Instruction]:
    """The root; if it is a tuple, what it holds as well."""
    root = computation.root
    return {root, *root.operands} if root.opcode == "tuple" else {root}


# ---- siblings ------------------------------------------------------------------------------------------------------


def _merge_siblings(module: Module, builder: Builder, capacity: RowCapacity) -> bool:
    taken = {computation.name for computation in module.computations}
    groups: dict[tuple[Instruction, object], list[Instruction]] = {}
    for region in _regions(builder.computation):
        left = _left_side(region)
        if left is not None:
            kind = region.frontend_attributes[ROWS], region.shape.dims
            groups.setdefault((left, kind), []).append(region)
    changed = False
    for (left, _), members in groups.items():
        while len(members) > 1:
            together = members[:1]
            for region in members[1:]:
                inputs = {o for m in (*together, region) for o in m.operands}
                fits = len(inputs) <= capacity.max_inputs and capacity.holds([_product(m) for m in (*together, region)])
                if fits and _are_apart(left, [*together, region]):
                    together.append(region)
            members = [m for m in members if m not in together]
            if len(together) > 1:
                _fuse(module, builder, together, taken)
                changed = True
    return changed


def _left_side(region: Instruction) -> Instruction | None:
    """The value that the only product of a region with independent columns multiplies from the left."""
    body = region.called[0]
    order = body.post_order()
    dots = [i for i in order if i.opcode == "dot"]
    if len(dots) != 1 or dots[0] is body.root or dots[0].attribute("lhs_batch_dims"):
        return None
    if dots[0].operands[0].opcode != "parameter":
        return None
    maps = maps_of(order, {body.root: row_map(body.root, row_dims(region))})
    if maps is None or not is_column_parallel(order, maps, [body.root]):
        return None
    return region.operands[int(dots[0].operands[0].attributes["parameter_number"])]


def _product(region: Instruction) -> Instruction:
    """The only product of a region."""
    return next(i for i in region.called[0].instructions if i.opcode == "dot")


def _are_apart(left: Instruction, regions: list[Instruction]) -> bool:
    """Whether none of the regions depends on another; `left` is known to depend on none."""
    for region in regions:
        stack, seen = list(region.operands), {left}
        while stack:
            current = stack.pop()
            if current in seen:
                continue
            seen.add(current)
            if current in regions or len(seen) > PATH_MAX:
                return False
            stack.extend(current.operands)
    return True


def _fuse(module: Module, builder: Builder, regions: list[Instruction], taken: set[str]) -> None:
    """One region with the results of several, in their order; taken: names of computations."""
    first = regions[0]
    body = Computation(module.unique_name(first.called[0].name, taken))
    body.is_fusion = True
    inner = Builder(body)
    parameters: dict[Instruction, Instruction] = {}
    roots = []
    for region in regions:
        copies: dict[Instruction, Instruction] = {}
        for instruction in region.called[0].post_order():
            if instruction.opcode == "parameter":
                operand = region.operands[int(instruction.attributes["parameter_number"])]
                if operand not in parameters:
                    number = len(parameters)
                    parameters[operand] = inner.parameter(number, instruction.shape, f"p{number}")
                copies[instruction] = parameters[operand]
            else:
                operands = [copies[o] for o in instruction.operands]
                name = inner.unique_name(instruction.name)
                copies[instruction] = body.add(clone_instruction(instruction, operands, name=name))
        roots.append(copies[region.called[0].root])
    body.root = inner.make("tuple", *roots)
    module.add(body)
    _replace(builder, regions, first, list(parameters), body)


# ---- conversions ---------------------------------------------------------------------------------------------------


def _take_conversions(builder: Builder, keeps: bool) -> bool:
    """keeps: results of the computation stay as they are, since a caller has places for them."""
    computation = builder.computation
    changed = False
    for region in _regions(computation):
        conversions = [u for u in region.users if u.opcode == "convert" and u.shape.dtype.is_float]
        results = _results(computation) if keeps else set()
        if not conversions or not region.shape.dtype.is_float or results.intersection((region, *conversions)):
            continue
        if any(c.control_predecessors for c in conversions):
            continue
        body = region.called[0]
        inner = Builder(body)
        converted = [body.add(clone_instruction(c, [body.root], name=inner.unique_name(c.name))) for c in conversions]
        body.root = inner.make("tuple", body.root, *converted)
        _replace(builder, [region, *conversions], region, list(region.operands), body)
        changed = True
    return changed


# ---- what makes an operand -----------------------------------------------------------------------------------------


def _take_makers(module: Module, builder: Builder, keeps: bool, capacity: RowCapacity) -> bool:
    """keeps: see _take_conversions."""
    computation = builder.computation
    order = computation.post_order()
    position = {instruction: number for number, instruction in enumerate(order)}
    results = _results(computation) if keeps else {computation.root}
    changed = False
    for region in order:
        if not is_row_program(region) or not region.shape.is_array:
            continue
        makers = [o for o in dict.fromkeys(region.operands) if o not in results and _is_work(o, capacity)
                  and not _comes_between(o, region, position)]
        if makers and region not in results and _take_maker(module, builder, region, makers[0], capacity):
            changed = True
            # who read the maker before the region did comes behind it now
            position = {instruction: number for number, instruction in enumerate(computation.post_order())}
    return changed


def _comes_between(maker: Instruction, region: Instruction, position: dict[Instruction, int]) -> bool:
    """Whether the region depends on another reader of the maker, or may."""
    readers = {user for user in maker.users if user is not region}
    stack, seen = [o for o in region.operands if o is not maker], {maker}
    while stack:
        current = stack.pop()
        if current in readers or len(seen) > PATH_MAX:
            return True
        if current not in seen and position[current] > position[maker]:
            seen.add(current)
            stack.extend(current.operands)
    return False


def _is_work(value: Instruction, capacity: RowCapacity) -> bool:
    """Elementwise work on floats that is no region of its own."""
    return is_elementwise(value) and value.shape.is_array and value.shape.dtype.is_float and not value.shape.dynamic \
        and value.opcode not in (*FREE, "copy") and not value.control_predecessors and capacity.supported(value)


def _take_maker(module: Module, builder: Builder, region: Instruction, maker: Instruction, capacity: RowCapacity) -> bool:
    """Make an operand inside of the region and a result of it, if its rows are the region's and there is room."""
    body, rows = region.called[0], row_dims(region)
    order = body.post_order()
    maps = maps_of(order, {body.root: row_map(body.root, rows)})
    parameter = body.parameters[region.operands.index(maker)]
    if maps is None or parameter not in maps or maps[parameter] != row_map(maker, rows):
        return False
    if any(parameter in i.operands for i in order if i.opcode == "dot") or region.operands.count(maker) > 1:
        return False
    free = {o for o in maker.operands if o.opcode == "broadcast" and operand_maps(o, maps[parameter]) is not None}
    members = [i for i in reversed(order) if i.opcode not in (*FREE, "parameter")]
    widths = [(m, columns(m, maps[m])) for m in members] + [(maker, columns(maker, maps[parameter]))]
    inputs = {o for o in region.operands if o is not maker} | {f.operands[0] if f in free else f for f in maker.operands}
    if len(inputs) > capacity.max_inputs or not capacity.fits(widths, is_column_parallel(order, maps, [body.root])):
        return False
    _make_inside(module, builder, region, maker, free)
    return True


def _make_inside(module: Module, builder: Builder, region: Instruction, maker: Instruction, free: set[Instruction]) -> None:
    """free: operands of the maker that are copied in."""
    body = Computation(module.unique_name(region.called[0].name, {c.name for c in module.computations}))
    body.is_fusion = True
    inner = Builder(body)
    parameters: dict[Instruction, Instruction] = {}

    def given(value: Instruction) -> Instruction:
        if value not in parameters:
            parameters[value] = inner.parameter(len(parameters), value.shape.without_layout(), f"p{len(parameters)}")
        return parameters[value]

    made = []
    for operand in maker.operands:
        source = given(operand.operands[0] if operand in free else operand)
        made.append(body.add(clone_instruction(operand, [source], name=inner.unique_name("b"))) if operand in free else source)
    copy = body.add(clone_instruction(maker, made, name=inner.unique_name(maker.name)))
    copies = {region.called[0].parameters[region.operands.index(maker)]: copy}
    for instruction in region.called[0].post_order():
        if instruction.opcode != "parameter":
            operands = [copies[o] for o in instruction.operands]
            copies[instruction] = body.add(clone_instruction(instruction, operands, name=inner.unique_name(instruction.name)))
        elif instruction not in copies:
            copies[instruction] = given(region.operands[int(instruction.attributes["parameter_number"])])
    body.root = inner.make("tuple", copy, copies[region.called[0].root])
    module.add(body)
    _replace(builder, [maker, region], region, list(parameters), body)


def _replace(builder: Builder, old: list[Instruction], like: Instruction, inputs: list[Instruction], body: Computation) -> None:
    """A region with a tuple of results for instructions that were computed apart."""
    computation = builder.computation
    shape = tuple_of(*(i.shape for i in old))
    fusion = Instruction(builder.unique_name(f"{like.name}.all"), find("fusion"), shape, inputs, {"kind": "kCustom"}, (body,),
                         like.location)
    fusion.frontend_attributes = dict(like.frontend_attributes)
    computation.add(fusion)
    for index, instruction in enumerate(old):
        builder.location = instruction.location
        element = builder.make("get-tuple-element", fusion, index=index)
        computation.replace(instruction, element)
    for instruction in reversed(old):
        computation.remove(instruction)
