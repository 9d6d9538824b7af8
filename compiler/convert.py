"""`nxcc opt`: read a module, run passes, write it as text or binary."""

from __future__ import annotations

from nxcc.backends.target import load_target
from nxcc.compiler.driver import graph_request, pass_settings
from nxcc.compiler.files.inputs import read_model
from nxcc.compiler.interface.weights import bind_file
from nxcc.compiler.options import CompileOptions
from nxcc.ir.diagnostics import USAGE, CompileError, near
from nxcc.ir.files import whole_file, write_whole
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.text.writer import write_text
from nxcc.ir.hlo.verifier import verify
from nxcc.ir.streams import STANDARD, refuse_terminal
from nxcc.passes.pipeline import PASS_NAMES, passes, run_pipeline


def pass_list() -> tuple[str, ...]:
    """Names of all passes, in the order of the pipeline."""
    return PASS_NAMES


def convert(path: str, output: str | None, names: str | None, emit: str, options: CompileOptions) -> str | None:
    """Read, verify, run passes, write.

    names: passes, separated by commas, run in that order; None runs the pipeline. emit: text, short or binary.
    Returns text for stdout if there is no output file.
    """
    if emit == "binary":
        refuse_terminal(output or STANDARD)
    module = read_model(path, graph_request(options))
    verify(module)
    if options.weights:
        bind_file(module, options.weights)
    _run(module, names, options)
    verify(module)
    if emit == "binary":
        from nxcc.ir.hlo.proto.writer import write_module
        with whole_file(output or STANDARD) as file:
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
            raise CompileError(USAGE, f"there is no pass {name!r} at optlevel {options.optlevel}",
                               remedy=near(name, known) or "`nxcc opt --list` names them")
        known[name].run(module)
