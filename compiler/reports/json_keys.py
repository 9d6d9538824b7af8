"""What `--json` prints: every key of every command's object, with its meaning; `nxcc explain json` shows it.

A test runs the commands and holds the keys that they print against this table. A new key is no new schema. Times end in _us,
sizes in _bytes or bytes; shares lie between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nxcc.compiler.debugging.failures import JSON_SCHEMA

EVERY = {
    "schema": f"version of the object: {JSON_SCHEMA}; it grows when a key changes its meaning or goes",
    "command": "the command that printed it",
}
ERROR = {
    "schema": EVERY["schema"],
    "error": "instead of all else when a command fails: code, title, what, where, location (framework source), why, remedy, "
             "details (all problems)",
}
_PLACED = {
    "model": "name of the module",
    "target": "v1 or v2",
    "options": "value of each option that decides the output",
    "output": "path of the NEFF; empty if none was written",
    "neff_bytes": "its size",
    "notices": "warnings, one text each",
    "casts": "what --auto-cast does, in words; empty without casts",
    "parameters": "what became of them: bound (count, now constants), declared (count, weights that come with `nxcc run`), "
                  "inputs (the others: name, number, the framework's name)",
    "stages": "with --timing: stage, cpu_s, wall_s of each",
    "nodes": "device and host nodes in order: name, executor, core (-1: host), inputs, outputs, operators, "
             "arithmetic_operators, instructions, flops, bytes, bytes_in, bytes_out",
    "host": "each instruction on the host: instruction, opcode, source, reason, kind (support, kept, cost), culprit (what the "
            "reason is about, inside of it)",
    "reasons": "the same in groups of one reason: kind, reason, operators (count by opcode), first, source",
    "device_share": "shares on the device: operators, arithmetic_operators, flops, bytes",
    "crossing": "what passes between host and device in a call: bytes, us",
    "device_count": "operations that are placed on the device",
    "percent_supported": "operations that the device could run, in percent",
    "supported_count": "their number",
    "total_count": "all operations",
    "supported_operators": "opcodes of which the device could run some",
    "unsupported_operators": "opcodes of which it could not run some",
    "operators": "all opcodes",
    "operator_count": "operations by opcode",
    "analysis": "the outline of torch_neuronx.analyze: nxcc_version, target, support_percentage, supported_operators, "
                "unsupported_operators",
    "cores": "cores that the NEFF needs",
    "regions": "regions of machine code",
    "functions": "distinct functions that they call",
    "machine_instructions": "count by engine",
    "memory": "hbm_bytes, hbm_limit_bytes, sbuf_bytes_per_partition, sbuf_limit_bytes_per_partition, constant_bytes, "
              "declared_weight_bytes",
    "spreading_products": "products on the device in which a NaN may spread to other rows (--relayout exact keeps it)",
    "statistics": "of one call: macs, flops, bytes_in, bytes_out, weights_bytes, instructions",
}
_ESTIMATE = {
    "file": "the NEFF",
    "target": "v1 or v2",
    "device_us": "one call on the device: simulated_us and fixed_us",
    "simulated_us": "simulated time of all device nodes",
    "fixed_us": "starting them",
    "range_us": "the least and the most that uncertain facts allow",
    "host_us": "the host's share of a call, beside device_us",
    "host": "its parts: submit_us, copy_us, regions_us",
    "load_us": "filling what stays on chip, once",
    "bound_by": "what takes most of the critical path",
    "critical_path": "share by cause",
    "engines": "busy share of each engine, and of DMA",
    "engine_labels": "for people: what an engine's name in the file stands for",
    "roofline_us": "the least time that the work can take",
    "roofline": "bound_by, flops by dtype, bytes, scalar_elements, vector_elements, and the time of each",
    "instructions": "machine instructions executed",
    "transfers": "DMA transfers executed",
    "hbm_bytes": "bytes that they read and write in HBM",
    "hbm_bytes_per_second": "the same per second",
    "pe_flops": "operations of the tensor engine",
    "pe_flops_per_second": "the same per second",
    "nodes": "each node: name, executor, us",
    "uncertain": "facts of the machine that are not known well: fact, fast_us, slow_us, why; largest effect first",
    "moves_it_most": "the first of these, or null",
    "advice": "changes that were tried: kind, change, flags, gain_us, before_us, after_us, note, text",
    "without_gain": "kinds of change that were tried and gain less than 2 % of a call, or null with --no-advice",
    "assumed_branches": "branches on data whose outcome was assumed",
    "trips": "turns assumed of loops whose end depends on data",
    "repeated_turns": "turns of loops that were not timed one by one, since they are like those before them",
    "repeated_us": "time of those, known to the tick",
    "averaged_us": "time of turns that are not alike, by the mean of others",
    "pipeline": "of several cores: cores, latency_us, loaded_latency_us, interval_us, requests_per_second, bound_by, stages",
}
_ROW = "name, us (its part of the critical path), path_us by cause, mostly (the largest), start_us, end_us, busy_us by " \
       "engine, instructions, transfers, hbm_bytes, operations, pe_flops, regions"
_CHANGE = "name, before_us, after_us, delta_us"
_COMPARED = {
    "before": "the first file's totals: file, device_us, simulated_us, host_us, bound_by, instructions, transfers, hbm_bytes, "
              "pe_flops",
    "after": "the second's",
    "target": "of both",
    "delta_us": "device_us after less before",
    "ratio": "device_us after over before, or null",
    "layers": f"by layer, largest change first: {_CHANGE}",
    "hlo": "by HLO instruction: the same",
    "critical_path": "by cause: the same",
    "engines": "busy time by engine: the same",
    "machine": "by machine instruction: the same, before_count, after_count",
    "page": "path of the page, if one was written",
}
_PROFILE = {
    "estimate": "as `nxcc estimate --json`, without ranges and advice",
    "layers": f"by layer: {_ROW}",
    "hlo": "by HLO instruction: the same",
    "functions": "by lowered function: the same",
    "machine": "by machine instruction: engine, instruction, count, busy_us, idle_before_us",
    "queues": "DMA queues: queue, transfers, bytes, under_way_us",
    "left_out": "where turns that repeat others stand in the timeline: start_us, us, turns, turn_us, exact; longest first",
    "activity": "share busy over time, in equal pieces: name, shares",
    "page": "path of the page, if one was written",
    "trace": "path of the trace, if one was written",
}
_INFO = {
    "file": "the NEFF",
    "written_by": "build version of the header",
    "is_ours": "whether nxcc wrote it",
    "name": "name of the module",
    "version": "version of the container, as 2.0",
    "uuid": "equal files have equal ones",
    "digest": "of the payload",
    "file_bytes": "size of the file",
    "data_bytes": "without the header",
    "cores": "cores that it needs",
    "requested_cores": "cores that were asked for",
    "cores_of_nodes": "cores of each kelf node",
    "host_regions": "whether parts run on the host",
    "feature_bits": "numbers of the header's bits that are set",
    "warnings": "oddities that do not forbid reading",
    "members": "files of the archive: name, bytes",
    "target": "v1 or v2",
    "options": "of the compile that made it",
    "encoding": "of the engine code",
    "hlo_sha256": "of the model file; empty above 64 MiB",
    "inputs": "name, dtype, shape, bytes, role (input, state, weight), param (number), hlo (name), framework (a weight's)",
    "outputs": "name, dtype, shape, bytes",
    "aliases": "outputs that take a parameter's memory: output (path), param, kind",
    "nodes": "name, executor, kelf, subgraph, inputs, outputs",
    "variables": "with --memory: name, type, bytes, address, file, subgraph",
    "weights": "with --weights: as inputs",
    "constants": "with --weights: as variables",
    "extracted_to": "with --extract: the folder",
}
_CACHE = {
    "folder": "of the cache",
    "entries": "list: key, model, target, bytes, used (seconds since 1970), nxcc, options",
    "entries_left": "how many there are now",
    "bytes_left": "what they take",
    "removed": "clear, prune, verify: keys of what went",
    "bytes_removed": "what it took",
    "difference": "why: the first difference of two keys; empty if they are equal",
}
KEYS: Mapping[str, Mapping[str, str]] = {
    "compile": _PLACED | {"cache": "if the cache was used: folder, key, hit"},
    "check": _PLACED | {"estimate": "as `nxcc estimate --json`",
                        "pipeline_proposal": "on v1: cores, candidates (cores, interval_us)"},
    "run": {
        "file": "the NEFF", "target": "v1 or v2", "inputs": "given, or random with the seed",
        "outputs": "name, dtype, shape; min, max, mean of what is finite, not_finite: how many are not",
        "written": "path of the outputs, if they were written",
        "was_repeated": "a product met what is not finite, so that exact code ran",
        "load_cpu_s": "with --timing", "run_cpu_s": "with --timing",
    },
    "verify": {
        "file": "the model or NEFF", "against": "what it was compared with", "auto_cast": "of the compile",
        "strict": "as asked",
        "passed": "whether all outputs agree", "code": "NXC0500 if not", "notices": "warnings, one text each",
        "outputs": "name, dtype, shape, error (null: infinite), tolerance, passed",
    },
    "estimate": _ESTIMATE,
    "profile": _PROFILE,
    "profile of two files": _COMPARED,
    "info": _INFO,
    "bisect": {
        "model": "as given", "verdict": "agrees, differs, refused or broken", "text": "the same in words",
        "pass": "the culprit, or empty",
        "how": "how it was found", "cured_by": "passes without which the model agrees", "instruction": "the culprit, or empty",
        "module": "a module of that instruction alone, as text",
    },
    "reduce": {
        "model": "as given", "fails": "how, in words", "output": "path of the reduced module", "inputs": "path of its inputs",
        "trials": "modules that were tried", "instructions_before": "of the model", "instructions": "of the reduced module",
        "text": "the reduced module, short",
    },
    "cache": _CACHE,
    "list-operators": {
        "framework": "XLA, TENSORFLOW or HLO", "target": "v1 or v2", "names": "operators that run on the device",
        "operators": "each with opcode, names, placement, dtypes, constraint (what keeps some of its forms from the device)",
    },
}


def json_lines(command: Sequence[str]) -> list[str]:
    """The keys of one command's object (its words), or of all; nothing if it has none."""
    name = " ".join(command)
    chosen = {name: KEYS[name]} if name in KEYS else {} if name else KEYS
    return [line for title, keys in chosen.items() for line in _table(f"nxcc {title} --json", {**EVERY, **keys})] + (
        _table("any command that fails", ERROR) if chosen else [])


def _table(title: str, keys: Mapping[str, str]) -> list[str]:
    return [f"{title}:", *(f"  {key:22} {meaning}" for key, meaning in keys.items()), ""]
