"""What every command of the command line has: values that say something, files that do not share a standard stream."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import click
from click.core import ParameterSource

from nxcc.compiler.files.outputs import check_streams
from nxcc.compiler.options import PATHS, Kind
from nxcc.ir.diagnostics import USAGE, CompileError, one_of
from nxcc.ir.streams import STANDARD

_STDOUT_TAKEN = "nxcc.stdout"
_JSON = ("json", "as_json")


class Finite(click.FloatRange):
    """A number; neither NaN, which compares with nothing, nor an infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no number that anything can be compared with", param, ctx)
        return number


class File(click.ParamType[str]):
    """The name of a file or folder, which is looked at when the command opens it."""

    name = "path"

    def __init__(self, kind: Kind) -> None:
        self.kind = kind


FILES = {kind: File(kind) for kind in PATHS}


class Command(click.Command):
    """A command that refuses empty values, and two files on one standard stream: CompileError(USAGE)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`-o=FILE` is `-o FILE` in every command; click takes the sign for part of the name."""
        short = {f"{word}=" for parameter in self.params for word in parameter.opts if len(word) == 2}
        end = args.index("--") if "--" in args else len(args)
        words = [part for word in args[:end] for part in ((word[:2], word[3:]) if word[:3] in short else (word,))]
        return super().parse_args(ctx, words + args[end:])

    def invoke(self, ctx: click.Context) -> Any:
        files = [("--json", Kind.OUTPUT, STANDARD)] if any(map(ctx.params.get, _JSON)) else []
        for parameter, word in self._given(ctx):
            called = max(parameter.opts, key=len) if isinstance(parameter, click.Option) else parameter.human_readable_name
            if word == "":
                raise CompileError(USAGE, f"{called} is empty", remedy="give a value, or leave it out")
            if isinstance(parameter.type, File):
                files.append((called, parameter.type.kind, word))
        ctx.meta[_STDOUT_TAKEN] = check_streams(files)
        return super().invoke(ctx)

    def _given(self, ctx: click.Context) -> Iterator[tuple[click.Parameter, Any]]:
        """What the command line says: each option or argument with each of its values."""
        for parameter in self.params:
            if ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
                value = ctx.params.get(parameter.name or "")
                for word in value if isinstance(value, tuple) else (value,):
                    yield parameter, word


def is_given(name: str) -> bool:
    """Whether the command line says a value for a parameter of the running command, be it the default."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def stdout_is_taken() -> bool:
    """Whether a file that the running command writes comes out of the standard output."""
    return bool(click.get_current_context().meta[_STDOUT_TAKEN])


class Commands(click.Group):
    """The commands, the nearest of which is named for one that does not exist."""

    command_class = Command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise CompileError(USAGE, f"no command is named {args[0]!r}", remedy=one_of(args[0], self.commands))
        return super().resolve_command(ctx, args)
