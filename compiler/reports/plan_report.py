"""What a plan places where: regions, what crosses between them, and the shares that the vendor's analyses give.

Two outlines of the vendor's are kept: the seven counts of `analyze_model` beside each other, and under `analysis` that of
`torch_neuronx.analyze` with HLO opcodes (CLI and NEFF reference, 4.3 and 5.4). Both count what the device could run as
supported, wherever its cost places it. Operators count what fusions hold; arithmetic ones are those that compute, as opposed
to moving or repeating values. Bytes of an instruction are those of its result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from nxcc.backends.target import Target
from nxcc.compiler.interface.parameters import WEIGHT, Tensor
from nxcc.compiler.reports.rewrites import rewrite
from nxcc.compiler.reports.statistics import multiply_accumulates
from nxcc.compiler.reports.trips import multiplicities
from nxcc.compiler.version import VERSION
from nxcc.ir.diagnostics import UNSUPPORTED
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.passes.partitioning.nodes import FREE, Node
from nxcc.passes.partitioning.partition import SUPPORT, Plan


def plan_report(plan: Plan, tensors: tuple[Tensor, ...], target: Target) -> dict[str, Any]:
    """The plan as plain JSON; shares from 0 to 1."""
    weights = {tensor.name for tensor in tensors if tensor.role == WEIGHT}
    regions = [_region(node, plan, weights) for node in plan.nodes]
    found = {node.name: Counter(i.opcode for i in operations(node.module.entry)) for node in plan.nodes}
    operators = sum(found.values(), Counter[str]())
    failed = Counter(row.opcode for row in plan.host if row.kind == SUPPORT)
    supported = operators - failed
    crossing = crossing_bytes(plan, weights)
    total, good = operators.total(), supported.total()
    return {
        "nodes": regions, "host": [asdict(row) for row in plan.host], "reasons": _reasons(plan),
        "crossing": {"bytes": crossing, "us": crossing / target.host.copy_bytes_per_second * 1e6},
        "device_share": {key: _share(regions, key) for key in ("operators", "arithmetic_operators", "flops", "bytes")},
        "analysis": _analysis(plan, operators, supported, target),
        "device_count": sum(found[node.name].total() for node in plan.nodes if node.on_device),
        "percent_supported": 100.0 if not total else round(100 * good / total, 2),
        "supported_count": good, "total_count": total, "supported_operators": sorted(supported),
        "unsupported_operators": sorted(failed), "operators": sorted(operators),
        "operator_count": dict(sorted(operators.items())),
    }


def operations(computation: Computation) -> Iterator[Instruction]:
    """A computation's work; a fusion counts as what it holds."""
    for instruction in computation.instructions:
        if instruction.opcode == "fusion":
            yield from operations(instruction.called[0])
        elif instruction.opcode not in FREE:
            yield instruction


def _region(node: Node, plan: Plan, weights: set[str]) -> dict[str, Any]:
    rows = list(operations(node.module.entry))
    return {
        "name": node.name, "executor": "device" if node.on_device else "host", "core": node.core,
        "inputs": list(node.inputs), "outputs": list(node.outputs), "instructions": len(node.module.entry.instructions),
        "operators": len(rows), "arithmetic_operators": sum(not i.operator.moves_data for i in rows),
        "flops": sum(_flops(i) * times for c, times in multiplicities(node.module.entry).items() for i in c.instructions),
        "bytes": sum(i.shape.byte_size for i in node.module.entry.instructions if i.opcode not in FREE),
        "bytes_in": sum(plan.values[name].byte_size for name in node.inputs if name not in weights),
        "bytes_out": sum(plan.values[name].byte_size for name in node.outputs),
    }


def _flops(instruction: Instruction) -> int:
    """Multiplications and additions of a product, an operation an element for other arithmetic; what it calls not counted."""
    macs = multiply_accumulates(instruction)
    if macs or not instruction.shape.is_array or not (instruction.operator.elementwise or instruction.opcode == "reduce"):
        return 2 * macs
    return max(instruction.shape.element_count, instruction.operands[0].shape.element_count if instruction.operands else 0)


def crossing_bytes(plan: Plan, weights: set[str]) -> int:
    """Bytes of a request that pass between host and device: inputs, results, and values between regions of both."""
    on_device = dict.fromkeys(plan.parameters, False)
    moved: set[tuple[str, bool]] = set()
    for node in plan.nodes:
        moved |= {(name, node.on_device) for name in node.inputs if on_device[name] != node.on_device and name not in weights}
        on_device |= dict.fromkeys(node.outputs, node.on_device)
    moved |= {(name, False) for name in plan.results if on_device[name]}
    return sum(plan.values[name].byte_size for name, _ in moved)


def _share(regions: list[dict[str, Any]], key: str) -> float:
    total = sum(row[key] for row in regions)
    return sum(row[key] for row in regions if row["executor"] == "device") / total if total else 1.0


def _reasons(plan: Plan) -> list[dict[str, Any]]:
    """Host instructions by reason, in the order of their first ones."""
    groups: dict[str, dict[str, Any]] = {}
    for row in plan.host:
        group = groups.setdefault(row.reason, {"reason": row.reason, "kind": row.kind, "count": 0, "operators": {},
                                               "first": row.instruction, "source": row.source})
        group["count"] += 1
        group["operators"][row.opcode] = group["operators"].get(row.opcode, 0) + 1
    return list(groups.values())


def _analysis(plan: Plan, operators: Counter[str], supported: Counter[str], target: Target) -> dict[str, Any]:
    """The outline of `torch_neuronx.analyze`."""
    total = operators.total()
    return {
        "nxcc_version": VERSION, "target": target.name,
        "support_percentage": f"{100 * supported.total() / total if total else 100:.2f}%",
        "supported_operators": dict(sorted(supported.items())),
        "unsupported_operators": [
            {"kind": row.opcode, "failureAt": "nxcc", "call": row.source, "opGraph": row.culprit or row.instruction,
             "code": UNSUPPORTED.name, "instruction": row.instruction, "reason": row.reason,
             "rewrite": rewrite(row.opcode, row.reason)} for row in plan.host if row.kind == SUPPORT],
    }
