"""`nxcc compile` from end to end: from the compile cache if it is used and knows the answer, else compiled and kept there.

The cache is used when --cache, --cache-dir or NXCC_CACHE_DIR say so; a compile that is asked for more than its NEFF
(--workdir, --timing, --stop-after, ..) always runs. What decides the output's bytes is the list in `_key`.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from nxcc.compiler.cache.folder import cache_folder
from nxcc.compiler.cache.store import Cache, Key, content_digest
from nxcc.compiler.console.progress import INFO, Journal
from nxcc.compiler.files.outputs import (
    check_compile_names,
    check_outputs,
    default_output,
    dependencies,
    stamps_of,
    write_depfile,
)
from nxcc.compiler.options import CompileOptions, verbosity
from nxcc.compiler.own_files import code_digest
from nxcc.compiler.version import VERSION
from nxcc.ir.graphdef.naming import graph_name, module_name
from nxcc.ir.streams import is_standard_output, is_stream

KEY_FORMAT = 1
LIBRARIES = ("ml_dtypes", "numpy", "scipy")
"""What computes constants; another version may round a last bit otherwise."""

PrintJson = Callable[[str, dict[str, Any]], None]


def compile_session(model: str, options: CompileOptions, notices: list[str], print_json: PrintJson) -> int:
    """`nxcc compile` and, with query_compute, `nxcc check`; returns the exit status."""
    check_compile_names(model, options)
    stdout_is_taken = any(map(is_standard_output, (options.output, options.depfile)))
    journal = Journal(verbosity(options.verbose) or 0, quiet=options.quiet, logfile=options.logfile,
                      stdout_is_data=options.json or stdout_is_taken)
    status = "FAIL"
    # A compile makes few cycles and ends soon: looking for them costs a tenth of its time.
    gc.disable()
    try:
        for notice in notices:
            journal.note(notice)
        body = compile_through_cache(model, options, journal)
        status = "PASS"
        journal.close()
        _show(body, options, journal, print_json)
    finally:
        # What is left becomes old at once, or the next small allocation would search all of it.
        gc.freeze()
        gc.unfreeze()
        gc.enable()
        journal.close()
        if options.compat_log:
            (sys.stderr if stdout_is_taken else sys.stdout).write(f"Compiler status {status}\n")
    return 0


def _show(body: dict[str, Any], options: CompileOptions, journal: Journal, print_json: PrintJson) -> None:
    if options.json:
        print_json("check" if options.query_compute else "compile", body)
    elif journal.wants_report:
        from nxcc.compiler.reports.report_text import build_lines
        for line in build_lines(body):
            journal.result.write(line + "\n")


def compile_through_cache(model: str, options: CompileOptions, journal: Journal) -> dict[str, Any]:
    """The report of a compile that was done now or before; its output is written either way."""
    folder = cache_folder(options)
    if not folder or not _is_plain(model, options):
        return _compile(model, options, journal)
    cache = Cache(folder)
    output, inputs = options.output or default_output(model), dependencies(model, options)
    check_outputs([path for path in (output, options.depfile) if path], inputs)
    stamps = stamps_of(inputs)
    plain = _key(options, inputs)
    named = Key(plain.rows | {"name": module_name(graph_name(model))})
    for key in (plain, named):
        body = cache.deliver(key.digest, output, partial(write_depfile, output, model, options))
        if body is not None:
            return _delivered(body, model, options, journal, key)
    said = len(journal.notices)
    body = _compile(model, options, journal)
    # A TensorFlow graph has no name: its module is called as its file is. HLO brings its own.
    key = named if body["model"] == named.rows["name"] else plain
    if stamps == stamps_of(inputs):
        _keep(cache, key, body | {"notices": journal.notices[said:]}, journal)
    return body | {"cache": {"folder": folder, "key": key.digest, "hit": False}}


def _is_plain(model: str, options: CompileOptions) -> bool:
    """Whether the NEFF, the report and the depfile are all that is wanted."""
    more = (options.stop_after, options.workdir, options.dump_after, options.timing, options.query_compute)
    files = (model, options.output, options.weights, options.io_config)
    return not any(more) and not any(map(is_stream, files)) and all(map(os.path.exists, dependencies(model, options)))


def _key(options: CompileOptions, inputs: list[str]) -> Key:
    """Everything that decides the bytes: nxcc, what it computes with, the options, and what the inputs hold."""
    from importlib.metadata import version
    effective = options.effective()
    if options.io_config in inputs:
        effective["io-config"] = "file"
    rows: dict[str, Any] = {
        "format": KEY_FORMAT, "nxcc": VERSION, "code": code_digest(),
        "python": f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor} {os.uname().machine}",
        "libraries": {name: version(name) for name in LIBRARIES}, "options": effective,
        "framework": options.framework, "inputs": [content_digest(path) for path in inputs]}
    if options.compress:
        import zlib
        rows["zlib"] = zlib.ZLIB_RUNTIME_VERSION
    return Key(rows)


def _delivered(body: dict[str, Any], model: str, options: CompileOptions, journal: Journal, key: Key) -> dict[str, Any]:
    """The report of a hit, with what is this call's own; what the compile warned about is said again."""
    for notice in body["notices"]:
        journal.note(notice)
    folder, output = cache_folder(options), options.output or default_output(model)
    journal.note(f"taken from the cache {folder}: {key.digest}", INFO)
    return body | {"output": output, "notices": journal.notices, "cache": {"folder": folder, "key": key.digest, "hit": True}}


def _compile(model: str, options: CompileOptions, journal: Journal) -> dict[str, Any]:
    from nxcc.compiler.session import compile_report
    return compile_report(model, options, journal)


def _keep(cache: Cache, key: Key, body: dict[str, Any], journal: Journal) -> None:
    """Add the entry; a cache that cannot be written to is no reason to fail."""
    try:
        cache.keep(key, body["output"], body)
    except OSError as error:
        journal.note(f"the result is not kept in the cache {cache.folder}: {error.strerror or error}")
