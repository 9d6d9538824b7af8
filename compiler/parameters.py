"""What each parameter of a module is: an input, state (aliased to an output) or a weight; and giving weights their values.

A weight is bound at compile time (it becomes a constant) or declared, and then its value comes when the NEFF is loaded.
Parameters are named by number, by the name of the HLO instruction, or by the framework's name in its metadata.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from nxcc.ir.diagnostics import (
    INPUT_MISMATCH,
    USAGE,
    WEIGHT_MISMATCH,
    WEIGHT_MISSING,
    WEIGHT_UNEXPECTED,
    Code,
    CompileError,
)
from nxcc.ir.dtypes import PRED, DType, dtype
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import IoAlias
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.literals import Array, Literal
from nxcc.ir.shapes import Shape

INTERFACE_ATTRIBUTE = "nxcc.interface"
"""Frontend attribute of a parameter whose type passes changed: the dtype that the user hands in."""

ORDER_ATTRIBUTE = "nxcc.order"
"""Frontend attribute of a weight that is stored turned: for each stored dimension, its number as the user hands it in."""

OUTPUT_ATTRIBUTE = "nxcc.output."
"""Frontend attributes of a module whose results passes changed: `nxcc.output.<leaf>` is the dtype that the user gets."""

INPUT, STATE, WEIGHT = "input", "state", "weight"


@dataclass(frozen=True)
class Tensor:
    """One array leaf of the entry parameters.

    name: of the value (`input<k>`, `weight<number>`); number: of the parameter in the module as read; hlo: name of its
    instruction; role: input, state or weight; dtype, dims: as the user hands it in; shape: as the compiled module takes it.
    order: for each dimension of the shape its number in dims; empty if none has moved.
    """

    name: str
    number: int
    hlo: str
    role: str
    dtype: DType
    shape: Shape
    order: tuple[int, ...] = ()

    @property
    def dims(self) -> tuple[int, ...]:
        if not self.order:
            return self.shape.dims
        return tuple(self.shape.dims[self.order.index(d)] for d in range(len(self.order)))


@dataclass()
class Signature:
    """Numbers and roles of the entry parameters of a module while it is compiled.

    numbers: for each parameter that is left, its number in the module as read. weights: numbers (as read) of declared
    weights.
    """

    numbers: list[int]
    weights: frozenset[int]

    def tensors(self, module: Module) -> tuple[Tensor, ...]:
        """All parameter leaves, inputs numbered in their order."""
        state = {(alias.parameter, alias.parameter_index) for alias in module.aliases}
        found = []
        inputs = 0
        for index, parameter in enumerate(module.entry.parameters):
            number = self.numbers[index]
            interface = parameter.frontend_attributes.get(INTERFACE_ATTRIBUTE)
            order = tuple(int(d) for d in parameter.frontend_attributes.get(ORDER_ATTRIBUTE, "").split(",") if d)
            for path, shape in leaf_shapes(parameter.shape):
                role = WEIGHT if number in self.weights else STATE if (index, path) in state else INPUT
                name = f"weight{number}" if role is WEIGHT else f"input{inputs}"
                inputs += role is not WEIGHT
                given = dtype(interface) if interface and not path else shape.dtype
                found.append(Tensor(name, number, parameter.name, role, given, shape, order))
        return tuple(found)


def leaf_shapes(shape: Shape, path: tuple[int, ...] = ()) -> list[tuple[tuple[int, ...], Shape]]:
    """Array leaves of a shape with their paths, depth first."""
    if shape.is_array:
        return [(path, shape)]
    return [leaf for index, element in enumerate(shape.elements) for leaf in leaf_shapes(element, (*path, index))]


def result_dtypes(module: Module) -> tuple[DType, ...]:
    """The dtype of each result leaf as the user gets it."""
    given = module.frontend_attributes
    return tuple(dtype(given[f"{OUTPUT_ATTRIBUTE}{k}"]) if f"{OUTPUT_ATTRIBUTE}{k}" in given else shape.dtype
                 for k, (_, shape) in enumerate(leaf_shapes(module.entry.root.shape)))


def declare_weights(module: Module, specification: str) -> frozenset[int]:
    """The numbers of the parameters that a --weight-params specification names.

    specification: numbers, ranges and regular expressions separated by commas. An expression must match a whole name; if
    it matches none, it may match anywhere. Raises CompileError(USAGE) for what names no parameter.
    """
    found: set[int] = set()
    for word in _split_words(specification):
        numbers = _numbers_of(word, module.entry.parameters)
        if not numbers:
            raise CompileError(USAGE, f"--weight-params {word!r} names no parameter",
                               why=f"the module has parameters 0 to {len(module.entry.parameters) - 1}")
        found.update(numbers)
    _refuse_tuples(module.entry.parameters, found)
    return frozenset(found)


def _split_words(specification: str) -> list[str]:
    """Split at commas that stand outside brackets, so that expressions may hold some."""
    return [word.strip() for word in re.split(r",(?![^\[({]*[\])}])", specification) if word.strip()]


def _numbers_of(word: str, parameters: Sequence[Instruction]) -> list[int]:
    span = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
    if span:
        low, high = int(span[1]), int(span[2] or span[1])
        return list(range(low, high + 1)) if low <= high < len(parameters) else []
    try:
        pattern = re.compile(word)
    except re.error as error:
        raise CompileError(USAGE, f"--weight-params {word!r} is no regular expression", why=str(error)) from None
    for matches in (pattern.fullmatch, pattern.search):
        found = [n for n, p in enumerate(parameters) if any(matches(name) for name in _names(p))]
        if found:
            return found
    return []


def _names(parameter: Instruction) -> list[str]:
    return [name for name in (parameter.name, parameter.location.op_name) if name]


def _refuse_tuples(parameters: Sequence[Instruction], numbers: set[int]) -> None:
    for number in sorted(numbers):
        if not parameters[number].shape.is_array:
            raise CompileError(USAGE, f"parameter {number} cannot be a weight", parameters[number].name,
                               why=f"its shape is {parameters[number].shape}, not an array")


def match_weights(arrays: Mapping[str, Array], tensors: Mapping[int, Tensor], path: str) -> tuple[dict[int, str],
                                                                                               list[CompileError]]:
    """Which array of a file belongs to which parameter: by number or by name.

    tensors: candidates by number. Returns array names by parameter number, and what fits no parameter or fits twice.
    """
    by_name: dict[str, int] = {}
    for number, tensor in tensors.items():
        by_name.setdefault(tensor.hlo, number)
        by_name.setdefault(tensor.hlo.lstrip("%"), number)
    found: dict[int, str] = {}
    problems = []
    for name in arrays:
        number = int(name) if name.isdecimal() and int(name) in tensors else by_name.get(name.lstrip("%"), -1)
        if number < 0:
            problems.append(CompileError(WEIGHT_UNEXPECTED, f"no parameter takes tensor {name!r}", path,
                                         why=_who(tensors), remedy="name tensors by parameter number or HLO name"))
        elif number in found:
            problems.append(CompileError(WEIGHT_UNEXPECTED, f"parameter {number} has two tensors",
                                         path, why=f"{found[number]!r} and {name!r}"))
        else:
            found[number] = name
    return found, problems


def _who(tensors: Mapping[int, Tensor]) -> str:
    numbers = sorted(tensors)
    if not numbers:
        return "the module declares no weights"
    return f"the parameters that may be weights are {numbers[0]} to {numbers[-1]}"


def conform(array: Array, shape: Shape, what: str, where: str, code: Code) -> Array:
    """The array as the dtype of a shape: unchanged, or its bits where the file cannot hold the type.

    Raises CompileError(code) if dimensions or dtype are others.
    """
    wanted = shape.dtype
    if array.dtype == wanted.numpy:
        found = array
    elif _holds_bits(array.dtype, wanted):
        found = array.view(wanted.numpy) if array.ndim else array.reshape(1).view(wanted.numpy).reshape(())
    else:
        raise CompileError(code, f"{what} is {array.dtype}{list(array.shape)}, the module has {shape}", where,
                           remedy=f"give {_spelling(wanted)}")
    if found.shape != shape.dims:
        raise CompileError(code, f"{what} is {array.dtype}{list(array.shape)}, the module has {shape}", where)
    return found


def _holds_bits(found: np.dtype[np.generic], wanted: DType) -> bool:
    """Whether an array of this type can be the bit pattern of a dtype that numpy has not of itself."""
    foreign = wanted.numpy.isbuiltin != 1
    return foreign and found.itemsize == wanted.numpy.itemsize and found.kind in "uV"


def _spelling(wanted: DType) -> str:
    if wanted.numpy.isbuiltin != 1:
        return f"{wanted} as the bit pattern in uint{8 * wanted.numpy.itemsize}"
    return str(wanted.numpy)


def bind_weights(module: Module, signature: Signature, arrays: Mapping[str, Array], path: str) -> list[CompileError]:
    """Make constants of the parameters that the file has values for; the module and signature are changed.

    Returns all problems; then the module is only fit to be thrown away.
    """
    tensors = {t.number: t for t in signature.tensors(module) if t.shape.is_array}
    found, problems = match_weights(arrays, tensors, path)
    missing = sorted(signature.weights - found.keys())
    problems += [CompileError(WEIGHT_MISSING, f"parameter {n} is declared a weight and has no value", tensors[n].hlo,
                              why=f"{path} has no tensor {str(n)!r} or {tensors[n].hlo!r}") for n in missing]
    values: dict[int, Array] = {}
    for number, name in found.items():
        try:
            values[number] = conform(arrays[name], tensors[number].shape, f"tensor {name!r}", path, WEIGHT_MISMATCH)
        except CompileError as error:
            problems.append(error)
    if not problems:
        _replace_parameters(module, signature, values)
    return problems


def _replace_parameters(module: Module, signature: Signature, values: Mapping[int, Array]) -> None:
    entry = module.entry
    builder = Builder(entry)
    old = entry.parameters
    kept = [index for index, number in enumerate(signature.numbers) if number not in values]
    for index, parameter in enumerate(old):
        number = signature.numbers[index]
        if number not in values:
            continue
        builder.location = parameter.location
        constant = builder.literal(Literal(parameter.shape, values[number]), f"{parameter.name}.value")
        entry.replace(parameter, constant)
        entry.remove(parameter)
    for new, index in enumerate(kept):
        old[index].attributes["parameter_number"] = new
    _renumber_header(module, {index: new for new, index in enumerate(kept)})
    entry.sort()
    signature.numbers = [signature.numbers[index] for index in kept]
    signature.weights = signature.weights - values.keys()


def keep_weights(module: Module, weights: frozenset[int]) -> list[str]:
    """Drop aliases of declared weights, whose values stay from call to call; what to say about it."""
    lost = [alias for alias in module.aliases if alias.parameter in weights]
    module.aliases = tuple(alias for alias in module.aliases if alias.parameter not in weights)
    module.buffer_donors = tuple((number, path) for number, path in module.buffer_donors if number not in weights)
    return [f"parameter {number} is declared a weight: no output takes its memory, though the module says so"
            for number in sorted({alias.parameter for alias in lost})]


def _renumber_header(module: Module, new_number: Mapping[int, int]) -> None:
    """Aliases, donors and entry layout after some parameters are gone."""
    module.aliases = tuple(IoAlias(a.output_index, new_number[a.parameter], a.parameter_index, a.kind)
                           for a in module.aliases if a.parameter in new_number)
    module.buffer_donors = tuple((new_number[n], path) for n, path in module.buffer_donors if n in new_number)
    if module.entry_layout is not None:
        shapes, result = module.entry_layout
        module.entry_layout = (tuple(shape for n, shape in enumerate(shapes) if n in new_number), result)


def random_inputs(tensors: Sequence[Tensor], seed: int = 0) -> list[Array]:
    """Values for tensors that nobody gave: the same on every machine. Floats lie in -1..1, integers in 0..7."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return [_random(generator, tensor.dtype, tensor.shape.dims) for tensor in tensors]


def _random(generator: np.random.Generator, wanted: DType, dims: tuple[int, ...]) -> Array:
    if wanted is PRED:
        return generator.integers(0, 2, dims).astype(bool)
    if wanted.is_integer:
        most = min(7, 2 ** (wanted.bits - wanted.is_signed) - 1)
        return generator.integers(0, most, dims, endpoint=True).astype(wanted.numpy)
    values = generator.uniform(-1, 1, dims)
    if wanted.is_complex:
        values = values + 1j * generator.uniform(-1, 1, dims)
    return np.asarray(values).astype(wanted.numpy)


def check_inputs(arrays: Mapping[str, Array], tensors: Sequence[Tensor], path: str) -> tuple[list[Array],
                                                                                             list[CompileError]]:
    """The arrays `input0..` of a file in order, and every problem; other keys are ignored."""
    values: list[Array] = []
    problems: list[CompileError] = []
    for tensor in tensors:
        if tensor.name not in arrays:
            there = ", ".join(sorted(arrays)[:8]) or "no arrays"
            problems.append(CompileError(INPUT_MISMATCH, f"{tensor.name} is missing", path, why=f"the file has {there}"))
            continue
        try:
            shape = tensor.shape.with_dtype(tensor.dtype)
            values.append(conform(arrays[tensor.name], shape, tensor.name, path, INPUT_MISMATCH))
        except CompileError as error:
            problems.append(error)
    return values, problems
