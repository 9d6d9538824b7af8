"""The operators that run on the device, from a light table, so that listing them loads nothing heavy.

`ON_DEVICE` repeats what the lowering rules declare; a test holds the two equal. Spellings are those of XlaBuilder, as
neuronx-cc prints them (CLI and NEFF reference, section 1.3).
"""

from __future__ import annotations

from typing import Any

from nxcc.backends.targets import CHIPS, TARGET_OF
from nxcc.ir.diagnostics import USAGE, CompileError, one_of

BUILDER_NAMES: dict[str, tuple[str, ...]] = {
    "and": ("And", "LogicalAnd"), "bitcast-convert": ("BitcastConvertType",), "broadcast": ("Broadcast", "BroadcastInDim"),
    "compare": ("Compare", "Eq", "Ge", "Gt", "Le", "Lt", "Ne"), "concatenate": ("ConcatInDim", "Concatenate"),
    "constant": ("Constant", "ConstantLiteral"), "convert": ("ConvertElementType",),
    "convolution": ("Conv", "ConvGeneral", "ConvGeneralDilated"), "cosine": ("Cos",), "divide": ("Div",),
    "dot": ("Dot", "DotGeneral"), "exponential": ("Exp",), "exponential-minus-one": ("Expm1",), "log-plus-one": ("Log1p",),
    "maximum": ("Max",), "minimum": ("Min",), "multiply": ("Mul",), "negate": ("Neg",), "not": ("LogicalNot", "Not"),
    "or": ("LogicalOr", "Or"), "popcnt": ("PopulationCount",), "power": ("Pow",), "remainder": ("Rem",),
    "reverse": ("Rev",), "round-nearest-afz": ("Round",), "sine": ("Sin",), "slice": ("Slice", "SliceInDim"),
    "subtract": ("Sub",), "topk": ("TopK",), "fft": ("Fft",), "rng": ("RngNormal", "RngUniform"),
    "count-leading-zeros": ("Clz",), "opt-barrier": ("OptimizationBarrier",),
}
"""Opcodes whose XlaBuilder name is not the opcode in capitals."""

INTERNAL = frozenset((
    "add-dependency", "after-all", "bitcast", "copy", "copy-done", "copy-start", "domain", "fusion", "async-start",
    "async-update", "async-done"))
"""Opcodes that XLA makes itself and that no builder call stands for."""

RULED = (
    "abs", "acos", "acosh", "add", "add-dependency", "after-all", "and", "asin", "asinh", "atan2", "atanh", "bitcast",
    "bitcast-convert", "broadcast", "call", "cbrt", "ceil", "clamp", "compare", "concatenate", "conditional", "constant",
    "convert", "convolution", "copy", "cosh", "cosine", "count-leading-zeros", "custom-call", "divide", "domain", "dot",
    "dynamic-slice", "dynamic-update-slice", "erf", "exponential", "exponential-minus-one", "floor", "fusion", "gather",
    "get-tuple-element", "imag", "iota", "is-finite", "log", "log-plus-one", "logistic", "map", "maximum", "minimum",
    "mulhi", "multiply", "negate", "not", "opt-barrier", "or", "pad", "parameter", "popcnt", "power", "real", "reduce",
    "reduce-precision", "reduce-window", "remainder", "reshape", "reverse", "rng-bit-generator", "round-nearest-afz",
    "round-nearest-even", "rsqrt", "scan", "scatter", "select", "select-and-scatter", "shift-left", "shift-right-arithmetic",
    "shift-right-logical", "sign", "sine", "sinh", "slice", "sort", "sqrt", "stochastic-convert", "subtract", "tan",
    "tanh", "topk", "transpose", "tuple", "while", "xor",
)
"""Opcodes that a complete device runs for at least some shapes and dtypes, sorted."""

LACKING: dict[str, frozenset[str]] = {
    "v1": frozenset(("conditional", "gather", "rng-bit-generator", "scatter", "sort", "topk")),
}
"""What a target does not run of that: v1 lacks GpSimd, registers and branches. Loops of a known count are written out; small
gathers, scatters and conditionals, and gathers at known places, become other operators before."""

ON_DEVICE = {target: tuple(opcode for opcode in RULED if opcode not in LACKING.get(target, ())) for target in CHIPS}
"""Opcodes that each target runs. A test holds them against the lowering rules, which take longer to ask."""


def builder_names(opcode: str) -> tuple[str, ...]:
    """The XlaBuilder spellings of an opcode."""
    if opcode in INTERNAL:
        return ()
    return BUILDER_NAMES.get(opcode) or ("".join(part.capitalize() for part in opcode.split("-")),)


def operator_report(framework: str, target: str, in_detail: bool = False) -> dict[str, Any]:
    """The operators that the device runs; framework: XLA for builder spellings, HLO for opcodes, TENSORFLOW for GraphDef
    operators. in_detail: every operator there is, with where it runs and why (asks the lowering rules)."""
    found = TARGET_OF.get(target, target)
    if found not in ON_DEVICE:
        raise CompileError(USAGE, f"no operators are known for target {target!r}", remedy=one_of(target, ON_DEVICE))
    spelling = framework.upper()
    if spelling == "TENSORFLOW":
        return _tensorflow_report(found)
    if spelling not in ("XLA", "HLO"):
        raise CompileError(USAGE, f"no operators are known for framework {framework!r}",
                           remedy=one_of(spelling, ("XLA", "TENSORFLOW", "HLO")))
    opcodes = ON_DEVICE[found]
    names = {name for opcode in opcodes for name in builder_names(opcode)} if spelling == "XLA" else set(opcodes)
    body = {"target": found, "framework": spelling, "names": sorted(names)}
    if not in_detail:
        return body
    from nxcc.compiler.reports.operator_support import support_rows
    return body | {"operators": support_rows(found)}


def _tensorflow_report(target: str) -> dict[str, Any]:
    """TensorFlow's operators: those with a lowering rule run on the device unless it needs an opcode that does not."""
    from nxcc.ir.graphdef.registry import needed_opcodes, rules
    from nxcc.ir.graphdef.shape_functions.registry import steps
    from nxcc.ir.graphdef.unsupported import REASONS
    device = frozenset(ON_DEVICE[target])
    rows = []
    for name in rules():
        missing = [opcode for opcode in needed_opcodes(name) if opcode not in device]
        why = f"{', '.join(missing)} runs on the host" if missing else ""
        rows.append({"operator": name, "placement": "host" if missing else "device", "reason": why})
    rows += [{"operator": name, "placement": "host", "reason": why} for name, why in steps().items() if name not in rules()]
    rows += [{"operator": name, "placement": "no", "reason": why} for name, why in REASONS.items()]
    names = [row["operator"] for row in rows if row["placement"] != "no"]
    return {"target": target, "framework": "TENSORFLOW", "names": sorted(names),
            "operators": sorted(rows, key=lambda row: row["operator"])}


def operator_lines(body: dict[str, Any]) -> list[str]:
    """One name a line, sorted by code point, no header."""
    return list(body["names"])
