"""The report of a compile as lines for people; `nxcc.compiler.session` makes the report."""

from __future__ import annotations

from typing import Any

MAX_HOST_LINES = 12


def build_lines(body: dict[str, Any]) -> list[str]:
    """The same for people."""
    lines = []
    if body["output"]:
        lines.append(f"{body['output']}: {size_text(body['neff_bytes'])}, target {body['target']}")
    if body["casts"]:
        lines.append(f"casts: {body['casts']}")
    if "nodes" in body:
        device = sum(node["executor"] == "device" for node in body["nodes"])
        lines.append(f"placement: {device} device and {len(body['nodes']) - device} host nodes, "
                     f"{body['percent_supported']:.2f} % of {body['total_count']} operations on the device")
        lines += host_lines(body["host"])
    if "memory" in body:
        memory = body["memory"]
        lines.append(f"code: {body['regions']} regions in {body['functions']} functions, "
                     f"{sum(body['machine_instructions'].values())} machine instructions")
        lines.append(f"memory: {size_text(memory['hbm_bytes'])} of {size_text(memory['hbm_limit_bytes'])} HBM, "
                     f"{size_text(memory['sbuf_bytes_per_partition'])} of "
                     f"{size_text(memory['sbuf_limit_bytes_per_partition'])} a partition of SBUF")
    if "estimate" in body:
        from nxcc.compiler.estimate import estimate_lines
        lines += estimate_lines(body["estimate"])
    lines += [f"time: {row['stage']:10} {row['cpu_s']:8.3f} CPU s" for row in body.get("stages", ())]
    return lines


def host_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Host instructions with reasons, equal ones counted."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["opcode"], row["reason"]), []).append(row)
    lines = []
    for (opcode, reason), members in list(groups.items())[:MAX_HOST_LINES]:
        first = members[0]
        where = first["instruction"] + (f" from {first['source']}" if first["source"] else "")
        lines.append(f"host: {len(members)} x {opcode}: {reason} (first: {where})")
    if len(groups) > MAX_HOST_LINES:
        lines.append(f"host: {len(groups) - MAX_HOST_LINES} more kinds; --json lists all")
    return lines


def size_text(count: int) -> str:
    """Bytes in the largest binary unit that keeps the number at 1 or more."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
