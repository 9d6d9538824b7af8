"""The report of a compile as lines for people; `nxcc.compiler.session` makes the report."""

from __future__ import annotations

from typing import Any

MAX_HOST_LINES = 12
MAX_INPUTS = 4


def build_lines(body: dict[str, Any]) -> list[str]:
    """The same for people."""
    lines = []
    if body["output"]:
        lines.append(f"{body['output']}: {size_text(body['neff_bytes'])}, target {body['target']}")
    lines += _parameter_lines(body.get("parameters"))
    if body["casts"]:
        lines.append(f"casts: {body['casts']}")
    if "nodes" in body:
        device = sum(node["executor"] == "device" for node in body["nodes"])
        share = body["device_count"] / body["total_count"] if body["total_count"] else 1.0
        lines.append(f"placement: {device} device and {len(body['nodes']) - device} host nodes, "
                     f"{100 * share:.2f} % of {body['total_count']} operations on the device")
        lines += plan_lines(body)
    if body.get("spreading_products"):
        end = ("--relayout exact prevents it and is slower" if "relayout" in body["options"] else
               "such a run is made again with code of --relayout exact, which is slower")
        lines.append("transposes: a NaN or an infinity in an operand may make NaN of other rows in "
                     f"{body['spreading_products']} products; {end}")
    if "memory" in body:
        memory = body["memory"]
        lines.append(f"code: {body['regions']} regions in {body['functions']} functions, "
                     f"{sum(body['machine_instructions'].values())} machine instructions")
        worst = " on the core with most" if body["cores"] > 1 else ""
        lines.append(f"memory{worst}: {size_text(memory['hbm_bytes'])} of {size_text(memory['hbm_limit_bytes'])} HBM, "
                     f"{size_text(memory['sbuf_bytes_per_partition'])} of "
                     f"{size_text(memory['sbuf_limit_bytes_per_partition'])} a partition of SBUF")
    lines += proposal_lines(body.get("pipeline_proposal"))
    if "estimate" in body:
        from nxcc.compiler.reports.estimate import estimate_lines
        lines += estimate_lines(body["estimate"])
    lines += [f"time: {row['stage']:10} {row['cpu_s']:8.3f} CPU s" for row in body.get("stages", ())]
    return lines


def _parameter_lines(body: dict[str, Any] | None) -> list[str]:
    """Which parameters became constants, and what is left to be given."""
    if body is None or not body["bound"]:
        return []
    inputs = ", ".join(body["inputs"][:MAX_INPUTS]) + (" .." if len(body["inputs"]) > MAX_INPUTS else "")
    declared = f", {body['declared']} declared" if body["declared"] else ""
    return [f"weights: {body['bound']} parameters bound{declared}; inputs: {inputs or 'none'}"]


def plan_lines(body: dict[str, Any]) -> list[str]:
    """Regions, what crosses, what is on the device, and host instructions by reason; for a plan of several regions."""
    share, lines = body["device_share"], []
    if len(body["nodes"]) > 1:
        words = [f"{share[key]:.1%} of {key.replace('_', ' ').replace('flops', 'FLOPs')}" for key in share]
        lines.append(f"on the device: {', '.join(words)}; {size_text(body['crossing']['bytes'])} a request cross to or from it")
        for row in body["nodes"][:MAX_HOST_LINES]:
            where = "host" if row["core"] < 0 else "device" if body.get("cores", 1) == 1 else f"core {row['core']}"
            lines.append(f"region {row['name']} on {where}: {row['operators']} operators, {row['flops']} FLOP, takes "
                         f"{size_text(row['bytes_in'])}, gives {size_text(row['bytes_out'])}")
        if len(body["nodes"]) > MAX_HOST_LINES:
            lines.append(f"{len(body['nodes']) - MAX_HOST_LINES} more regions; --json lists all")
    return lines + reason_lines(body["reasons"])


def proposal_lines(body: dict[str, Any] | None) -> list[str]:
    """What a pipeline over several cores would give."""
    from nxcc.compiler.reports.estimate import us_text
    if body is None:
        return []
    rows = [f"{row['cores']} cores: one every {us_text(row['interval_us'])}" for row in body["candidates"]]
    best = f"--neuroncore-pipeline-cores {body['cores']} gives most a core" if body["cores"] > 1 else \
        "one core gives most a core: copies of the model are better than a pipeline"
    return [f"pipeline: {best} ({', '.join(rows)})"]


def reason_lines(groups: list[dict[str, Any]]) -> list[str]:
    """Host instructions, those with one reason together."""
    lines = []
    for group in groups[:MAX_HOST_LINES]:
        words = ", ".join(f"{count} x {opcode}" for opcode, count in group["operators"].items())
        where = group["first"] + (f" from {group['source']}" if group["source"] else "")
        lines.append(f"host: {words}: {group['reason']} (first: {where})")
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
