"""What is in a NEFF, and its machine code as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from nxcc.backends.isa.debug import debug_indices
from nxcc.backends.isa.program import Engine, Function, Program, Stream
from nxcc.backends.isa.text import stream_lines
from nxcc.backends.target import load_target
from nxcc.compiler.files.opening import open_compiled
from nxcc.compiler.reports.report_text import size_text
from nxcc.compiler.runtime.carried import carried_module
from nxcc.compiler.runtime.device import load_programs
from nxcc.ir.diagnostics import USAGE, CompileError, near, one_of
from nxcc.neff.header import HEADER_BYTES
from nxcc.neff.members import CPU, InputTensor, OutputTensor
from nxcc.neff.reader import Neff


def info_file(path: str, *, extract: str | None = None, memory: bool = False, weights: bool = False) -> dict[str, Any]:
    """The facts of a file as plain JSON; extract: also write its members under this folder."""
    neff = open_compiled(path)
    header = neff.header
    body: dict[str, Any] = {
        "file": path, "written_by": header.build_version or "unknown", "is_ours": header.is_ours, "name": header.name,
        "version": f"{header.version_major}.{header.version_minor}", "uuid": header.uuid.hex(), "digest": header.digest.hex(),
        "file_bytes": HEADER_BYTES + header.data_size, "data_bytes": header.data_size, "cores": header.num_tpb,
        "host_regions": header.has_host_regions,
        "feature_bits": [bit for bit in range(64) if header.feature_bits >> bit & 1], "warnings": list(neff.warnings),
        "members": [{"name": name, "bytes": entry.size} for name, entry in neff.members.items()],
    }
    if neff.graph is not None:
        body |= _graph(neff)
    if memory:
        body["variables"] = _variables(neff, None)
    if weights:
        body["weights"] = [_tensor(row) for row in neff.graph.inputs if row.role == "weight"] if neff.graph else []
        body["constants"] = _variables(neff, "file")
    if extract:
        neff.extract(extract)
        body["extracted_to"] = extract
    return body


def _graph(neff: Neff) -> dict[str, Any]:
    graph = neff.graph
    assert graph is not None
    return {
        "requested_cores": neff.header.requested_tpb_count, "cores_of_nodes": list(neff.header.tpb_per_node),
        "target": graph.nxcc.target, "options": graph.nxcc.options, "encoding": graph.nxcc.encoding,
        "hlo_sha256": graph.nxcc.hlo_sha256,
        "inputs": [_tensor(row) for row in graph.inputs], "outputs": [_tensor(row) for row in graph.outputs],
        "aliases": [{"output": list(row.output), "param": row.param, "kind": row.kind} for row in graph.aliases],
        "nodes": [{"name": node.name, "executor": node.executor, "kelf": node.kelf,
                   "subgraph": neff.subgraphs[neff.core(node)].name if node.executor != CPU else "",
                   "inputs": [row.name for row in node.inputs], "outputs": [row.name for row in node.outputs]}
                  for node in graph.nodes],
    }


def _tensor(row: InputTensor | OutputTensor) -> dict[str, Any]:
    found = {"name": row.name, "dtype": row.dtype.name, "shape": list(row.shape), "bytes": row.size}
    if isinstance(row, InputTensor):
        found |= {"role": row.role, "param": row.param, "hlo": row.hlo, "framework": row.framework}
    return found


def _variables(neff: Neff, kind: str | None) -> list[dict[str, Any]]:
    return [{"name": name, "type": row.type, "bytes": row.size, "address": row.nxcc.get("address"), "file": row.file_name,
             "subgraph": subgraph.name}
            for subgraph in neff.subgraphs for name, row in subgraph.definition.var.items() if kind in (None, row.type)]


def info_lines(body: dict[str, Any]) -> list[str]:
    """The same for people; the first line says which compiler made the file."""
    lines = [f"{body['file']}: written by {body['written_by']}, NEFF {body['version']}, {size_text(body['file_bytes'])}, "
             f"module {body['name']!r}"]
    if not body["is_ours"]:
        lines.append("the engine code is in another compiler's encoding: it can be shown, not run")
    lines += [f"warning: {text}" for text in body["warnings"]]
    if "target" in body:
        options = " ".join(f"{name}={value}" for name, value in body["options"].items() if value not in ("", [], False))
        lines += [f"target {body['target']}; {options}"]
        if body["cores"] > 1:
            lines.append(f"cores   {body['cores']}, by kelf node {' + '.join(map(str, body['cores_of_nodes']))}; "
                         f"{body['requested_cores']} asked for")
        lines += _tensor_lines("input", body["inputs"]) + _tensor_lines("output", body["outputs"])
        lines += [f"alias   output {row['output']} takes the memory of parameter {row['param']} ({row['kind']})"
                  for row in body["aliases"]]
        lines += [f"node    {row['name']} on {row['executor']}{_core_text(row, body)}: {len(row['inputs'])} inputs, "
                  f"{len(row['outputs'])} outputs"
                  for row in body["nodes"]]
    for row in [*body.get("variables", ()), *body.get("constants", ())]:
        address = "" if row["address"] is None else f"at {row['address']:#x}"
        name = f"{row['subgraph']}/{row['name']}" if body["cores"] > 1 else row["name"]
        lines.append(f"{row['type']:13} {name:24} {row['bytes'] or 0:>12} bytes {address} {row['file']}".rstrip())
    return lines + _member_lines(body["members"])


def _member_lines(members: list[dict[str, Any]]) -> list[str]:
    """The files of the archive; values of constants are counted, not listed."""
    values = [row for row in members if re.fullmatch(r"sg\d\d/w\d+\.bin", row["name"])]
    lines = [f"member  {row['name']:28} {row['bytes']:>12} bytes" for row in members if row not in values]
    if values:
        lines.append(f"values  {len(values)} members, {size_text(sum(row['bytes'] for row in values))}; --weights lists them")
    return lines


def _core_text(row: dict[str, Any], body: dict[str, Any]) -> str:
    return f" {row['subgraph']}" if row["subgraph"] and body["cores"] > 1 else ""


def _tensor_lines(word: str, rows: list[dict[str, Any]]) -> list[str]:
    """Inputs and outputs; long runs of weights are counted, not listed."""
    weights = [row for row in rows if row.get("role") == "weight"]
    lines = [f"{word:7} {row['name']:10} {row['dtype']}{row['shape']} {row.get('hlo', '')}".rstrip()
             for row in rows if row.get("role") != "weight"]
    if weights:
        lines.append(f"weights {len(weights)} declared, {size_text(sum(row['bytes'] for row in weights))}; "
                     "`nxcc run --weights` brings them")
    return lines


# Disassembly


def disassemble(path: str, engines: Sequence[str], hlo: str | None) -> Iterator[str]:
    """The program as text, core by core, function by function and engine by engine, each part under the HLO instruction that
    it is from."""
    neff = open_compiled(path)
    graph = neff.require_runnable()
    target = load_target(graph.nxcc.target)
    programs = load_programs(neff, target)
    wanted = _wanted_engines(engines, {facts.member: engine for engine, facts in target.engines.items()})
    names = _debug_names(neff)
    sought = {hlo} if hlo is not None else set()
    if hlo is not None and hlo not in {name.split(" ")[0] for name in names}:
        sought = _regions_of(neff, names, hlo)
        yield f"{hlo} is part of {', '.join(sorted(sought))}"
    for subgraph, program in zip(neff.subgraphs, programs, strict=True):
        if len(programs) > 1:
            yield f"subgraph {subgraph.name}"
        for function in [*program.functions, *program.entries]:
            if hlo is None or _holds(function, names, sought):
                yield from _function_lines(program, function, wanted, names)


def _wanted_engines(words: Sequence[str], known: dict[str, Engine]) -> list[Engine]:
    for word in words:
        if word not in known:
            raise CompileError(USAGE, f"no engine is named {word!r}", remedy=one_of(word, known))
    return [known[word] for word in words] or list(known.values())


def _debug_names(neff: Neff) -> list[str]:
    debug = neff.debug_map()
    if debug is None:
        return []
    return [row.name + (f" ({row.op})" if row.op else "") + (f" {row.source}" if row.source else "") for row in debug.hlo]


def _regions_of(neff: Neff, names: list[str], hlo: str) -> set[str]:
    """The instructions with code of their own that hold one that has none; CompileError(USAGE) if no code comes from it."""
    module = carried_module(neff)
    known = {name.split(" ")[0] for name in names}
    inside: dict[str, set[str]] = {}
    for instruction in module.instructions() if module is not None else ():
        for called in instruction.called if instruction.name in known else ():
            for part in called.instructions:
                inside.setdefault(part.name, set()).add(instruction.name)
    if hlo not in inside:
        raise CompileError(USAGE, f"no machine code comes from an HLO instruction named {hlo!r}", neff.path,
                           remedy=near(hlo, sorted(known | inside.keys())) or "`nxcc profile` lists those with code")
    return inside[hlo]


def _holds(function: Function, names: list[str], sought: set[str]) -> bool:
    return any(index < len(names) and names[index].split(" ")[0] in sought
               for stream in function.streams.values() for indices in debug_indices(stream) for index in indices)


def _function_lines(program: Program, function: Function, engines: list[Engine], names: list[str]) -> Iterator[str]:
    kind = "entry" if any(function is entry for entry in program.entries) else "function"
    yield f"{kind} {function.name}"
    for engine in engines:
        stream: Stream | None = function.streams.get(engine)
        if stream:
            yield f"  {engine.value}:"
            for line in stream_lines(stream, lambda number: names[number] if 0 <= number < len(names) else ""):
                yield f"    {line}"
