"""`nxcc opt`: read a module, run passes, write it as text or binary."""

from __future__ import annotations

import sys

from nxcc.backends.target import load_target
from nxcc.compiler.arrays import read_arrays
from nxcc.compiler.driver import graph_request, pass_settings
from nxcc.compiler.inputs import read_model
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.outputs import whole_file, write_whole
from nxcc.compiler.parameters import Signature, bind_weights
from nxcc.compiler.problems import raise_problems
from nxcc.ir.diagnostics import USAGE, CompileError
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.text.writer import write_text
from nxcc.ir.hlo.verifier import verify
from nxcc.passes.pipeline import PASS_NAMES, passes, run_pipeline


def pass_list() -> tuple[str, ...]:
    """Names of all passes, in the order of the pipeline."""
    return PASS_NAMES


def convert(path: str, output: str | None, names: str | None, emit: str, options: CompileOptions) -> str | None:
    """Read, verify, run passes, write.

    names: passes, separated by commas, run in that order; None runs the pipeline. emit: text, short or binary.
    Returns text for stdout if there is no output file.
    """
    module = read_model(path, graph_request(options))
    verify(module)
    if options.weights:
        signature = Signature(list(range(len(module.entry.parameters))), frozenset())
        raise_problems(bind_weights(module, signature, read_arrays(options.weights), options.weights))
    _run(module, names, options)
    verify(module)
    if emit == "binary":
        from nxcc.ir.hlo.proto.writer import write_module
        if output is None:
            write_module(module, sys.stdout.buffer)
        else:
            with whole_file(output) as file:
                write_module(module, file)
        return None
    text = write_text(module, short=emit == "short")
    if output is None:
        return text
    write_whole(output, text)
    return None


def _run(module: Module, names: str | None, options: CompileOptions) -> None:
    settings = pass_settings(options, load_target(options.target))
    if names is None:
        run_pipeline(module, settings, disabled=options.disable_pass)
        return
    known = {row.name: row for row in passes(settings)}
    for name in [word.strip() for word in names.split(",") if word.strip()]:
        if name not in known:
            import difflib
            near = difflib.get_close_matches(name, known, 1)
            raise CompileError(USAGE, f"there is no pass {name!r} at optlevel {options.optlevel}",
                               why=f"passes are {', '.join(known)}", remedy=f"did you mean {near[0]}?" if near else "")
        known[name].run(module)
