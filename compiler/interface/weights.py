"""Which parameters are weights, and which tensor of a file is whose value.

A weight is bound at compile time (it becomes a constant) or declared, and then its value comes when the NEFF is loaded.
Parameters are named by number, by the name of the HLO instruction, or by the framework's name in its metadata.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nxcc.compiler.files.arrays import read_arrays
from nxcc.compiler.interface.parameters import Signature, Tensor, conform
from nxcc.compiler.problems import raise_problems
from nxcc.ir.diagnostics import USAGE, WEIGHT_MISMATCH, WEIGHT_MISSING, WEIGHT_UNEXPECTED, CompileError, near
from nxcc.ir.hlo.attributes import IoAlias
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.literals import Array, Literal

MAX_WORDS = 64
"""Of a framework's name, counted from its end: a name of a million words is nobody's."""

_Ends = dict[tuple[str, ...], list[tuple[int, tuple[str, ...]]]]


def declare_weights(module: Module, specification: str) -> frozenset[int]:
    """The numbers of the parameters that a --weight-params specification names.

    specification: numbers, ranges, names and regular expressions separated by commas. An expression must match a whole name;
    if it matches none, it may match anywhere. What is no name and matches none may be a framework's name in another notation,
    as in `match_weights`. Raises CompileError(USAGE) for what names no parameter.
    """
    found: set[int] = set()
    for word in _split_words(specification):
        numbers = _numbers_of(word, module.entry.parameters)
        if not numbers:
            names = [name for parameter in module.entry.parameters for name in _names(parameter)]
            raise CompileError(USAGE, f"--weight-params {word!r} names no parameter", why=_there_are(module),
                               remedy=near(word, names))
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
    literal = [n for n, p in enumerate(parameters) if word in _names(p)]
    if literal:
        return literal
    try:
        pattern = re.compile(word)
    except re.error as error:
        raise CompileError(USAGE, f"--weight-params {word!r} is no regular expression", why=str(error)) from None
    for matches in (pattern.fullmatch, pattern.search):
        found = [n for n, p in enumerate(parameters) if any(matches(name) for name in _names(p))]
        if found:
            return found
    named = _ending(word, _by_ends({n: p.location.op_name for n, p in enumerate(parameters)}))
    return named if len(named) == 1 else [n for n, p in enumerate(parameters) if p.name == word.removeprefix("%")]


def _names(parameter: Instruction) -> list[str]:
    return [name for name in (parameter.name, parameter.location.op_name) if name]


def _there_are(module: Module) -> str:
    count = len(module.entry.parameters)
    if not count:
        return "the module has no parameters"
    return f"the module has parameters 0 to {count - 1}, from {module.entry.parameters[0].name} to " \
           f"{module.entry.parameters[-1].name}"


def _refuse_tuples(parameters: Sequence[Instruction], numbers: set[int]) -> None:
    for number in sorted(numbers):
        if not parameters[number].shape.is_array:
            raise CompileError(USAGE, f"parameter {number} cannot be a weight", parameters[number].name,
                               why=f"its shape is {parameters[number].shape}, not an array")


def match_weights(arrays: Mapping[str, Array], tensors: Mapping[int, Tensor], path: str) -> tuple[dict[int, str],
                                                                                               list[CompileError]]:
    """Which array of a file belongs to which parameter: by number or by name.

    tensors: candidates by number. A name is that of the HLO instruction, or the framework's, in any notation: `dense.kernel`
    and `dense/kernel` are params['dense']['kernel'], if no other name ends so. Returns array names by parameter number, and
    what fits no parameter, several, or one that has an array.
    """
    hlo = {tensor.hlo.lstrip("%"): number for number, tensor in tensors.items()}
    framework = _by_ends({number: tensor.framework for number, tensor in tensors.items()})
    found: dict[int, str] = {}
    problems = []
    for name in arrays:
        numbers = _numbers_for(name, tensors, hlo, framework)
        if len(numbers) != 1:
            problems.append(_unmatched(name, numbers, tensors, path))
        elif numbers[0] in found:
            problems.append(CompileError(WEIGHT_UNEXPECTED, f"parameter {numbers[0]} has two tensors",
                                         path, why=f"{found[numbers[0]]!r} and {name!r}"))
        else:
            found[numbers[0]] = name
    return found, problems


def _by_ends(names: Mapping[int, str]) -> _Ends:
    """Numbers and whole names by each end of the framework's names, as words."""
    found: _Ends = {}
    for number, name in names.items():
        words = words_of(name)
        ends = range(max(0, len(words) - MAX_WORDS), len(words))
        for start in dict.fromkeys((0, *ends)) if words else ():
            found.setdefault(words[start:], []).append((number, words))
    return found


def words_of(name: str) -> tuple[str, ...]:
    """A framework's name in parts, whatever its notation."""
    return tuple(re.findall(r"\w+", name))


def _numbers_for(name: str, tensors: Mapping[int, Tensor], hlo: Mapping[str, int], framework: _Ends) -> list[int]:
    """Parameters that a tensor's name may mean: one if it is clear. TensorFlow calls the values of a node `name:0`."""
    name = name.removesuffix(":0")
    if name.isdecimal():
        return [int(name)] if int(name) in tensors else []
    if name.lstrip("%") in hlo:
        return [hlo[name.lstrip("%")]]
    return _ending(name, framework)


def _ending(name: str, framework: _Ends) -> list[int]:
    """Parameters whose framework name ends so; those alone that are called so as a whole, if there are."""
    ends = framework.get(words_of(name), [])
    return [number for number, words in ends if words == words_of(name)] or [number for number, _ in ends]


def _unmatched(name: str, numbers: list[int], tensors: Mapping[int, Tensor], path: str) -> CompileError:
    if numbers:
        names = " and ".join(tensors[number].framework for number in numbers[:2])
        return CompileError(WEIGHT_UNEXPECTED, f"tensor {name!r} may be one of {len(numbers)} parameters", path, why=names,
                            remedy="name tensors by parameter number or by a longer name")
    known = [word for tensor in tensors.values() for word in (tensor.framework, tensor.hlo) if word]
    return CompileError(WEIGHT_UNEXPECTED, f"no parameter takes tensor {name!r}", path, why=_who(tensors),
                        remedy=near(name, known) or "name tensors by parameter number, HLO name or framework name")


def _who(tensors: Mapping[int, Tensor]) -> str:
    numbers = sorted(tensors)
    if not numbers:
        return "the module declares no weights"
    if len(numbers) == 1:
        return f"the only parameter that may be a weight is {_called(tensors[numbers[0]])}"
    return f"the parameters that may be weights are {_called(tensors[numbers[0]])} to {_called(tensors[numbers[-1]])}"


def _called(tensor: Tensor) -> str:
    return f"{tensor.number} ({tensor.framework or tensor.hlo})"


def bind_weights(module: Module, signature: Signature, arrays: Mapping[str, Array], path: str) -> list[CompileError]:
    """Make constants of the parameters that the file has values for; the module and signature are changed.

    Returns all problems; then the module is only fit to be thrown away.
    """
    tensors = {t.number: t for t in signature.tensors(module) if t.shape.is_array}
    if not arrays:
        return [CompileError(WEIGHT_MISSING, "the weights file has no tensors", path)]
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


def bind_file(module: Module, path: str, declared: frozenset[int] = frozenset()) -> None:
    """Make constants of the parameters that a file has values for. Raises CompileError with all problems."""
    signature = Signature(list(range(len(module.entry.parameters))), declared)
    raise_problems(bind_weights(module, signature, read_arrays(path), path))
