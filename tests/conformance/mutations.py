"""Changes to a module that others wrote: sizes, types, attributes, operators, layouts, results. What comes out is valid.

Each kind of change takes a copy of the module and a source of choices; it raises ShapeError, or gives False, where it finds
nothing to change. After it shapes follow again from operands, and the verifier has the last word; a module that it refuses is
cut off behind the instruction that was changed, and asked about once more.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nxcc.ir.diagnostics import CompileError
from nxcc.ir.dtypes import BF16, F8E5M2, F16, F32, PRED, S4, S8, S16, S32, S64, U8, U16, U32, U64, DType
from nxcc.ir.hlo.attributes import ConvolutionDimensions, PaddingDimension, SliceDimension, Window
from nxcc.ir.hlo.builder import Builder, clone_module, infer_shape
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.operator import ShapeError, find
from nxcc.ir.hlo.verifier import verify
from nxcc.ir.literals import Literal, tuple_literal
from nxcc.ir.shapes import Layout, Shape

SIZES = (0, 1, 1, 2, 3, 5, 7, 31, 64, 127, 128, 129, 257, 513, 2049)
ELEMENTS_MAX = 1 << 21
"""Of any one value: a mutant must be quick to judge."""

FLOATS, INTEGERS = (F32, F32, BF16, F16, F8E5M2), (S32, S32, U32, S8, U8, S16, U16, S64, U64, S4, PRED)
UNARY = ("negate", "abs", "exponential", "tanh", "sine", "sqrt", "floor", "sign", "logistic", "not", "log-plus-one", "popcnt",
         "round-nearest-even", "rsqrt", "copy")
BINARY = ("add", "subtract", "multiply", "divide", "remainder", "maximum", "minimum", "power", "and", "or", "xor", "atan2",
          "shift-left", "shift-right-arithmetic", "shift-right-logical")
SCALARS: tuple[float, ...] = (0, 1, 2, 3, -1, 5)

Change = Callable[[Module, random.Random], "Instruction | None"]
"""Gives the instruction that was changed, if there is one."""


def mutant(module: Module, choices: random.Random, most: int = 3) -> tuple[Module, list[str]] | None:
    """A valid module that differs from this one, and the names of what was changed; None if nothing came of it."""
    found, names = module, []
    wanted = choices.randint(1, most)
    for _ in range(8 * most):
        name = choices.choice(tuple(CHANGES))
        tried = _changed(found, name, choices)
        if tried is not None:
            found = tried
            names.append(name)
        if len(names) == wanted:
            break
    return (found, names) if names else None


def _changed(module: Module, name: str, choices: random.Random) -> Module | None:
    copy = clone_module(module)
    copy.entry_layout, copy.aliases = None, ()
    for instruction in copy.instructions():
        instruction.attributes.pop("unique_indices", None)  # promises about values that will be others
        instruction.attributes.pop("indices_are_sorted", None)
    try:
        place = CHANGES[name](copy, choices)
        if place is None:
            return None
        if _stands(copy):
            return copy
        if place.parent is not copy.entry:
            return None
        copy.entry.root = place
        _trim(copy)
        return copy if _stands(copy) else None
    except (ShapeError, ValueError, IndexError, OverflowError):
        return None


def _stands(module: Module) -> bool:
    """Whether the module is valid once shapes follow from operands."""
    try:
        for computation in module.reachable():
            for instruction in computation.post_order():
                _reshape(instruction)
                if any(leaf.element_count > ELEMENTS_MAX for leaf in instruction.shape.leaves()):
                    return False
        verify(module)
    except (ShapeError, CompileError):
        return False
    return True


_DECLARED = frozenset(("parameter", "constant", "iota", "reshape", "broadcast", "convert", "bitcast-convert", "bitcast"))


def _reshape(instruction: Instruction) -> None:
    """The result's dims as the operator says; its dtypes stay where dims are the same."""
    if instruction.operator.shape is None or instruction.opcode in _DECLARED or not instruction.operands:
        return
    found = infer_shape(instruction.operator, [o.shape for o in instruction.operands], instruction.attributes,
                        instruction.called)
    leaves, old = list(found.leaves()), list(instruction.shape.leaves())
    if [leaf.dims for leaf in leaves] != [leaf.dims for leaf in old] or instruction.opcode not in _MIXED:
        instruction.shape = found


_MIXED = frozenset(("dot", "convolution", "ragged-dot", "scaled-dot", "topk"))
"""Operators whose result may have a dtype of its own."""


def _trim(module: Module) -> None:
    """Instructions that the root does not need are gone, except parameters."""
    entry = module.entry
    for instruction in reversed(entry.post_order()):
        if not instruction.users and instruction is not entry.root and instruction.opcode != "parameter":
            entry.remove(instruction)
    module.computations = module.reachable()


_COMBINING = frozenset(("reduce", "reduce-window", "select-and-scatter", "sort", "all-reduce", "reduce-scatter",
                        "all-reduce-start"))
"""Operators whose computations must be associative, or an order: nothing is changed in them."""


def _pick(module: Module, choices: random.Random, accept: Callable[[Instruction], bool]) -> Instruction | None:
    bound = {c for i in module.instructions() if i.opcode in _COMBINING for c in i.called}
    found = [i for c in module.reachable() if c not in bound for i in c.instructions if accept(i)]
    return choices.choice(found) if found else None


def _computation(instruction: Instruction) -> Computation:
    assert instruction.parent is not None
    return instruction.parent


# Sizes and types of everything


def resize(module: Module, choices: random.Random) -> Instruction | None:
    """One size becomes another wherever it occurs, in attributes and constants as well."""
    sizes = sorted({d for i in module.instructions() for leaf in i.shape.leaves() for d in leaf.dims})
    if not sizes:
        return None
    old, new = choices.choice(sizes), choices.choice(SIZES)
    if old == new:
        return None

    def number(size: int) -> int:
        return new if size == old else size

    def shape(given: Shape) -> Shape:
        return replace(given, dims=tuple(map(number, given.dims)), elements=tuple(map(shape, given.elements)))

    for instruction in module.instructions():
        instruction.shape = shape(instruction.shape)
        instruction.attributes = {key: _resized(key, value, number, shape) for key, value in instruction.attributes.items()}
    return module.entry.root


def _resized(key: str, value: Any, number: Callable[[int], int], shape: Callable[[Shape], Shape]) -> Any:
    if isinstance(value, Literal):
        return _literal(value, lambda one: _stretched(one, tuple(map(number, one.shape))), shape)
    if isinstance(value, Window):
        return Window(tuple(replace(d, size=number(d.size)) for d in value.dims))
    if isinstance(value, tuple) and value and isinstance(value[0], SliceDimension):
        return tuple(replace(d, limit=number(d.limit), start=min(d.start, number(d.limit))) for d in value)
    if key in ("slice_sizes", "dynamic_slice_sizes"):
        return tuple(map(number, value))
    return value


def _literal(value: Literal, change: Callable[[Any], Any], shape: Callable[[Shape], Shape]) -> Literal:
    if value.shape.is_tuple:
        return tuple_literal(*(_literal(part, change, shape) for part in value.elements))
    wanted = shape(value.shape)
    return Literal(wanted, change(value.array).astype(wanted.dtype.numpy))


def _stretched(array: Any, dims: tuple[int, ...]) -> Any:
    """The array cut off, or begun again, to these dims."""
    for axis, size in enumerate(dims):
        if array.shape[axis] != size:
            array = np.take(array, np.arange(size), axis, mode="wrap") if array.shape[axis] else np.zeros(dims, array.dtype)
    return array


def retype(module: Module, choices: random.Random) -> Instruction | None:
    """One dtype becomes another wherever it occurs."""
    there = sorted({leaf.dtype for i in module.instructions() for leaf in i.shape.leaves()}, key=lambda d: d.number)
    old = choices.choice(there)
    new = choices.choice(FLOATS if old.is_float else INTEGERS if not old.is_complex else (old,))
    if old is new:
        return None

    def dtype(given: DType) -> DType:
        return new if given is old else given

    def shape(given: Shape) -> Shape:
        return replace(given, dtype=dtype(given.dtype), elements=tuple(map(shape, given.elements)))

    for instruction in module.instructions():
        instruction.shape = shape(instruction.shape)
        for key, value in instruction.attributes.items():
            if isinstance(value, Literal):
                instruction.attributes[key] = _literal(value, lambda one: one, shape)
        if instruction.opcode == "compare":
            instruction.attributes.pop("type", None)
    return module.entry.root


# Attributes


def reattribute(module: Module, choices: random.Random) -> Instruction | None:
    """Other attributes of one instruction."""
    chosen = _pick(module, choices, lambda i: i.opcode in _ATTRIBUTES)
    if chosen is None:
        return None
    chosen.attributes = {**chosen.attributes, **_ATTRIBUTES[chosen.opcode](chosen, choices)}
    return chosen


def _shuffled(count: int, choices: random.Random) -> tuple[int, ...]:
    return tuple(choices.sample(range(count), count))


def _some(count: int, choices: random.Random, least: int = 0) -> tuple[int, ...]:
    return tuple(sorted(choices.sample(range(count), choices.randint(least, count))))


def _slices(slicing: Instruction, choices: random.Random) -> dict[str, Any]:
    rows = []
    for size in slicing.operands[0].shape.dims:
        start = choices.randint(0, size)
        rows.append(SliceDimension(start, choices.randint(start, size), choices.choice((1, 1, 2, 3))))
    return {"slice": tuple(rows)}


def _padding(pad: Instruction, choices: random.Random) -> dict[str, Any]:
    return {"padding": tuple(PaddingDimension(choices.randint(-2, 3), choices.randint(-2, 3), choices.choice((0, 0, 1, 3)))
                             for _ in pad.operands[0].shape.dims)}


_FIELDS = ("stride", "padding_low", "padding_high", "window_dilation", "base_dilation", "reversal", "none")


def _window(instruction: Instruction, choices: random.Random) -> dict[str, Any]:
    plain = instruction.opcode == "select-and-scatter"
    rows = []
    for d in instruction.attribute("window").dims:
        field = choices.choice(_FIELDS)
        value: Any = choices.randint(-1, 3) if "padding" in field else choices.choice((1, 2, 3))
        if plain and field in ("window_dilation", "base_dilation", "reversal") or field == "none":
            rows.append(d)
        else:
            rows.append(replace(d, **{field: value if field != "reversal" else not d.reversal}))
    return {"window": Window(tuple(rows))}


def _convolution(instruction: Instruction, choices: random.Random) -> dict[str, Any]:
    if choices.random() < 0.6:
        return _window(instruction, choices)
    old = instruction.attribute("dim_labels")
    batch, feature, *spatial = _shuffled(2 + len(old.output_spatial), choices)
    numbers = ConvolutionDimensions(old.input_batch, old.input_feature, old.input_spatial, old.kernel_input_feature,
                                    old.kernel_output_feature, old.kernel_spatial, batch, feature, tuple(spatial))
    return {"dim_labels": numbers}


def _rank(instruction: Instruction) -> int:
    return instruction.operands[0].shape.rank


def _direction(compare: Instruction, choices: random.Random) -> dict[str, Any]:
    return {"direction": choices.choice(("EQ", "NE", "LT", "LE", "GT", "GE"))}


def _bits(instruction: Instruction, choices: random.Random) -> dict[str, Any]:
    return {"exponent_bits": choices.randint(1, 8), "mantissa_bits": choices.randint(0, 23)}


def _sizes(instruction: Instruction, choices: random.Random) -> dict[str, Any]:
    return {"dynamic_slice_sizes": tuple(choices.randint(min(1, d), d) for d in instruction.operands[0].shape.dims)}


_ATTRIBUTES: dict[str, Callable[[Instruction, random.Random], dict[str, Any]]] = {
    "transpose": lambda i, choices: {"dimensions": _shuffled(_rank(i), choices)},
    "reverse": lambda i, choices: {"dimensions": _some(_rank(i), choices)},
    "reduce": lambda i, choices: {"dimensions": _some(_rank(i), choices)},
    "sort": lambda i, choices: {"dimensions": (choices.randrange(_rank(i)),), "is_stable": True},
    "concatenate": lambda i, choices: {"dimensions": (choices.randrange(_rank(i)),)},
    "iota": lambda i, choices: {"iota_dimension": choices.randrange(i.shape.rank)},
    "broadcast": lambda i, choices: {"dimensions": tuple(sorted(choices.sample(range(i.shape.rank), _rank(i))))},
    "slice": _slices, "pad": _padding, "reduce-window": _window, "select-and-scatter": _window, "convolution": _convolution,
    "compare": _direction, "reduce-precision": _bits, "dynamic-slice": _sizes,
    "topk": lambda i, choices: {"largest": choices.random() < 0.5, "k": choices.randint(1, i.operands[0].shape.dims[-1])},
    "scan": lambda i, choices: {"is_reverse": not i.attribute("is_reverse")},
}


def renumber(module: Module, choices: random.Random) -> Instruction | None:
    """Another order of the dimensions of an operand of a dot, and its numbers with it."""
    dot = _pick(module, choices, lambda i: i.opcode == "dot")
    if dot is None:
        return None
    side = choices.randrange(2)
    word, operand = ("lhs", "rhs")[side], dot.operands[side]
    order = _shuffled(operand.shape.rank, choices)
    turned = Builder(_computation(dot)).transpose(operand, order)
    operands = list(dot.operands)
    operands[side] = turned
    _computation(dot).set_operands(dot, operands)
    _computation(dot).sort()
    for kind in ("batch", "contracting"):
        key = f"{word}_{kind}_dims"
        dot.attributes[key] = tuple(order.index(d) for d in dot.attribute(key))
    return dot


# Operators


def swap(module: Module, choices: random.Random) -> Instruction | None:
    """Another operator on the same operands."""
    chosen = _pick(module, choices, lambda i: i.opcode in (*UNARY, *BINARY) and i.opcode != "copy")
    if chosen is None:
        return None
    operator = find(choices.choice(UNARY if len(chosen.operands) == 1 else BINARY))
    chosen.operator, chosen.opcode, chosen.attributes = operator, operator.name, {}
    return chosen


def insert(module: Module, choices: random.Random) -> Instruction | None:
    """A function, a turn, a cast or a sum with itself between a value and its readers."""
    value = _pick(module, choices, lambda i: i.shape.is_array and i.shape.dtype is not PRED)
    if value is None:
        return None
    home = _computation(value)
    builder, readers = Builder(home), list(value.users)
    kind = choices.choice(("unary", "turned", "cast", "twice", "reversed"))
    made = value
    if kind == "unary":
        made = builder.make(choices.choice(UNARY), value)
    elif kind == "turned":
        order = _shuffled(value.shape.rank, choices)
        made = builder.transpose(builder.make("negate", builder.transpose(value, order)), np.argsort(order).tolist())
    elif kind == "cast":
        narrow = choices.choice(FLOATS if value.shape.dtype.is_float else INTEGERS)
        made = builder.convert(builder.convert(value, narrow), value.shape.dtype)
    elif kind == "twice":
        made = builder.make("add", value, value)
    else:
        made = builder.make("reverse", value, dimensions=_some(value.shape.rank, choices))
    for reader in readers:
        home.set_operands(reader, (made if o is value else o for o in reader.operands))
    if home.root is value:
        home.root = made
    home.sort()
    return made


def scalar(module: Module, choices: random.Random) -> Instruction | None:
    """Another number where one is written."""
    chosen = _pick(module, choices, lambda i: i.opcode == "constant" and i.shape.is_array and i.shape.rank == 0
                   and i.shape.dtype is not PRED and not i.shape.dtype.is_complex)
    if chosen is None:
        return None
    extremes: Sequence[float] = (np.inf, -np.inf, -0.0, np.nan) if chosen.shape.dtype.is_float else ()
    value = np.asarray(choices.choice((*SCALARS, *extremes)))
    chosen.attributes["literal"] = Literal(chosen.shape, value.astype(np.int64).astype(chosen.shape.dtype.numpy)
                                           if chosen.shape.dtype.is_integer else value.astype(chosen.shape.dtype.numpy))
    return chosen


# The border


def more_results(module: Module, choices: random.Random) -> Instruction | None:
    """Values from the middle are results too."""
    entry = module.entry
    found = [i for i in entry.instructions if i.shape.is_array and i is not entry.root]
    if not found or entry.root.shape.is_token:
        return None
    chosen = choices.sample(found, min(len(found), choices.randint(1, 3)))
    entry.root = Builder(entry).make("tuple", entry.root, *chosen)
    return entry.root


def lay_out(module: Module, choices: random.Random) -> Instruction | None:
    """Parameters and results with their dimensions in another order in memory."""
    if any(i.opcode == "bitcast" for i in module.instructions()):
        return None  # which would mean something else then

    def laid(shape: Shape) -> Shape:
        if not shape.is_array:
            return replace(shape, elements=tuple(map(laid, shape.elements)))
        return replace(shape, layout=Layout(_shuffled(shape.rank, choices)))

    for instruction in [*module.entry.parameters, module.entry.root]:
        instruction.shape = laid(instruction.shape)
    return module.entry.root


CHANGES: dict[str, Change] = {change.__name__: change for change in (
    resize, resize, retype, reattribute, renumber, swap, insert, scalar, more_results, lay_out)}
