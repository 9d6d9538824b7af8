"""Compute f32 work in a smaller type, as the user asks: products only, or everything that bears it.

Before (matmult, bf16; w is a declared weight):
  x = f32[8,64] tanh(p)    w = f32[64,16] parameter(1)    ROOT d = f32[8,16] dot(x, w), ..
After:
  x = f32[8,64] tanh(p)    c = bf16[8,64] convert(x)    w = bf16[64,16] parameter(1), frontend_attributes={nxcc.interface="f32"}
  ROOT d = f32[8,16] dot(c, w), ..

Sums stay in f32, results of products are f32, and the types of inputs and outputs never change. tf32 is stored as f32: its
products are marked nxcc.matmul="tf32" and the tensor engine rounds. 8-bit operands are clamped to the type's range first.

`all` also computes elementwise work in 16 bits (with fp8, in bf16), except: reductions and what is computed from their results
row by row (softmax, the centred values of norms), since errors there touch whole rows; what is summed, as the residual sum
before a norm; what a constant beyond the type's range goes into (masks), until a bounded function brings it back; angles,
numbers that become whole, and the elementwise work that makes them, since a rounded large angle or place is another one; what a
logarithm reads; discrete choices (comparisons, rounding), though a comparison with narrow work sees other values as narrow work
does; work on weights alone. Data moves in the type that it has.
"""

from __future__ import annotations

from collections import Counter

from nxcc.ir.dtypes import BF16, F8E4M3, F16, F32, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names
from nxcc.ir.hlo.marks import INTERFACE, MATMUL
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.passes.dtypes.angles_and_places import MOVING, angles_and_places
from nxcc.passes.dtypes.casts import VIEWS, Casts, largest
from nxcc.passes.dtypes.legalize_dtypes import update_entry_layout
from nxcc.passes.notes import Note, Report, note_at, unheard
from nxcc.passes.patterns import broadcast_to, splat_value
from nxcc.passes.rewriting import flow_computations, remove_unread, settle

PRODUCTS = ("dot", "convolution")

TYPES: dict[str, DType] = {"bf16": BF16, "fp16": F16, "fp8_e4m3": F8E4M3}
"""Types by the word of --auto-cast-type; tf32 has no storage type of its own."""

ELEMENTWISE = frozenset((
    "abs", "add", "cbrt", "clamp", "divide", "erf", "exponential", "exponential-minus-one", "log", "log-plus-one", "logistic",
    "maximum", "minimum", "multiply", "negate", "power", "rsqrt", "select", "sqrt", "subtract", "tanh"))
"""Elementwise operators that bear a smaller type."""

BOUNDED = frozenset(("exponential", "logistic", "tanh", "erf", "clamp"))
"""Operators whose result is in range though an operand is a mask's number."""

LOGARITHMS = ("log", "log-plus-one")
_DATA_OPERANDS = {"pad": 2, "dynamic-update-slice": 2, "concatenate": None}
"""How many first operands of a moving operator are data; 1 if absent, all if None."""


@dataclass(frozen=True)
class Autocast:
    """mode: none, matmult or all; type: bf16, fp16, tf32 or fp8_e4m3; weights: numbers of entry parameters that are weights."""

    mode: str
    type: str
    weights: frozenset[int] = frozenset()
    report: Report = unheard
    name: str = "autocast"

    def run(self, module: Module) -> bool:
        if self.mode == "none":
            return False
        counts: Counter[str] = Counter()
        if self.type == "tf32":
            _mark_products(module, counts)
        else:
            self._cast(module, counts)
        if counts:
            self.report(Note(self.name, f"{_listed(counts)} now in {self.type}; sums stay in f32"))
        return bool(counts)

    def _cast(self, module: Module, counts: Counter[str]) -> None:
        product_type = TYPES[self.type]
        wide_type = BF16 if product_type.bits < 16 else product_type
        weights = {p for n, p in enumerate(module.entry.parameters) if n in self.weights}
        touched, names = False, Names(module)
        for computation in flow_computations(module):
            products = _products(computation)
            builder = Builder(computation, names=names)
            if self.mode == "all":
                touched |= _Everything(builder, wide_type, weights, counts).run()
            touched |= _cast_products(builder, [p for p in products if p.parent is computation], product_type, counts)
        if touched:
            self._cast_weights(module, weights)

    def _cast_weights(self, module: Module, weights: set[Instruction]) -> None:
        """A weight that is only read in a smaller type is stored in it; the loader casts."""
        for parameter in module.entry.parameters:
            users = list(parameter.users)
            dtypes = {user.shape.dtype for user in users if user.opcode == "convert"}
            if parameter not in weights or not dtypes or parameter is module.entry.root:
                continue
            if len(dtypes) > 1 or any(user.opcode != "convert" for user in users):
                self.report(note_at(self.name, parameter, "the weight is read in f32 too, so that it is cast in each request"))
                continue
            parameter.frontend_attributes.setdefault(INTERFACE, parameter.shape.dtype.name)
            parameter.shape = parameter.shape.with_dtype(dtypes.pop())
            for user in users:
                module.entry.replace(user, parameter)
                module.entry.remove(user)
        update_entry_layout(module)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {opcode}" for opcode, count in sorted(counts.items()))


def _products(computation: Computation) -> list[Instruction]:
    """Products of f32 matrices or images."""
    return [i for i in computation.post_order() if i.opcode in PRODUCTS and i.shape.dtype is F32
            and all(o.shape.dtype is F32 for o in i.operands) and len(i.operands) == 2 and not i.shape.dynamic]


def _mark_products(module: Module, counts: Counter[str]) -> None:
    for computation in flow_computations(module):
        for product in _products(computation):
            if product.frontend_attributes.setdefault(MATMUL, "tf32") == "tf32":
                counts[product.opcode] += 1


def _cast_products(builder: Builder, products: list[Instruction], dtype: DType, counts: Counter[str]) -> bool:
    computation, casts = builder.computation, Casts(builder, dtype)
    for product in products:
        old = product.operands
        operands = [_clamped(o, dtype, casts.builder) for o in old]
        computation.set_operands(product, [casts.of(o) for o in operands])
        remove_unread(computation, old)
        counts[product.opcode] += 1
    if products:
        settle(computation)
    return bool(products)


def _clamped(value: Instruction, dtype: DType, builder: Builder) -> Instruction:
    """An activation within the range of an 8-bit type; wider types overflow no earlier than the model does."""
    source = value
    while source.opcode in VIEWS:
        source = source.operands[0]
    if dtype.bits >= 16 or source.opcode in ("constant", "parameter"):
        return value
    builder.location = value.location
    limit = largest(dtype)
    bounds = [builder.splat(value.shape.dtype, (), number) for number in (-limit, limit)]
    low, high = (broadcast_to(builder, bound, value.shape.dims, ()) for bound in bounds)
    return builder.make("clamp", low, value, high)


class _Everything:
    """Which instructions of one computation compute in the smaller type, and the conversions between them and the others."""

    def __init__(self, builder: Builder, dtype: DType, weights: set[Instruction], counts: Counter[str]) -> None:
        self.builder, self.computation = builder, builder.computation
        self.dtype = dtype
        self.weights = weights
        self.counts = counts
        self.order = self.computation.post_order()
        self.exact = angles_and_places(self.order)
        self.low: set[Instruction] = set()
        self.statistics: set[Instruction] = set()
        self.spread: set[Instruction] = set()
        self.beyond: set[Instruction] = set()
        self.fixed: set[Instruction] = set()
        self.read_low: set[Instruction] = set()

    def run(self) -> bool:
        for instruction in self.order:
            self._classify(instruction)
            if instruction in self.exact:
                self.low.discard(instruction)
        if not self.low:
            return False
        self.read_low = {o for i in self.low for o in i.operands if o.shape.dtype is F32}
        down, up = Casts(self.builder, self.dtype), Casts(self.builder, F32)
        for instruction in self.order:
            if instruction in self.low:
                self._lower(instruction, down)
            elif any(o in self.low for o in instruction.operands):
                operands = [up.of(o) if o in self.low else up.of(down.of(o)) if self._is_compared_rounded(o, instruction) else o
                            for o in instruction.operands]
                self.computation.set_operands(instruction, operands)
        if self.computation.root in self.low:
            self.computation.root = up.of(self.computation.root)
        remove_unread(self.computation, reversed(list(self.computation.instructions)))
        settle(self.computation)
        return True

    def _is_compared_rounded(self, value: Instruction, user: Instruction) -> bool:
        """Whether a comparison with narrow work should see a value as narrow work does: x == maximum(x, y) must stay true."""
        return user.opcode == "compare" and value in self.read_low and value not in self.fixed

    def _lower(self, instruction: Instruction, down: Casts) -> None:
        data = _data_operands(instruction)
        operands = [down.of(o) if o in data else o for o in instruction.operands]
        self.computation.set_operands(instruction, operands)
        instruction.shape = instruction.shape.with_dtype(self.dtype)
        if instruction.opcode not in MOVING:
            self.counts[instruction.opcode] += 1

    def _classify(self, instruction: Instruction) -> None:
        if instruction.shape.dtype is not F32 or instruction.shape.dynamic:
            return
        opcode = instruction.opcode
        if opcode == "constant":
            self._constant(instruction)
        elif opcode == "parameter":
            if instruction in self.weights or instruction.shape.rank < 2:
                self.fixed.add(instruction)
        elif opcode in MOVING:
            self._moving(instruction)
        elif instruction.operator.elementwise:
            self._elementwise(instruction)
        elif opcode == "reduce":
            self.statistics.add(instruction)

    def _constant(self, instruction: Instruction) -> None:
        self.fixed.add(instruction)
        value = splat_value(instruction)
        # an infinity is one in every type
        if value is not None and largest(self.dtype) < abs(float(value)) < float("inf"):
            self.beyond.add(instruction)

    def _moving(self, instruction: Instruction) -> None:
        """Moves the kind of its data; a broadcast spreads statistics over rows."""
        data = _data_operands(instruction)
        for kind in (self.beyond, self.spread, self.statistics):
            if any(o in kind for o in data):
                grows = instruction.shape.element_count > instruction.operands[0].shape.element_count
                kind = self.spread if grows and kind is self.statistics else kind
                kind.add(instruction)
                return
        cheap = [o in self.low or o in self.weights or o.opcode == "constant" for o in data]
        if all(o in self.fixed for o in data):
            self.fixed.add(instruction)
            if instruction.opcode in ("gather", "dynamic-slice") and all(cheap):
                self.low.add(instruction)
                self.fixed.discard(instruction)
        elif all(cheap):
            self.low.add(instruction)

    def _elementwise(self, instruction: Instruction) -> None:
        opcode = instruction.opcode
        operands = [o for o in instruction.operands if o.shape.dtype is F32]
        if any(o in self.beyond for o in operands) and opcode not in BOUNDED:
            self.beyond.add(instruction)
        elif all(o in self.fixed for o in operands) and operands and opcode != "select":
            self.fixed.add(instruction)
        elif any(o in self.spread for o in operands) or self._continues_rows(operands):
            # work with a row's statistics is f32 as long as nothing else comes in
            self.spread.add(instruction)
            if any(o not in self.spread and splat_value(o) is None for o in operands):
                self._leave(instruction, operands)
        elif any(o in self.statistics for o in operands):
            self.statistics.add(instruction)
        elif opcode in ELEMENTWISE and operands and instruction.shape.element_count > 1 and not _is_delicate(instruction):
            self.low.add(instruction)

    def _continues_rows(self, operands: list[Instruction]) -> bool:
        return bool(operands) and all(o in self.spread or splat_value(o) is not None for o in operands) and any(
            o in self.spread for o in operands)

    def _leave(self, instruction: Instruction, operands: list[Instruction]) -> None:
        """Row work that meets weights (the scale of a norm) or other activations is elementwise work again."""
        if not any(o in self.spread and o.opcode == "broadcast" for o in operands) and instruction.opcode in ELEMENTWISE:
            self.spread.discard(instruction)
            self.low.add(instruction)


def _is_delicate(instruction: Instruction) -> bool:
    """Whether a reduction reads the value, or its squares and the like (a norm's statistics, and the sum they are of), or a
    logarithm, near whose pole a rounding is a large error."""
    def reduces(user: Instruction) -> bool:
        return user.opcode == "reduce"

    def squares(user: Instruction) -> bool:
        return user.operator.elementwise and bool(user.users) and all(map(reduces, user.users))
    return any(reduces(user) or squares(user) or user.opcode in LOGARITHMS for user in instruction.users)


def _data_operands(instruction: Instruction) -> tuple[Instruction, ...]:
    """Operands that are data of the result's type: not indices, not predicates."""
    if instruction.opcode in MOVING:
        count = _DATA_OPERANDS.get(instruction.opcode, 1)
        return instruction.operands[:count]
    return tuple(o for o in instruction.operands if o.shape.dtype is F32 or o.shape.dtype is instruction.shape.dtype)
