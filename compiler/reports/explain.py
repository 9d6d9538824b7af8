"""`nxcc explain`: codes of ours and of the vendor, HLO operators, machine instructions; all text lies in declarations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nxcc.compiler.reports.json_keys import KEYS, json_lines
from nxcc.compiler.reports.vendor_codes import VENDOR_CODES
from nxcc.ir.diagnostics import CODES, USAGE, CompileError, near, one_of

if TYPE_CHECKING:
    from nxcc.backends.target import Target


def explain_lines(words: Sequence[str], target: str = "v2") -> list[str]:
    """What is known about a name; without one, the list of codes; `cost NAME`: what an instruction costs on a target;
    `json COMMAND`: what its --json prints.

    CompileError(USAGE) if nothing is known.
    """
    if not words:
        return [f"{row.name}  {row.title}" for row in CODES.values()]
    if words[0].lower() == "cost":
        return _cost(words[1:], target)
    if words[0].lower() == "json":
        return _json(words[1:])
    if len(words) > 1:
        raise CompileError(USAGE, f"{len(words)} names",
                           remedy="one name at a time, `nxcc explain cost INSTRUCTION`, or `nxcc explain json COMMAND`")
    return _name(words[0])


def _json(command: Sequence[str]) -> list[str]:
    """The keys that --json prints, of one command or of all."""
    lines = json_lines(command)
    if not lines:
        raise CompileError(USAGE, f"`nxcc {' '.join(command)}` has no --json", remedy=one_of(" ".join(command), KEYS))
    return lines


def _name(name: str) -> list[str]:
    word = name.strip("[]")
    if word.upper() in CODES:
        return _code(word.upper())
    vendor = word.upper().removeprefix("NCC_")
    if vendor in VENDOR_CODES:
        row = VENDOR_CODES[vendor]
        lines = [f"NCC_{vendor} (neuronx-cc): {row.meaning}", f"Here: {row.advice}."]
        return [*lines, "", *_code(row.ours)] if row.ours else lines
    return _operator(word) or _instruction(word) or _unknown(name)


def _cost(words: Sequence[str], target_name: str) -> list[str]:
    """Formula, constants and sources of a machine instruction or of a host call; without a name: all formulas."""
    from nxcc.backends.cost import RULES, explain
    from nxcc.backends.target import load_target
    target = load_target(target_name)
    if not words:
        return [f"{name:20} {row.formula}" for name, row in sorted(RULES.items())] + [f"{HOST:20} {HOST_FORMULA}"]
    word = words[0].lower().replace("-", "_")
    if word == HOST:
        return _host_cost(target)
    if word not in RULES:
        raise CompileError(USAGE, f"no machine instruction is named {words[0]!r}",
                           remedy=near(word, [*RULES, HOST]) or "`nxcc explain cost` lists them; `nxcc profile` "
                           "shows which instructions an HLO operator became")
    return [f"on {target.name}:", *explain(word, target).splitlines()]


HOST = "host"
HOST_FORMULA = ("submission * device nodes + crossing bytes / copy rate + sum over host nodes of max(operations / rate, "
                "bytes / rate)")


def _host_cost(target: Target) -> list[str]:
    """The model of a host call: a line of its own in estimates, no part of the device's time."""
    lines = [f"host call on {target.name}: {HOST_FORMULA}",
             "crossing bytes: inputs that are no weights, results, and values made on one side and read on the other"]
    for path, fact in target.facts.items():
        if path.startswith("host.") and path != "host.execution_fixed_ns":
            lines.append(f"  {path} = {fact.value} [{fact.status.value}] {fact.source}")
    fixed = target.facts["host.execution_fixed_ns"]
    return [*lines, "part of the device's time, for each device node:",
            f"  host.execution_fixed_ns = {fixed.value} [{fixed.status.value}] {fixed.source}"]


def _code(name: str) -> list[str]:
    row = CODES[name]
    return [f"{row.name}: {row.title} (exit {row.exit_status})", row.explanation]


def _operator(word: str) -> list[str]:
    from nxcc.compiler.reports.operators import ON_DEVICE, builder_names
    from nxcc.ir.hlo.operator import operators
    opcode = word.lower().replace("_", "-")
    row = operators().get(opcode) or next((o for o in operators().values() if word in builder_names(o.name)), None)
    if row is None:
        return []
    most = "any number of" if row.max_operands is None else str(row.max_operands)
    count = str(row.min_operands) if row.min_operands == row.max_operands else f"{row.min_operands} to {most}"
    lines = [f"{row.name}: HLO operator, {count} operands"]
    if row.attributes:
        lines.append("attributes: " + ", ".join(a.key + ("" if a.required else "?") for a in row.attributes))
    if row.called:
        lines.append("calls: " + ", ".join(row.called))
    for target, opcodes in ON_DEVICE.items():
        where = "runs on the device, where shapes and dtypes allow it" if row.name in opcodes else "runs on the host"
        lines.append(f"{target}: {where}")
    return lines


def _instruction(word: str) -> list[str]:
    from nxcc.backends.cost import RULES, explain
    from nxcc.backends.isa.program import INSTRUCTIONS
    from nxcc.backends.target import load_target
    row = INSTRUCTIONS.get(word.lower())
    if row is None:
        return []
    operands = ", ".join(f"{o.name} ({o.access})" for o in row.operands)
    immediates = ", ".join(field.name for field in row.fields)
    lines = [f"{row.name}: machine instruction {row.number:#04x} of {', '.join(e.value for e in row.engines)}",
             f"operands: {operands or 'none'}", f"immediates: {immediates or 'none'}"]
    return lines + (explain(row.name, load_target("v2")).splitlines() if row.name in RULES else [row.meaning])


def _unknown(name: str) -> list[str]:
    from nxcc.ir.hlo.operator import operators
    raise CompileError(USAGE, f"nothing is known about {name!r}",
                       remedy=near(name, [*CODES, *VENDOR_CODES, *operators()]) or "`nxcc explain` lists the codes")
