"""Load a NEFF and run it: device nodes on simulated cores, host nodes by the oracle's code.

Loading opens the file, checks target, version and features, decodes the engine streams once, verifies the machine
program, puts constants into the HBM arenas, binds weights by the file's recipe (cast to the dtype of their place), and fills
what stays on chip. A run then walks the graph of nodes; values move between host and arenas only where another side reads them.
A run in which a product spread a NaN is made again with exact code (`again.py`), unless the file was made with `--relayout`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING

from nxcc.compiler.files.arrays import read_arrays
from nxcc.compiler.files.opening import open_compiled
from nxcc.compiler.interface.casts import cast
from nxcc.compiler.interface.counted_outputs import open_counted
from nxcc.compiler.interface.parameters import INPUT, STATE, WEIGHT, Tensor, check_inputs, conform, random_inputs
from nxcc.compiler.interface.text_values import open_texts
from nxcc.compiler.interface.weights import match_weights
from nxcc.compiler.problems import raise_problems
from nxcc.compiler.runtime.carried import SPREADS, read_module
from nxcc.compiler.runtime.device import Device
from nxcc.compiler.runtime.places import places_of
from nxcc.ir.diagnostics import INPUT_MISMATCH, NEFF_INVALID, WEIGHT_MISMATCH, WEIGHT_MISSING, WEIGHT_UNEXPECTED, CompileError
from nxcc.ir.dtypes import BY_NAME, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.texts import fresh
from nxcc.ir.literals import Array
from nxcc.ir.shapes import Shape
from nxcc.neff.members import CPU, Graph, HostConstant, InputTensor, Node, OutputTensor
from nxcc.neff.reader import Neff

if TYPE_CHECKING:
    from nxcc.compiler.runtime.again import ExactTwin


@dataclass
class HostNode:
    """A host module, read once, and the arrays of its large constants."""

    module: Module
    constants: list[Array]


def load(path: str, weights: str | Mapping[str, Array] | None = None, *, target: str | None = None,
         strict: bool = False, seed: int = 0) -> Loaded:
    """Open a NEFF and make it ready to run.

    weights: a file or arrays by parameter number or name, for the parameters that were declared weights.
    target: refuse a file for another one. strict: simulate with poisoned memory, race detection and a random legal order
    of the engines, which the seed decides.
    Raises CompileError for what the file, the weights or the target do not allow.
    """
    return Loaded(open_compiled(path), weights, target=target, strict=strict, seed=seed)


class Loaded:
    """A NEFF that is ready to run.

    inputs: what `run` takes, in order; weights: what was bound when it was loaded. was_repeated: whether the last run was made
    again with exact code.
    """

    def __init__(self, neff: Neff, weights: str | Mapping[str, Array] | None = None, *, target: str | None = None,
                 strict: bool = False, seed: int = 0) -> None:
        self.neff = neff
        self.graph: Graph = neff.require_runnable(target)
        self.texts = open_texts(self.graph, neff.path)
        self.tensors = tuple(_tensor(row, row.name in self.texts.names) for row in self.graph.inputs)
        self.inner = _inner_dtypes(self.graph, neff.path)
        self.orders = _orders(self.graph, neff.path)
        self.counted = open_counted(self.graph, neff.path)
        self.cores = {node.id: neff.core(node) for node in self.graph.nodes if node.executor != CPU}
        self.places = [places_of(subgraph) for subgraph in neff.subgraphs]
        self._check_places()
        self.devices = {core: Device(neff, core, strict, seed) for core in sorted(set(self.cores.values()))}
        self.hosts = {node.id: _open_host(neff, node) for node in self.graph.nodes if node.executor == CPU}
        self.resident: dict[str, Array] = {}
        self.repeats = "relayout" not in self.graph.nxcc.options and bool(self.graph.nxcc.extra.get(SPREADS))
        self.was_repeated = False
        self.entries = {node.id: _entries(node, neff.path) for node in self.graph.nodes}
        self.passing = {node.id: _passing(node, neff.path) for node in self.graph.nodes}
        self._turn = 0
        self._twin: ExactTwin | None = None
        self._strict, self._seed = strict, seed
        self._bind(weights)
        for device in self.devices.values():
            device.fill()

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(t for t in self.tensors if t.role in (INPUT, STATE))

    @property
    def outputs(self) -> tuple[OutputTensor, ...]:
        """What `run` gives, in order; a size that depends on values is its bound here."""
        return tuple(self.counted.visible(self.graph.outputs))

    @property
    def weights(self) -> tuple[Tensor, ...]:
        return tuple(t for t in self.tensors if t.role == WEIGHT)

    def _check_places(self) -> None:
        """Every value that a device node reads or writes has a place of its own shape; host values are checked when used."""
        for node in self.graph.nodes:
            if node.executor == CPU:
                continue
            rows: list[InputTensor | OutputTensor] = [*node.inputs, *node.outputs]
            for row in rows:
                place = self.places[self.cores[node.id]].get(row.name)
                dims = tuple(row.shape[d] for d in self.orders.get(row.name, range(len(row.shape))))
                if place is None or (place.dims, place.dtype) != (dims, self.inner.get(row.name, row.dtype)):
                    raise _invalid(f"value {row.name!r} of node {node.name!r} has no place of its shape", self.neff.path)

    def _bind(self, weights: str | Mapping[str, Array] | None) -> None:
        """Cast the declared weights and put them where the program expects them, once."""
        declared = {t.number: t for t in self.weights}
        arrays: Mapping[str, Array] = read_arrays(weights) if isinstance(weights, str) else weights or {}
        path = weights if isinstance(weights, str) else "weights"
        if arrays and not declared:
            raise CompileError(WEIGHT_UNEXPECTED, f"weights were given ({len(arrays)} arrays)", path,
                               why=f"{self.neff.path} declares none: they were bound when it was compiled, or are inputs")
        found, problems = match_weights(arrays, declared, path)
        missing = sorted(declared.keys() - found.keys())
        if missing and not arrays:
            raise CompileError(WEIGHT_MISSING, f"no values for the declared weights ({len(missing)})", self.neff.path,
                               remedy="give --weights with the values of all declared weights")
        problems += [CompileError(WEIGHT_MISSING, f"weight {n} ({declared[n].hlo}) has no value", path) for n in missing]
        for number, name in found.items():
            try:
                tensor = declared[number]
                array = conform(arrays[name], tensor.shape, f"tensor {name!r}", path, WEIGHT_MISMATCH)
                self._enter(tensor.name, array)
            except CompileError as error:
                problems.append(error)
        raise_problems(problems)

    def _enter(self, name: str, array: Array) -> None:
        """Keep a weight: in the arena of each core that reads it, on the host if a host node or the result does."""
        value = self.inside(name, array)
        for core, device in self.devices.items():
            if name in self.places[core]:
                device.write(self.places[core][name], value)
        readers = {tensor.name for node in self.graph.nodes if node.executor == CPU for tensor in node.inputs}
        readers |= {tensor.name for tensor in self.graph.outputs}
        if name in readers:
            self.resident[name] = value

    def inside(self, name: str, array: Array) -> Array:
        """A module input in the dtype and order of dimensions that the program takes."""
        inner = self.inner.get(name)
        if name in self.orders:
            array = array.transpose(self.orders[name])
        return array if inner is None else cast(array, inner, name)

    # Running

    def prepare(self, arrays: Mapping[str, Array] | None, path: str = "inputs", seed: int = 0) -> list[Array]:
        """The inputs in order: `input0..` of the arrays, checked; random ones if there are none."""
        if arrays is None:
            return random_inputs(self.inputs, seed)
        values, problems = check_inputs(arrays, self.inputs, path)
        raise_problems(problems)
        return values

    def run(self, inputs: Sequence[Array] | Mapping[str, Array] | None = None,
            watch: Callable[[Node, Mapping[str, Array]], None] | None = None) -> list[Array]:
        """The outputs in tuple order, in the dtypes of the module as read. inputs: arrays in order, or by name.

        watch: told of each node when it has run, with the values that nodes handed on so far, in the dtypes inside; such a run
        is not made again.
        """
        if inputs is None or isinstance(inputs, Mapping):
            values = self.prepare(inputs)
        else:
            if len(inputs) != len(self.inputs):
                raise CompileError(INPUT_MISMATCH, f"{len(self.inputs)} inputs are needed, {len(inputs)} were given",
                                   self.neff.path)
            values = self.prepare({t.name: array for t, array in zip(self.inputs, inputs, strict=True)})
        with fresh():
            found = self.run_within(self.texts.entered(self.inputs, values, self.neff.path), watch)
            return self.texts.shown([row.name for row in self.outputs], found, self.neff.path)

    def run_within(self, values: Sequence[Array], watch: Callable[[Node, Mapping[str, Array]], None] | None = None
                   ) -> list[Array]:
        """The same with strings as numbers of the table of this run."""
        walk = Walk(self, self._turn).given(values)
        self._turn = 1 - self._turn
        self.was_repeated = False
        for node in self.graph.nodes:
            walk.step(node)
            if watch is not None:
                watch(node, walk.shown(node))
            if walk.has_spread and self.repeats and watch is None:
                return self._again(values)
        return walk.results()

    def _again(self, values: Sequence[Array]) -> list[Array]:
        """The outputs by code that spreads no NaN. values: the inputs in order."""
        from nxcc.compiler.runtime.again import ExactTwin
        if self._twin is None:
            self._twin = ExactTwin(self, self._strict, self._seed)
        walk = Walk(self)
        walk.host |= {tensor.name: self.inside(tensor.name, value) for tensor, value in zip(self.inputs, values, strict=True)}
        found = self._twin.run([walk.on_host(tensor.name) for tensor in self.tensors])
        self.was_repeated = True
        return self.shown(found)

    def shown(self, found: Sequence[Array]) -> list[Array]:
        """What the user gets of the graph's outputs."""
        return self.counted.cut([self.outside(row, value) for row, value in zip(self.graph.outputs, found, strict=True)])

    def outside(self, row: OutputTensor, array: Array) -> Array:
        """A result in the dtype that the user gets."""
        return cast(array, row.dtype, row.name)


@dataclass
class Walk:
    """One request: which values the host holds, which lie in the arena of which core, and whether a transpose spread a NaN.

    turn: which of two places its values have.
    """

    loaded: Loaded
    turn: int = 0
    host: dict[str, Array] = field(default_factory=dict)
    in_arena: dict[str, set[int]] = field(default_factory=dict)
    has_spread: bool = False

    def __post_init__(self) -> None:
        loaded = self.loaded
        self.host |= loaded.resident
        for tensor in loaded.weights:
            self.in_arena[tensor.name] = {core for core in loaded.devices if tensor.name in loaded.places[core]}

    def given(self, values: Sequence[Array]) -> Walk:
        """This with the inputs in order."""
        for tensor, value in zip(self.loaded.inputs, values, strict=True):
            self.host[tensor.name] = self.loaded.inside(tensor.name, value)
        return self

    def step(self, node: Node) -> None:
        self.take_over(node)
        self.work(node)

    def take_over(self, node: Node) -> None:
        """Bring to the node what it reads and what passes it, from where it was last."""
        names = [*(tensor.name for tensor in node.inputs), *self.loaded.passing[node.id]]
        if node.executor == CPU:
            for name in names:
                self.on_host(name)
            return
        core = self.loaded.cores[node.id]
        device = self.loaded.devices[core]
        for name in names:
            held = self.in_arena.setdefault(name, set())
            if core not in held:
                device.write(device.places[name].of_turn(self.turn), self._value(name))
                held.add(core)

    def work(self, node: Node) -> None:
        """Run the node, whose inputs are there."""
        if node.executor == CPU:
            self._host(node)
        else:
            self._device(node)

    def results(self) -> list[Array]:
        """What the user gets."""
        return self.loaded.shown([self.on_host(row.name) for row in self.loaded.graph.outputs])

    def shown(self, node: Node) -> Mapping[str, Array]:
        """What the host holds, with what the node made."""
        for tensor in node.outputs:
            self.on_host(tensor.name)
        return self.host

    def _device(self, node: Node) -> None:
        core = self.loaded.cores[node.id]
        device = self.loaded.devices[core]
        device.run(self.loaded.entries[node.id][self.turn])
        self.has_spread |= device.has_spread
        self.in_arena |= {tensor.name: {core} for tensor in node.outputs}
        for name in {tensor.name for tensor in node.outputs} & {row.name for row in self.loaded.graph.outputs}:
            self.on_host(name)

    def _host(self, node: Node) -> None:
        from nxcc.ir.hlo.oracle import evaluate, flatten
        host = self.loaded.hosts[node.id]
        arguments = [self.on_host(tensor.name) for tensor in node.inputs] + host.constants
        results = flatten(evaluate(host.module, arguments))
        for tensor, value in zip(node.outputs, results, strict=True):
            self.host[tensor.name] = value

    def on_host(self, name: str) -> Array:
        """A value as an array, read back from an arena if only a core has it."""
        found = self.host.get(name)
        if found is None:
            found = self.host[name] = self._value(name)
        return found

    def _value(self, name: str) -> Array:
        """A value as the host has it, or else the core that took it last."""
        found, held = self.host.get(name), self.in_arena.get(name)
        if found is not None:
            return found
        if not held:
            raise _invalid(f"value {name!r} is read before it is made", self.loaded.neff.path)
        device = self.loaded.devices[max(held)]
        return device.read(device.places[name].of_turn(self.turn))


def _entries(node: Node, path: str) -> tuple[str, str]:
    """The entries of a node for the two turns of a stream; one that has no second serves both."""
    second = node.nxcc.get("second", node.entry)
    if not isinstance(second, str):
        raise _invalid(f"`second` of node {node.name!r} is no entry", path)
    return node.entry, second


def _passing(node: Node, path: str) -> list[str]:
    """Names of values that pass a node."""
    names = node.nxcc.get("passing", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _invalid(f"`passing` of node {node.name!r} does not hold names", path)
    return names


def _tensor(row: InputTensor, is_text: bool) -> Tensor:
    assert row.param is not None or row.role == INPUT
    return Tensor(row.name, row.param or 0, row.hlo, row.role, row.dtype, Shape(row.dtype, row.shape), framework=row.framework,
                  is_text=is_text)


def _invalid(what: str, path: str) -> CompileError:
    return CompileError(NEFF_INVALID, what, path)


def _inner_dtypes(graph: Graph, path: str) -> dict[str, DType]:
    rows = graph.nxcc.extra.get("values", {})
    if not isinstance(rows, dict) or any(not isinstance(word, str) or word not in BY_NAME for word in rows.values()):
        raise _invalid("`values` of neff.json does not hold dtypes", path)
    return {name: BY_NAME[word] for name, word in rows.items()}


def _orders(graph: Graph, path: str) -> dict[str, list[int]]:
    """How weights are turned when they are loaded: dimensions of what the user hands in, in the order stored."""
    rows = graph.nxcc.extra.get("orders", {})
    ranks = {row.name: len(row.shape) for row in graph.inputs}
    if not isinstance(rows, dict) or any(not isinstance(order, list) or any(type(d) is not int for d in order)
                                         or sorted(order) != list(range(ranks.get(name, -1))) for name, order in rows.items()):
        raise _invalid("`orders` of neff.json does not hold orders of dimensions", path)
    return rows


def _open_host(neff: Neff, node: Node) -> HostNode:
    module = read_module(neff, node.hlo, node.name)
    expected = len(node.inputs) + len(node.constants)
    results = list(module.entry.root.shape.leaves())
    if len(module.entry.parameters) != expected or [shape.dims for shape in results] != [row.shape for row in node.outputs]:
        raise _invalid(f"host module takes {len(module.entry.parameters)} values and gives {len(results)}, "
                       f"its node {expected} and {len(node.outputs)}", f"{neff.path}: {node.hlo}")
    return HostNode(module, constant_arrays(neff, node.constants))


def constant_arrays(neff: Neff, rows: Sequence[HostConstant]) -> list[Array]:
    """The values of a host module's large constants, as views of the file."""
    return [neff.array(row.file, row.dtype, row.shape) for row in rows]
