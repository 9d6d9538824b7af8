"""Which pass, or which instruction, makes a model wrong: `nxcc bisect`.

First the whole model is tried. If it fails, the passes are run one by one, and after each the oracle says whether the
module still means the same; the first that breaks it is the culprit. If all passes keep the meaning, each instruction
of the module after the passes is compiled alone, with the values that the oracle computed for its operands.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nxcc.backends.target import load_target
from nxcc.compiler.debugging.candidate import Candidate, can_be_parameter, extract, recorded
from nxcc.compiler.debugging.reduce import Start, packed
from nxcc.compiler.debugging.trial import AGREES, Trial, Verdict, difference
from nxcc.compiler.driver import pass_settings
from nxcc.compiler.interface.casts import cast
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import clone_module
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.writer import write_text
from nxcc.ir.hlo.verifier import verify
from nxcc.passes.pipeline import PASS_NAMES, run_pipeline

DEFAULT_TRIALS = 500


@dataclass(frozen=True)
class Finding:
    """What bisection found.

    verdict: on the whole model. culprit_pass: the first pass that changes the meaning, and how. cured_by: passes without
    any one of which the model agrees. instruction: as text, the first one that fails alone, and how; `alone` is it as a module.
    """

    verdict: Verdict
    culprit_pass: str = ""
    how: str = ""
    cured_by: tuple[str, ...] = ()
    instruction: str = ""
    alone: Candidate | None = None


def bisect(candidate: Candidate, trial: Trial, trials: int = DEFAULT_TRIALS) -> Finding:
    """Find out what makes a candidate fail; the first field alone is filled where it agrees. trials: instructions at most."""
    verdict = trial.judge(candidate.module, candidate.values)
    if verdict.kind == AGREES:
        return Finding(verdict)
    cured_by = tuple(name for name in PASS_NAMES if name not in trial.options.disable_pass
                     and _without(trial, name).judge(candidate.module, candidate.values).kind == AGREES)
    culprit, how, module = walk_passes(candidate, trial)
    if culprit:
        return Finding(verdict, culprit, how, cured_by)
    passed = Candidate(module, candidate.values)
    found = first_failing_instruction(passed, _bare(trial), verdict, trials)
    if found is None:
        return Finding(verdict, cured_by=cured_by)
    instruction, how, alone = found
    return Finding(verdict, "", how, cured_by, repr(instruction), alone)


def _without(trial: Trial, *names: str) -> Trial:
    return replace(trial, options=replace(trial.options, disable_pass=(*trial.options.disable_pass, *names)))


def _bare(trial: Trial) -> Trial:
    """A trial of a module that went through the passes already."""
    return replace(trial, options=replace(trial.options, disable_pass=PASS_NAMES))


def walk_passes(candidate: Candidate, trial: Trial) -> tuple[str, str, Module]:
    """(name of the first pass after which the module is invalid or means something else, how, the module so far)."""
    wanted = flatten(evaluate(candidate.module, candidate.values))
    module = clone_module(candidate.module)
    found = [""]
    running = [""]

    def observe(name: str, after: Module, changed: bool) -> bool:
        running[0] = name
        words = _meaning(after, candidate, wanted) if changed else ""
        if words:
            found[:] = [name, words]
        return not words

    settings = pass_settings(trial.options, load_target(trial.options.target))
    names = [name for name in PASS_NAMES if name not in trial.options.disable_pass]
    try:
        run_pipeline(module, settings, disabled=trial.options.disable_pass, observe=observe)
    except Exception as error:  # noqa: BLE001  the fault of a pass is what bisection looks for
        following = names[names.index(running[0]) + 1] if running[0] in names else names[0]
        return following, f"{type(error).__name__}: {error}", module
    return (found[0], found[1], module) if found[0] else ("", "", module)


def _meaning(module: Module, candidate: Candidate, wanted: list[Any]) -> str:
    """How a module after a pass differs from the candidate that it was; empty if it does not.

    A pass may change the dtypes inside; at the border values are cast as a run casts them.
    """
    try:
        verify(module)
        leaves = [leaf for parameter in module.entry.parameters for leaf in parameter.shape.leaves()]
        arrays = iter([cast(array, leaf.dtype, "input") for array, leaf in zip(flatten(candidate.values), leaves, strict=True)])
        results = flatten(evaluate(module, [packed(parameter.shape, arrays) for parameter in module.entry.parameters]))
    except CompileError as error:
        return str(error)
    outside = candidate.module.entry.root.shape.leaves()
    got = [cast(array, leaf.dtype, "output") for array, leaf in zip(results, outside, strict=True)]
    return difference(candidate.module, candidate.values, got, wanted)


def first_failing_instruction(candidate: Candidate, trial: Trial, whole: Verdict,
                              trials: int) -> tuple[Instruction, str, Candidate] | None:
    """The first instruction, operands first, that fails alone; instructions of equal text are tried once."""
    values = recorded(candidate)
    seen: set[str] = set()
    for instruction in candidate.module.entry.post_order():
        if instruction not in values or instruction.opcode in ("parameter", "constant", "tuple", "get-tuple-element"):
            continue
        cut = frozenset(o for o in instruction.operands if can_be_parameter(o))
        alone = extract(candidate, [instruction], cut, values)
        text = _shape_text(alone.module, instruction)
        if text in seen:
            continue
        seen.add(text)
        verdict = trial.judge(alone.module, alone.values)
        if verdict.kind != AGREES and (verdict.kind == whole.kind or verdict.is_fault):
            return instruction, verdict.text, alone
        if len(seen) >= trials:
            break
    return None


def _shape_text(module: Module, root: Instruction) -> str:
    """Text of a module without the names of its instructions, so that equal work has equal text."""
    text = write_text(module, metadata=False)
    names = [i.name for i in module.instructions()]
    for number, name in enumerate(sorted(names, key=len, reverse=True)):
        text = text.replace(f"%{name}", f"%{number}")
    return text if root.opcode != "while" else root.name


# The command


def bisect_file(start: Start, trials: int = DEFAULT_TRIALS) -> dict[str, Any]:
    """Bisect a model; the report as plain JSON."""
    finding = bisect(start.candidate(), start.trial(), trials)
    return {
        "model": start.path, "verdict": finding.verdict.kind, "text": finding.verdict.text, "pass": finding.culprit_pass,
        "how": finding.how, "cured_by": list(finding.cured_by), "instruction": finding.instruction,
        "module": write_text(finding.alone.module, short=True) if finding.alone else "",
    }



def bisect_lines(body: dict[str, Any]) -> list[str]:
    """The same for people."""
    if body["verdict"] == AGREES:
        return [f"{body['model']}: simulator and oracle agree"]
    lines = [f"{body['model']} {body['verdict']}: {body['text']}"]
    if body["pass"]:
        lines.append(f"pass {body['pass']} changes what the module means: {body['how']}")
    elif body["instruction"]:
        lines += [f"all passes keep what the module means; this instruction fails alone: {body['instruction']}",
                  f"  {body['how']}", "", *body["module"].splitlines()]
    else:
        lines.append("all passes keep what the module means, and each instruction is right alone: the fault is between them")
    if body["cured_by"]:
        lines.append(f"agrees without one of: {', '.join(body['cured_by'])}  (--disable-pass)")
    return lines
