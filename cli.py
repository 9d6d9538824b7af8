"""The command line: parses, calls nxcc.compiler, prints, returns the exit status; heavy imports stay inside the commands."""

from __future__ import annotations

if __name__ == "__main__":
    from nxcc.__main__ import entry
    entry()

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from nxcc.compiler.console.arguments import COMPILE_COMMANDS, check_value, choice_value, environment_flags, prepare
from nxcc.compiler.console.commands import FILES, Commands, Finite, is_given, stdout_is_taken
from nxcc.compiler.debugging.failures import JSON_SCHEMA, guard
from nxcc.compiler.options import DECLARED, CompileOptions, Kind, Option, Role
from nxcc.ir.diagnostics import USAGE, CompileError

Command = Callable[..., Any]


_INPUT, _OUTPUT, _PLACE = (FILES[kind] for kind in (Kind.INPUT, Kind.OUTPUT, Kind.PLACE))
_COUNT, _AT_LEAST_ONE = click.IntRange(min=0), click.IntRange(min=1)
_FORMATS = ("text", "short", "binary")
_TARGETS = "|".join(DECLARED["target"].choices)

# Options that several commands share.
_INPUTS = click.option("--inputs", type=_INPUT, metavar="IN.npz",
                       help="Arrays input0.. in order; seeded random ones if absent.")
_STRICT = click.option("--strict", is_flag=True, help="Poisoned memory, bounds, race detection, random legal interleavings.")
_SEED = click.option("--seed", type=_COUNT, default=0, show_default=True, help="Seed of random inputs and of the strict order.")
_TRIPS = click.option("--trips", type=_AT_LEAST_ONE, default=1, show_default=True,
                      help="Iterations of loops whose end depends on data.")
_TIME_LIMIT = click.option("--time-limit", type=Finite(min=0, min_open=True), metavar="SECONDS",
                           help="Give up a simulation that has not ended by then; a loop on data may have no end.")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line and return the exit status."""
    # A simulated machine multiplies many small tiles: threads of the BLAS cost more than they bring (set it to override).
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    given = list(sys.argv[1:] if words is None else words)
    return guard(lambda: _run(given), given)


def _run(words: list[str]) -> int:
    arguments = prepare(words, tuple(nxcc.commands), environment_flags())
    if arguments.words and arguments.words[0] not in COMPILE_COMMANDS:
        _warn(arguments.notices)
    try:
        status = nxcc.main(arguments.words, "nxcc", standalone_mode=False, obj=arguments.notices)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        command = context.command_path if context is not None else "nxcc"
        raise CompileError(USAGE, error.format_message().rstrip("."), remedy=f"see `{command} --help`") from None
    except click.Abort:
        raise KeyboardInterrupt from None
    return status if isinstance(status, int) else 0


def _declared(*roles: Role) -> Callable[[Command], Command]:
    """The declared compile options of these roles as click options."""
    def decorate(command: Command) -> Command:
        for name, row in reversed(DECLARED.items()):
            if row.role in roles:
                command = _click_option(name, row)(command)
        return command
    return decorate


def _click_option(name: str, row: Option) -> Callable[[Command], Command]:
    default = CompileOptions.__dataclass_fields__[name].default
    flags = (*row.flags, name)
    if row.kind is Kind.FLAG:
        return click.option(*flags, is_flag=True, help=row.help)
    metavar = row.metavar or "|".join(row.choices)
    shown = f"{row.help}  [default: {default}]" if default and row.kind is not Kind.LEVEL else row.help
    return click.option(*flags, default=default, metavar=metavar, type=FILES.get(row.kind), multiple=row.many, help=shown,
                        callback=lambda context, parameter, value: _checked(row, value, default))


def _checked(row: Option, value: Any, default: Any) -> Any:
    return choice_value(row, value) if row.kind is Kind.CHOICE and value != default else value


def _json_flag(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help=DECLARED["json"].help)(command)


def _print_json(command: str, body: dict[str, Any]) -> None:
    import json
    click.echo(json.dumps({"schema": JSON_SCHEMA, "command": command, **body}, sort_keys=True, allow_nan=False))


def _warn(notices: Sequence[str]) -> None:
    for notice in notices:
        click.echo(f"nxcc: warning: {notice}", err=True)


def _show(command: str, body: dict[str, Any], lines: Callable[[dict[str, Any]], list[str]], as_json: bool) -> None:
    _warn(body.get("notices", ()))
    if as_json:
        _print_json(command, body)
    else:
        for line in lines(body):
            click.echo(line, err=stdout_is_taken())


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "--version", "-V", package_name="nxcc")
def nxcc() -> None:
    """Compile models for AWS NeuronCores, and check every compile without a chip.

    A model is a serialized HloModuleProto or HloProto, HLO text, or a TensorFlow GraphDef or SavedModel. Exit status: 0 done,
    1 the input or the machine cannot do it, 2 wrong usage, 70 an error inside nxcc, 130 interrupted.
    """


@nxcc.command("compile")
@click.argument("model", type=_INPUT)
@_declared(Role.CODE, Role.REPORT, Role.VENDOR)
@click.pass_obj
def compile_command(notices: list[str], /, model: str, **values: Any) -> int:
    """Compile MODEL into a NEFF. The options of `neuronx-cc compile` and `neuron-cc compile` are understood."""
    from nxcc.compiler.cache.compiling import compile_session
    return compile_session(model, CompileOptions(**values), notices, _print_json)


@nxcc.command()
@click.argument("model", type=_INPUT)
@_declared(Role.CODE, Role.REPORT, Role.VENDOR)
@click.pass_obj
def check(notices: list[str], /, model: str, **values: Any) -> int:
    """Say what compiling MODEL would give: regions, what falls back to the host and why, memory. Writes nothing."""
    from nxcc.compiler.cache.compiling import compile_session
    return compile_session(model, CompileOptions(**values | {"query_compute": True}), notices, _print_json)


@nxcc.command()
@click.argument("file", type=_INPUT)
@_INPUTS
@click.option("--outputs", type=_OUTPUT, metavar="OUT.npz", help="Where to write output0.. .")
@click.option("--weights", type=_INPUT, metavar="W", help="Values of declared weights, by parameter number or name.")
@_STRICT
@click.option("--target", metavar=_TARGETS, help="Refuse a NEFF for another target.")
@_SEED
@click.option("--timing", is_flag=True, help="Show the CPU seconds of loading and running.")
@_TIME_LIMIT
@_json_flag
def run(file: str, as_json: bool, **values: Any) -> int:
    """Load FILE.neff into the simulator and run it once."""
    from nxcc.compiler.session import RunRequest, run_lines, run_session
    _show("run", run_session(RunRequest(file, **values)), run_lines, as_json)
    return 0


@nxcc.command()
@click.argument("file", type=_INPUT, metavar="MODEL|FILE.neff")
@_INPUTS
@click.option("--expected", type=_INPUT, metavar="EXP.npz", help="Compare with output0.. of this file instead of the oracle.")
@click.option("--tolerance", type=Finite(min=0), metavar="T", help="Largest error relative to an output's own scale.")
@_STRICT
@_SEED
@_TIME_LIMIT
@_declared(Role.CODE)
@_json_flag
def verify(file: str, inputs: str | None, expected: str | None, tolerance: float | None, strict: bool, seed: int,
           time_limit: float | None, as_json: bool, **values: Any) -> int:
    """Run a model or a NEFF in the simulator and compare each output with the oracle or with given values."""
    from nxcc.compiler.verify import VerifyRequest, verify_file, verify_lines
    request = VerifyRequest(file, CompileOptions(**values), inputs, expected, tolerance, strict, seed, time_limit,
                            has_target=is_given("target"))
    body = verify_file(request)
    _show("verify", body, verify_lines, as_json)
    return 0 if body["passed"] else 1


@nxcc.command()
@click.argument("file", type=_INPUT, metavar="FILE.neff")
@_TRIPS
@click.option("--busy-cores", type=_AT_LEAST_ONE, default=None,
              help="Cores of the chip that are at work and share its memory; default: all.")
@click.option("--advice/--no-advice", default=True, show_default=True,
              help="Try changes to flags and model, and say what the three best would gain.")
@_json_flag
def estimate(file: str, trips: int, busy_cores: int | None, advice: bool, as_json: bool) -> int:
    """Predict how long one call of FILE.neff takes on the chip, and what bounds it."""
    from nxcc.compiler.reports.estimate import estimate_file, estimate_lines
    _show("estimate", estimate_file(file, trips, busy_cores=busy_cores or 0, advice=advice), estimate_lines, as_json)
    return 0


@nxcc.command()
@click.argument("files", type=_INPUT, nargs=-1, required=True, metavar="FILE.neff [OTHER.neff]")
@click.option("--output", "-o", "page", type=_OUTPUT, default="", metavar="PAGE.html",
              help="Write a self-contained page: timeline, roofline, memory, tables; of two files: what changed.")
@click.option("--trace", type=_OUTPUT, default="", metavar="FILE.json", help="Write a Chrome/Perfetto trace.")
@click.option("--text", is_flag=True, help="Tables for the terminal; this is the default.")
@_TRIPS
@_json_flag
def profile(files: tuple[str, ...], page: str, trace: str, text: bool, trips: int, as_json: bool) -> int:
    """Predicted times of FILE.neff by layer, HLO instruction and engine, and a timeline; of two files: what changed."""
    from nxcc.compiler.reports.comparison import compare_files, comparison_lines
    from nxcc.compiler.reports.profile import ProfileRequest, profile_file, profile_lines
    if text and as_json:
        raise CompileError(USAGE, "--text and --json exclude each other")
    if len(files) > 2 or (len(files) == 2 and trace):
        raise CompileError(USAGE, "a trace shows one file" if trace else f"{len(files)} files",
                           remedy="profile one file, or compare two")
    if len(files) == 2:
        _show("profile", compare_files(*files, page, trips), comparison_lines, as_json)
    else:
        _show("profile", profile_file(ProfileRequest(files[0], trace, page, trips)), profile_lines, as_json)
    return 0


@nxcc.command()
@click.argument("file", type=_INPUT, metavar="FILE.neff")
@click.option("--extract", type=_PLACE, metavar="DIR", help="Write all members under this folder.")
@click.option("--memory", is_flag=True, help="List the variables with their places.")
@click.option("--weights", is_flag=True, help="List declared weights and constants.")
@_json_flag
def info(file: str, extract: str | None, memory: bool, weights: bool, as_json: bool) -> int:
    """What is in a NEFF: which compiler, options, inputs, outputs, nodes, memory. Reads the vendor's files too."""
    from nxcc.compiler.reports.info import info_file, info_lines
    _show("info", info_file(file, extract=extract, memory=memory, weights=weights), info_lines, as_json)
    return 0


@nxcc.command()
@click.argument("file", type=_INPUT, metavar="FILE.neff")
@click.option("--engine", "engines", multiple=True, metavar="PE|Activation|DVE|Pool|SP", help="Only this engine (repeatable).")
@click.option("--hlo", metavar="NAME",
              help="Only functions with code of this HLO instruction, or of the region that it is part of.")
def disasm(file: str, engines: tuple[str, ...], hlo: str | None) -> int:
    """The machine code of FILE.neff as text, beside the HLO instruction that each part comes from."""
    from nxcc.compiler.reports.info import disassemble
    for line in disassemble(file, engines, hlo):
        click.echo(line)
    return 0


@nxcc.command()
@click.argument("model", type=_INPUT, required=False)
@click.option("--output", "-o", type=_OUTPUT, help="Where to write; default: text to stdout.")
@click.option("--passes", metavar="P1,P2", help="Passes to run in this order; default: none, so that formats are converted.")
@click.option("--all-passes", is_flag=True, help="Run the whole pipeline.")
@click.option("--emit", metavar="|".join(_FORMATS), default=_FORMATS[0], show_default=True,
              callback=lambda context, parameter, value: check_value("--emit", value, _FORMATS))
@click.option("--list", "list_passes", is_flag=True, help="Print the names of all passes, in order.")
@_declared(Role.CODE)
def opt(model: str | None, output: str | None, passes: str | None, all_passes: bool, emit: str, list_passes: bool,
        **values: Any) -> int:
    """Read MODEL, run passes, write it as HLO text or binary."""
    from nxcc.compiler.convert import convert, pass_list
    if list_passes:
        click.echo("\n".join(pass_list()))
        return 0
    if model is None:
        raise CompileError(USAGE, "Missing argument 'MODEL'", remedy="see `nxcc opt --help`")
    text = convert(model, output, None if all_passes else passes or "", emit, CompileOptions(**values))
    if text is not None:
        click.echo(text, nl=False)
    return 0


@nxcc.command()
@click.argument("model", type=_INPUT)
@_INPUTS
@_STRICT
@_SEED
@click.option("--trials", type=_AT_LEAST_ONE, default=500, show_default=True, help="Instructions to try alone at most.")
@_declared(Role.CODE)
@_json_flag
def bisect(model: str, inputs: str | None, strict: bool, seed: int, trials: int, as_json: bool, **values: Any) -> int:
    """Find the pass or the instruction that makes MODEL fail or its results differ from the oracle's."""
    from nxcc.compiler.debugging.bisect import bisect_file, bisect_lines
    from nxcc.compiler.debugging.reduce import Start
    body = bisect_file(Start(model, CompileOptions(**values), inputs, strict, seed), trials)
    _show("bisect", body, bisect_lines, as_json)
    return 0 if body["verdict"] == "agrees" else 1


@nxcc.command()
@click.argument("model", type=_INPUT)
@click.option("--output", "-o", type=_PLACE, required=True, metavar="OUT.hlo", help="The reduced module; inputs go beside it.")
@_INPUTS
@click.option("--test", "command", default="", metavar="COMMAND",
              help="A module fails if COMMAND FILE exits as it does for MODEL; default: if it ends in the same verdict.")
@_STRICT
@_SEED
@click.option("--trials", type=_AT_LEAST_ONE, default=500, show_default=True, help="Modules to try at most.")
@_declared(Role.CODE)
@_json_flag
def reduce(model: str, output: str, inputs: str | None, command: str, strict: bool, seed: int, trials: int, as_json: bool,
           **values: Any) -> int:
    """Write the smallest module found that fails as MODEL does, and inputs with which it fails."""
    from nxcc.compiler.debugging.reduce import Start, reduce_file, reduce_lines
    start = Start(model, CompileOptions(**values), inputs, strict, seed)
    _show("reduce", reduce_file(start, output, command, trials), reduce_lines, as_json)
    return 0


@nxcc.group(cls=Commands)
def cache() -> None:
    """Show and clean the compile cache.

    `nxcc compile` uses it with --cache, --cache-dir DIR, or where NXCC_CACHE_DIR names a folder. A hit has the bytes that
    compiling again would give.
    """


def _cache_command(name: str) -> Callable[[Command], click.Command]:
    """A command of the group, with the folder it works on and --json."""
    def decorate(command: Command) -> click.Command:
        folder = click.option("--cache-dir", "folder", type=_PLACE, metavar="DIR", envvar="NXCC_CACHE_DIR",
                              help="Folder of the cache; default: NXCC_CACHE_DIR, else the user's cache folder.")
        return cache.command(name)(folder(_json_flag(command)))
    return decorate


def _cached(command: str, folder: str | None, as_json: bool, **values: Any) -> int:
    from nxcc.compiler.cache.report import cache_lines, cache_report
    _show(f"cache {command}", cache_report(command, folder, **values), cache_lines, as_json)
    return 0


@_cache_command("list")
def cache_list(**values: Any) -> int:
    """The entries, the least recently used first, and what they take."""
    return _cached("list", **values)


cache.add_command(cache_list, "show")


@_cache_command("clear")
def cache_clear(**values: Any) -> int:
    """Remove all entries."""
    return _cached("clear", **values)


@_cache_command("prune")
@click.option("--max-size", metavar="SIZE", default="", help="Keep at most this much, as in 500M or 2G.")
@click.option("--older", metavar="AGE", default="", help="Remove what was not used for this long, as in 12h or 30d.")
def cache_prune(**values: Any) -> int:
    """Remove entries that are too old, and the least recently used ones above a size; default: 4G."""
    return _cached("prune", **values)


@_cache_command("verify")
def cache_verify(**values: Any) -> int:
    """Compare every entry with its digest, and remove damaged ones."""
    return _cached("verify", **values)


@_cache_command("why")
@click.argument("a")
@click.argument("b")
def cache_why(**values: Any) -> int:
    """The first difference between the keys of two entries, A and B: starts of their digests."""
    return _cached("why", **values)


@nxcc.command("list-operators")
@click.option("--framework", default="XLA", show_default=True, metavar="XLA|TENSORFLOW|HLO",
              help="Spelling: XlaBuilder's, GraphDef's, or opcodes.")
@click.option("--target", default="v2", show_default=True, metavar=_TARGETS)
@_json_flag
def list_operators(framework: str, target: str, as_json: bool) -> int:
    """The operators that run on the device, one name a line."""
    from nxcc.compiler.reports.operators import operator_lines, operator_report
    _show("list-operators", operator_report(framework, target, as_json), operator_lines, as_json)
    return 0


@nxcc.command()
@click.argument("words", nargs=-1, metavar="[NAME | cost INSTRUCTION | json COMMAND]")
@click.option("--target", default="v2", show_default=True, metavar=_TARGETS, help="Whose constants a cost is explained with.")
def explain(words: tuple[str, ...], target: str) -> int:
    """Explain a diagnostic code (ours or NCC_...), an HLO operator or a machine instruction; without NAME: list codes.

    `explain cost INSTRUCTION` says what a machine instruction, or the call of the host (`host`), costs: formula, constants,
    sources; without a name, all formulas. `explain json COMMAND` lists the keys that COMMAND --json prints.
    """
    from nxcc.compiler.reports.explain import explain_lines
    for line in explain_lines(words, target):
        click.echo(line)
    return 0
