"""What each parameter of a module is, an input, state (aliased to an output) or a weight, and arrays that must fit one.

Which parameters are weights, and what gives them their values, is in `weights`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nxcc.ir.diagnostics import (
    INPUT_MISMATCH,
    Code,
    CompileError,
)
from nxcc.ir.dtypes import PRED, DType, dtype
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.marks import INTERFACE, ORDER, OUTPUT
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.texts import is_text
from nxcc.ir.literals import Array
from nxcc.ir.shapes import Shape

INPUT, STATE, WEIGHT = "input", "state", "weight"


@dataclass(frozen=True)
class Tensor:
    """One array leaf of the entry parameters.

    name: of the value (`input<k>`, `weight<number>`); number: of the parameter in the module as read; hlo: name of its
    instruction; role: input, state or weight; dtype, dims: as the user hands it in; shape: as the compiled module takes it.
    order: for each dimension of the shape its number in dims; empty if none has moved. framework: what the framework calls
    the parameter, empty if the module does not say. is_text: the user hands in strings, which become u32.
    """

    name: str
    number: int
    hlo: str
    role: str
    dtype: DType
    shape: Shape
    order: tuple[int, ...] = ()
    framework: str = ""
    is_text: bool = False

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
            interface = parameter.frontend_attributes.get(INTERFACE)
            order = tuple(int(d) for d in parameter.frontend_attributes.get(ORDER, "").split(",") if d)
            for path, shape in leaf_shapes(parameter.shape):
                role = WEIGHT if number in self.weights else STATE if (index, path) in state else INPUT
                name = f"weight{number}" if role is WEIGHT else f"input{inputs}"
                inputs += role is not WEIGHT
                given = dtype(interface) if interface and not path else shape.dtype
                found.append(Tensor(name, number, parameter.name, role, given, shape, order, parameter.location.op_name))
        return tuple(found)


def leaf_shapes(shape: Shape, path: tuple[int, ...] = ()) -> list[tuple[tuple[int, ...], Shape]]:
    """Array leaves of a shape with their paths, depth first."""
    if shape.is_array:
        return [(path, shape)]
    return [leaf for index, element in enumerate(shape.elements) for leaf in leaf_shapes(element, (*path, index))]


def result_dtypes(module: Module) -> tuple[DType, ...]:
    """The dtype of each result leaf as the user gets it."""
    given = module.frontend_attributes
    return tuple(dtype(given[f"{OUTPUT}{k}"]) if f"{OUTPUT}{k}" in given else shape.dtype
                 for k, (_, shape) in enumerate(leaf_shapes(module.entry.root.shape)))


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


def conform_texts(array: Array, dims: tuple[int, ...], what: str, where: str) -> Array:
    """An array of strings; CompileError(INPUT_MISMATCH) if it is of another kind or shape."""
    if not is_text(array.dtype) or array.shape != dims:
        raise CompileError(INPUT_MISMATCH, f"{what} is {array.dtype}{list(array.shape)}, the graph takes string{list(dims)}",
                           where, remedy="give a numpy array of bytes or str")
    return array


def _holds_bits(found: np.dtype[np.generic], wanted: DType) -> bool:
    """Whether an array of this type can be the bit pattern of a dtype that numpy has not of itself."""
    foreign = wanted.numpy.isbuiltin != 1
    return foreign and found.itemsize == wanted.numpy.itemsize and found.kind in "uV"


def _spelling(wanted: DType) -> str:
    if wanted.numpy.isbuiltin != 1:
        return f"{wanted} as the bit pattern in uint{8 * wanted.numpy.itemsize}"
    return str(wanted.numpy)


def random_inputs(tensors: Sequence[Tensor], seed: int = 0) -> list[Array]:
    """Values for tensors that nobody gave: the same on every machine. Floats lie in -1..1, integers in 0..7."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return [(_random_texts if tensor.is_text else _random)(generator, tensor.dtype, tensor.shape.dims) for tensor in tensors]


TEXTS = (b"", b"a", b"the", b"graph", b"of", b"strings", b"runs", b"on the host")
"""What random inputs of strings consist of."""


def _random_texts(generator: np.random.Generator, wanted: DType, dims: tuple[int, ...]) -> Array:
    return np.asarray(np.array(TEXTS)[generator.integers(0, len(TEXTS), dims)])


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
            if tensor.is_text:
                values.append(conform_texts(arrays[tensor.name], shape.dims, tensor.name, path))
                continue
            values.append(conform(arrays[tensor.name], shape, tensor.name, path, INPUT_MISMATCH))
        except CompileError as error:
            problems.append(error)
    return values, problems
