"""What would make a call quicker: changes to flags or to the model are tried, and each gain is the difference of two estimates.

Every candidate is compiled from the module that the file carries and timed by the same simulator as the file itself, so that a
gain holds what the compiler does with the change. The reference is the same module compiled again as the file was: what
compiling a compiled module once more changes counts on both sides. Candidates are alternatives within a kind (casts, batch
sizes, ..): the best of each kind stands for it, and the three with the largest gain are the advice.
Times are those of a whole call, host call included; of a larger batch, a sample's share.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from typing import Any

from nxcc.backends.simulator.outcome import Cause
from nxcc.backends.target import load_target
from nxcc.compiler.choices.casting import multiplies
from nxcc.compiler.driver import Source, compile_module
from nxcc.compiler.options import DECLARED, CompileOptions
from nxcc.compiler.reports.estimate import Estimate, estimate
from nxcc.compiler.reports.regions import source_of
from nxcc.compiler.reports.resizing import Resize, resized
from nxcc.compiler.runtime.carried import as_read, carried_module, options_of
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, clone_module
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.shapes import Shape
from nxcc.neff.members import Graph
from nxcc.neff.reader import Neff, open_neff
from nxcc.neff.writer import write_neff

MOST = 3
WORDS = {"cast": "casts", "batch": "a larger batch", "sequence": "another length", "layout": "another layout of the input",
         "host": "work left to the host", "weights": "inputs as weights", "level": "another level"}
"""Kinds of change."""
LEAST_GAIN = 0.02
"""Of a call's time: what gains less is not worth a line."""
BUDGET = 400_000
"""Of executed machine instructions, and HLO instructions times COMPILING: how many candidates are tried; at least MOST are."""
COMPILING = 12
BATCH_FACTORS = (4,)
NAMED_MOST = 3
"""Inputs that a line names."""
PARTITIONS = 128
WEIGHT_BYTES = 1 << 16
"""Inputs from this size on that a product reads are taken for weights."""
TURNED_BYTES = 1 << 16


@dataclass(frozen=True)
class Advice:
    """A change, and what it gains.

    kind: cast, batch, sequence, layout, host, weights or level. flags: to compile with, empty if the model has to change.
    before_us, after_us: a call's time (a sample's share of it for a batch).
    """

    kind: str
    change: str
    flags: str
    before_us: float
    after_us: float
    note: str = ""

    @property
    def gain_us(self) -> float:
        return self.before_us - self.after_us

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "change": self.change, "flags": self.flags, "gain_us": self.gain_us,
                "before_us": self.before_us, "after_us": self.after_us, "note": self.note, "text": self.text()}

    def text(self) -> str:
        """One line for people."""
        from nxcc.compiler.reports.estimate import us_text
        share = self.gain_us / self.before_us if self.before_us else 0.0
        end = f"; {self.note}" if self.note else ""
        return f"{self.change}: {us_text(self.gain_us)} less ({share:.0%}), {us_text(self.after_us)} a call{end}"


@dataclass(frozen=True)
class Candidate:
    """Something to try. options: fields of CompileOptions that change; rewrite: changes the module in place, None: cannot be.

    samples: how many times as many samples a call then has. prior: a guess of the gain, for the order in which they are tried.
    """

    kind: str
    change: str
    prior: float
    options: Mapping[str, str] = field(default_factory=dict)
    rewrite: Callable[[Module], Module | None] | None = None
    samples: float = 1.0
    note: str = ""

    @property
    def flags(self) -> str:
        return " ".join(f"{DECLARED[name].name} {value}" for name, value in self.options.items())


@dataclass(frozen=True)
class Subject:
    """What is looked at: the file's module without its fusions, how it was compiled, its estimate.

    weights: numbers of the parameters that are weights or large constants.
    """

    module: Module
    options: CompileOptions
    weights: frozenset[int]
    found: Estimate

    @property
    def inputs(self) -> list[tuple[int, Instruction]]:
        return [(number, parameter) for number, parameter in enumerate(self.module.entry.parameters)
                if number not in self.weights and parameter.shape.is_array]


def advise(neff: Neff, found: Estimate) -> list[Advice]:
    """The changes that gain most, largest first; at most three, none for a file that carries no module.

    found: the file's own estimate.
    """
    return advised(neff, found)[0]


def advised(neff: Neff, found: Estimate) -> tuple[list[Advice], list[str]]:
    """The same, and the kinds of change that were tried and gain too little to be said."""
    rows = list(_without_host(found))
    subject = _subject(neff, found)
    if subject is not None:
        rows += _tried(subject, _in_order(c for maker in MAKERS for c in maker(subject)))
    best: dict[str, Advice] = {}
    for row in rows:
        if row.gain_us >= LEAST_GAIN * row.before_us and (row.kind not in best or row.gain_us > best[row.kind].gain_us):
            best[row.kind] = row
    said = sorted(best.values(), key=lambda row: -row.gain_us)[:MOST]
    return said, list(dict.fromkeys(row.kind for row in rows if row.kind not in best))


def advice_lines(advice: Sequence[Mapping[str, Any]], without_gain: Sequence[str]) -> list[str]:
    """Lines for people; fewer changes than three that help are no oversight, and are said to be all."""
    lines = [f"advice: {row['text']}" for row in advice]
    if len(lines) < MOST:
        kinds = ", ".join(WORDS[kind] for kind in without_gain)
        lines.append(f"advice: nothing {'else ' if lines else ''}that was tried gains {LEAST_GAIN:.0%} of a call"
                     + (f" ({kinds})" if kinds else ""))
    return lines


def _in_order(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The most promising first, the first of each kind before a second of any."""
    hopes = sorted(candidates, key=lambda c: -c.prior)
    first = {c.kind: c for c in reversed(hopes)}
    return sorted(hopes, key=lambda c: first[c.kind] is not c)


def _tried(subject: Subject, candidates: list[Candidate]) -> Iterator[Advice]:
    executed = sum(timing.instructions for timing in subject.found.timings)
    each = executed + COMPILING * len(subject.module.entry.instructions)
    chosen = candidates[:max(MOST, BUDGET // (each + 1))]
    reference = _time(subject, Candidate("", "", 0.0)) if chosen else None
    if reference is None:
        return
    for candidate in chosen:
        us = _time(subject, candidate)
        if us is not None:
            scale = _call_us(subject.found) / reference
            yield Advice(candidate.kind, candidate.change, candidate.flags, reference * scale, us * scale, candidate.note)


def _call_us(found: Estimate) -> float:
    return found.device_us + found.host.us


def _time(subject: Subject, candidate: Candidate) -> float | None:
    """A sample's share of a call, microseconds; None if the candidate does not compile."""
    module: Module | None = clone_module(subject.module)
    assert module is not None
    if candidate.rewrite is not None:
        module = candidate.rewrite(module)
    if module is None:
        return None
    weights = ",".join(map(str, sorted(subject.weights)))
    changes: dict[str, Any] = {"weight_params": weights} | dict(candidate.options)
    options = replace(subject.options, **changes)
    try:
        build = compile_module(module, options, Source())
        assert build.package is not None
        with tempfile.TemporaryDirectory(prefix="nxcc-advice-") as folder:
            path = os.path.join(folder, "candidate.neff")
            write_neff(path, build.package)
            return _call_us(estimate(open_neff(path), trips=subject.found.trips, ranges=False)) / candidate.samples
    except CompileError:
        return None


def _subject(neff: Neff, found: Estimate) -> Subject | None:
    graph = neff.require_runnable()
    module = carried_module(neff)
    if module is None:
        return None
    as_read(module)
    weights = _weights(module, graph)
    return Subject(module, options_of(graph.nxcc.options), weights, found)


def _weights(module: Module, graph: Graph) -> frozenset[int]:
    """Numbers of parameters that are there before the first call: declared weights, and constants, which follow the inputs."""
    roles = {row.hlo: row.role for row in graph.inputs if row.hlo}
    return frozenset(number for number, parameter in enumerate(module.entry.parameters)
                     if parameter.shape.is_array and roles.get(parameter.name, "weight") == "weight")


# Candidates


def _casts(subject: Subject) -> Iterator[Candidate]:
    """f32 products in bf16; all of f32 in bf16; products in 8 bits."""
    work, found = subject.found.work, subject.found
    if work is None:
        return
    total = sum(work.flops.values())
    wide = work.flops.get("f32", 0) / total if total else 0.0
    pe, data = (found.shares().get(cause, 0.0) for cause in (Cause.PE, Cause.DMA_DATA))
    if wide > LEAST_GAIN and subject.options.auto_cast in ("", "none"):
        yield Candidate("cast", "multiply f32 matrices in bf16 (--auto-cast matmult)", wide * (0.75 * pe + 0.4 * data),
                        {"auto_cast": "matmult", "auto_cast_type": "bf16"}, note="products keep 8 bits of their operands")
    if _has_f32(subject.module) and subject.options.auto_cast != "all":
        yield Candidate("cast", "compute all of f32 in bf16 (--auto-cast all)", 0.75 * wide * pe + 0.5 * data,
                        {"auto_cast": "all", "auto_cast_type": "bf16"}, note="all values keep 8 bits: check with nxcc verify")
    is_narrow = subject.options.auto_cast_type == "fp8_e4m3" or bool(work.flops.get("f8e4m3"))
    if total and not is_narrow and multiplies(load_target(subject.options.target), "fp8_e4m3"):
        yield Candidate("cast", "multiply matrices in fp8 (--auto-cast matmult --auto-cast-type fp8_e4m3)",
                        0.75 * wide * pe + 0.3 * data, {"auto_cast": "matmult", "auto_cast_type": "fp8_e4m3"},
                        note="products keep 4 bits of f32 operands: check with nxcc verify")


def _has_f32(module: Module) -> bool:
    return any(i.shape.is_array and i.shape.dtype.name == "f32" and i.shape.rank > 0 for i in module.entry.instructions)


def _level(subject: Subject) -> Iterator[Candidate]:
    if subject.options.optlevel in ("0", "1"):
        yield Candidate("level", "compile with --optlevel 2", 0.5, {"optlevel": "2"})


def _batch(subject: Subject) -> Iterator[Candidate]:
    """More samples a call, if the model follows inputs whose first dimension grows: all of them, or those of one size."""
    groups: dict[int, list[tuple[int, Instruction]]] = {}
    for number, parameter in subject.inputs:
        if parameter.shape.rank > 0:
            groups.setdefault(parameter.shape.dims[0], []).append((number, parameter))
    whole = sum(parameter.shape.byte_size for rows in groups.values() for _, parameter in rows)
    for size, rows in groups.items():
        share = sum(parameter.shape.byte_size for _, parameter in rows) / max(1, whole)
        places = tuple((number, 0) for number, _ in rows)
        whose = "" if len(groups) == 1 else " of " + ", ".join(parameter.name for _, parameter in rows[:NAMED_MOST])
        for factor in BATCH_FACTORS:
            resize = Resize(places, size, size * factor, of_samples=True)
            words = f"batch {size * factor} instead of {size}{whose}, time for {size} sample{'s' if size > 1 else ''}"
            yield Candidate("batch", words, 0.6 * share, rewrite=partial(resized, resize=resize, fixed=subject.weights),
                            samples=factor)


def _sequence(subject: Subject) -> Iterator[Candidate]:
    """Another length: padded to whole partitions, or a file of its own for requests of half the length."""
    lengths: dict[int, list[tuple[int, int]]] = {}
    for number, parameter in subject.inputs:
        if parameter.shape.rank in (2, 3) and parameter.shape.dims[1] >= 16:
            lengths.setdefault(parameter.shape.dims[1], []).append((number, 1))
    for length, places in sorted(lengths.items(), key=lambda row: -len(row[1]))[:1]:
        whole = -(-length // PARTITIONS) * PARTITIONS
        if whole != length and length > PARTITIONS:
            yield _longer(subject, length, whole, places, "pad the sequence to", 0.2)
        if length % 2 == 0:
            yield _longer(subject, length, length // 2, places, "a file of its own for what fits in half the length:", 0.45)


def _longer(subject: Subject, length: int, new: int, places: list[tuple[int, int]], words: str,
            prior: float) -> Candidate:
    resize = Resize(tuple(places), length, new)
    return Candidate("sequence", f"{words} {new} places instead of {length}", prior,
                     rewrite=partial(resized, resize=resize, fixed=subject.weights))


def _weights_declared(subject: Subject) -> Iterator[Candidate]:
    """Inputs that only products read, as weights: they would not be copied with each call."""
    chosen = [number for number, parameter in subject.inputs
              if parameter.shape.byte_size >= WEIGHT_BYTES and parameter.shape.rank >= 2 and _is_multiplied(parameter)]
    if not chosen or len(chosen) == len(subject.inputs):
        return
    moved = sum(subject.module.entry.parameters[number].shape.byte_size for number in chosen)
    prior = moved / subject.found.target.host.copy_bytes_per_second * 1e6 / _call_us(subject.found)
    weights = ",".join(map(str, sorted(subject.weights | set(chosen))))
    words = "input that looks like a weight" if len(chosen) == 1 else f"{len(chosen)} inputs that look like weights"
    yield Candidate("weights", f"declare the {words} (--weight-params)", prior,
                    {"weight_params": weights}, note=f"inputs {_ranges(chosen)}")


def _is_multiplied(value: Instruction) -> bool:
    """Whether products and convolutions read it as their second operand, and nothing else does."""
    return bool(value.users) and all(_multiplies(user, value) for user in value.users)


def _multiplies(user: Instruction, value: Instruction) -> bool:
    if user.opcode in ("dot", "convolution"):
        return value in user.operands[1:]
    return user.opcode in _PASSING and _is_multiplied(user)


_PASSING = frozenset(("transpose", "reshape", "convert", "copy", "bitcast"))


def _ranges(numbers: list[int]) -> str:
    """Numbers in order as ranges: 1-3,7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{a}-{b}" if b > a else str(a) for a, b in parts)


def _layout(subject: Subject) -> Iterator[Candidate]:
    """The largest input in another order of its dimensions."""
    large = [(parameter.shape.byte_size, number) for number, parameter in subject.inputs
             if parameter.shape.rank >= 2 and parameter.shape.byte_size >= TURNED_BYTES]
    if not large:
        return
    number = max(large)[1]
    parameter = subject.module.entry.parameters[number]
    order = other_order(parameter.shape.dims)
    prior = 0.5 * subject.found.shares().get(Cause.DMA_DATA, 0.0)
    dims = "x".join(str(parameter.shape.dims[d]) for d in order)
    words = f"hand over input {parameter.name} with dimensions ordered {','.join(map(str, order))} ({dims})"
    yield Candidate("layout", words, prior,
                    rewrite=lambda module: _turned(module, number, order), note="the caller stores it so")


def other_order(dims: tuple[int, ...]) -> tuple[int, ...]:
    """Another order of an input's dimensions; of an image, whose channels are fewer than its rows and columns, that of the
    other convention."""
    rank = len(dims)
    if rank != 4:
        return (*range(rank - 2), rank - 1, rank - 2)
    return (0, 3, 1, 2) if dims[3] < min(dims[1:3]) else (0, 2, 3, 1)


def _turned(module: Module, number: int, order: tuple[int, ...]) -> Module:
    """The module that takes a parameter with its dimensions in this order."""
    parameter = module.entry.parameters[number]
    old = parameter.shape.without_layout()
    users = list(parameter.users)
    parameter.shape = Shape(old.dtype, tuple(old.dims[d] for d in order))
    builder = Builder(module.entry)
    back = builder.transpose(parameter, tuple(order.index(d) for d in range(old.rank)))
    for user in users:
        module.entry.set_operands(user, [back if operand is parameter else operand for operand in user.operands])
    if module.entry.root is parameter:
        module.entry.root = back
    module.entry.sort()
    return module


def _keep_on_host(subject: Subject) -> Iterator[Candidate]:
    """The longest region that is no product, moved to the host."""
    found = subject.found
    if subject.options.keep_on_host:
        return
    paths: dict[str, float] = {}
    for timing in found.timings:
        for region, ticks in timing.region_ticks().items():
            entry = source_of(found, region)
            paths[entry.name] = paths.get(entry.name, 0.0) + found.target.nanoseconds(ticks) / 1e3
    by_name = {instruction.name: instruction for instruction in subject.module.entry.instructions}
    rows = [(us, name) for name, us in paths.items() if name in by_name and by_name[name].opcode not in ("dot", "convolution")]
    if not rows:
        return
    us, name = max(rows)
    prior = (us - 2 * found.target.host.submit_ns / 1e3) / _call_us(found)
    if prior > 0:
        yield Candidate("host", f"leave {by_name[name].opcode} {name} to the host (--keep-on-host)", prior,
                        {"keep_on_host": f"^{re.escape(name)}$"})


MAKERS: tuple[Callable[[Subject], Iterator[Candidate]], ...] = (
    _level, _casts, _batch, _sequence, _weights_declared, _layout, _keep_on_host)


def _without_host(found: Estimate) -> Iterator[Advice]:
    """What the parts on the host cost: their work, the calls between them, what crosses; known without compiling."""
    parts = [node for node in found.nodes if node.executor == "host"]
    devices = len(found.nodes) - len(parts)
    if not parts:
        return
    submit = found.host.submit_us / devices if devices else 0.0
    fixed = found.fixed_us / devices if devices else 0.0
    saved = found.host.regions_us + max(0, devices - 1) * (submit + fixed)
    before = _call_us(found)
    words = "part" if len(parts) == 1 else f"{len(parts)} parts"
    yield Advice("host", f"express the {words} that the host computes otherwise "
                 "(nxcc check lists them with reasons)", "", before, before - saved,
                 "without the work that the device would have instead")


