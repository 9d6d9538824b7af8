"""The smallest module that still fails: `nxcc reduce`, and what random tests do with a module that they find.

A candidate is a module and a value for each parameter. Steps, tried over and over until none helps: fewer results, results
taken from further up, instructions replaced by parameters that hold what the oracle computed there, by an operand, or
(inside loops and branches) by zeros, calls inlined, dimensions made smaller. Whoever asks says what counts as failing.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field, replace
from typing import Any

from nxcc.compiler.console.limits import raised_after
from nxcc.compiler.debugging.candidate import Candidate, Value, extract
from nxcc.compiler.debugging.steps import STEPS, Step
from nxcc.compiler.debugging.trial import AGREES, Trial
from nxcc.compiler.files.arrays import read_arrays, write_npz
from nxcc.compiler.files.inputs import read_model
from nxcc.compiler.files.outputs import check_outputs
from nxcc.compiler.interface.parameters import INPUT, Tensor, check_inputs, leaf_shapes, random_inputs
from nxcc.compiler.interface.weights import bind_file
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.problems import raise_problems
from nxcc.ir.diagnostics import USAGE, CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.files import whole_file, write_whole
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.oracle import flatten
from nxcc.ir.hlo.text.writer import write_text
from nxcc.ir.hlo.verifier import verify
from nxcc.ir.shapes import Shape

Fails = Callable[[Module, Sequence[Value]], bool]
DEFAULT_TRIALS = 500
LEAST_TRIAL_SECONDS = 10.0
TRIAL_FACTOR = 5.0
"""A trial may take so much longer than the last one that failed, since a smaller module should take less."""
FIRST_TRIAL_SECONDS = 3600.0


@dataclass
class Budget:
    """How long to go on."""

    trials: int = DEFAULT_TRIALS
    seconds: float = 600.0
    used: int = 0
    start: float = field(default_factory=time.monotonic)

    @property
    def is_spent(self) -> bool:
        return self.used >= self.trials or time.monotonic() - self.start > self.seconds


def reduce_candidate(start: Candidate, fails: Fails, budget: Budget | None = None) -> Candidate:
    """The smallest failing candidate found within the budget; `start` itself if nothing smaller fails."""
    search = _Search(fails, budget or Budget())
    found = extract(start, [start.module.entry.root], frozenset())
    if not search.accepts(found):
        return start
    while not search.budget.is_spent:
        before = found
        for step in STEPS:
            found = search.exhaust(step, found)
        if found is before:
            break
    return found


class _Overdue(BaseException):
    """A trial takes too long; no Exception, so that nothing on the way takes it for a fault of the compiler."""


class _Search:
    def __init__(self, fails: Fails, budget: Budget) -> None:
        self.fails = fails
        self.budget = budget

        self.limit_seconds = FIRST_TRIAL_SECONDS

    def accepts(self, candidate: Candidate) -> bool:
        """Whether a candidate is a valid module that fails, and not by running for ever: a step may take a loop's end away."""
        self.budget.used += 1
        start = time.monotonic()
        try:
            verify(candidate.module)
            with raised_after(self.limit_seconds, _Overdue()):
                found = self.fails(candidate.module, candidate.values)
        except (CompileError, _Overdue):
            return False
        if found:
            self.limit_seconds = max(LEAST_TRIAL_SECONDS, TRIAL_FACTOR * (time.monotonic() - start))
        return found

    def exhaust(self, step: Step, found: Candidate) -> Candidate:
        """Apply a step as long as one of its proposals fails too."""
        progress = True
        while progress and not self.budget.is_spent:
            progress = False
            for proposal in step(found):
                if self.budget.is_spent:
                    break
                if proposal is not None and self.accepts(proposal):
                    found, progress = proposal, True
                    break
        return found


# The command


@dataclass(frozen=True)
class Start:
    """What the user starts from: a model, options, inputs; strict: simulate in strict mode."""

    path: str
    options: CompileOptions
    inputs: str | None = None
    strict: bool = False
    seed: int = 0

    def candidate(self) -> Candidate:
        """The module as read, weights bound, with given or seeded random values."""
        module = read_model(self.path)
        verify(module)
        if self.options.weights:
            bind_file(module, self.options.weights)
        return Candidate(module, self._values(module))

    def trial(self) -> Trial:
        options = replace(self.options, weights="", output="", depfile="", stop_after="", dump_after=())
        return Trial(options, self.strict, self.seed)

    def _values(self, module: Module) -> tuple[Value, ...]:
        shapes = [shape for parameter in module.entry.parameters for _, shape in leaf_shapes(parameter.shape)]
        tensors = [Tensor(f"input{k}", k, "", INPUT, shape.dtype, shape) for k, shape in enumerate(shapes)]
        if self.inputs is None:
            leaves = iter(random_inputs(tensors, self.seed))
        else:
            given, problems = check_inputs(read_arrays(self.inputs), tensors, self.inputs)
            raise_problems(problems)
            leaves = iter(given)
        return tuple(packed(parameter.shape, leaves) for parameter in module.entry.parameters)


def packed(shape: Shape, leaves: Iterator[Any]) -> Value:
    """Arrays in leaf order as a value of a shape."""
    if shape.is_tuple:
        return tuple(packed(element, leaves) for element in shape.elements)
    return next(leaves) if shape.is_array else None


def reduce_file(start: Start, output: str, command: str = "", trials: int = DEFAULT_TRIALS) -> dict[str, Any]:
    """Reduce a model and write it as text, its inputs beside it as npz; the report as plain JSON.

    command: run with the path of a module as its last word; a module fails if the exit status is that of the whole model.
    Without one a module fails if it ends in the same verdict. Raises CompileError(USAGE) if the model does not fail.
    """
    stem = os.path.splitext(output)[0]
    check_outputs([output, f"{stem}.npz"], [path for path in (start.path, start.inputs) if path])
    candidate = start.candidate()
    if command:
        fails, words = _by_command(command, candidate)
    else:
        fails, words = _by_verdict(start, candidate)
    budget = Budget(trials)
    found = reduce_candidate(candidate, fails, budget)
    write_whole(output, write_text(found.module))
    with whole_file(f"{stem}.npz") as file:
        write_npz(file, {f"input{k}": value for k, value in enumerate(flatten(found.values))})
    return {"model": start.path, "fails": words, "output": output, "inputs": f"{stem}.npz", "trials": budget.used,
            "instructions_before": candidate.size, "instructions": found.size,
            "text": write_text(found.module, short=True)}


def _by_verdict(start: Start, candidate: Candidate) -> tuple[Fails, str]:
    trial = start.trial()
    whole = trial.judge(candidate.module, candidate.values)
    if whole.kind == AGREES:
        raise CompileError(USAGE, f"{start.path} does not fail: simulator and oracle agree",
                           remedy="give the options and inputs with which it fails, or --test COMMAND")

    def fails(module: Module, values: Sequence[Value]) -> bool:
        found = trial.judge(module, values)
        return (found.kind, found.key) == (whole.kind, whole.key)

    return fails, whole.text


def _by_command(command: str, candidate: Candidate) -> tuple[Fails, str]:
    words = shlex.split(command)

    def status(module: Module) -> int:
        with tempfile.TemporaryDirectory(prefix="nxcc-reduce-") as folder:
            path = os.path.join(folder, "module.hlo")
            write_whole(path, write_text(module))
            return subprocess.run([*words, path], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode

    try:
        wanted = status(candidate.module)
    except OSError as error:
        raise CompileError(USAGE, f"--test {command!r} cannot be run", why=str(error)) from None
    if wanted == 0:
        raise CompileError(USAGE, f"--test {command!r} succeeds on the whole model",
                           remedy="the command must exit with another status than 0 where a module fails")
    return lambda module, values: status(module) == wanted, f"{command} exits with {wanted}"


def reduce_lines(body: dict[str, Any]) -> list[str]:
    """The same for people."""
    return [f"{body['model']}: {body['fails']}",
            f"{body['instructions_before']} instructions became {body['instructions']} in {body['trials']} trials",
            f"written to {body['output']}, its inputs to {body['inputs']}", "", *body["text"].splitlines()]
