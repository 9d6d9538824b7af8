"""The command line as users and frameworks write it, brought into one plain form before click reads it.

Decided here: `@FILE`, options that stand before the command, the vendor's spellings and values, options that mean nothing
here (accepted with one line), unknown ones (an error with the nearest name). What an option means is declared in
`options`. Source: CLI and NEFF reference, sections 1.1, 1.2, 3.1 and 3.3.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import field

from nxcc.compiler.files.outputs import default_output
from nxcc.compiler.options import (
    ACCEPTED,
    ACCEPTED_PREFIXES,
    BY_FLAG,
    FAST_MATH,
    FAST_MATH_CASTS,
    FAST_MATH_PRESETS,
    FAST_MATH_RELAYOUTS,
    FP32_CAST,
    REPLACED,
    VERBOSITY,
    Accepted,
    Kind,
    Option,
    Takes,
    verbosity,
)
from nxcc.ir.diagnostics import USAGE, CompileError, near, one_of
from nxcc.ir.facts import dataclass

COMPILE_COMMANDS = ("compile", "check")
COMPILING_COMMANDS = ("verify", "opt", "bisect", "reduce")
"""Commands that take the options of a compile beside their own."""
SAVE_TEMPS = "SaveTemps"
PIPELINE_WORDS = ("compile", SAVE_TEMPS, "tensorize", "codegen", "schedule")
MAX_FILE_DEPTH = 8
_NONE: Mapping[str, str] = {}
MAX_FILE_BYTES = 1 << 20


@dataclass
class Arguments:
    """A command line in plain form: words that click understands, and what to tell the user about the rest."""

    words: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def prepare(words: Sequence[str], commands: Sequence[str], environment: str = "") -> Arguments:
    """Bring a command line into plain form.

    commands: names of all commands. environment: what NEURON_CC_FLAGS holds, read only under --env-flags.
    Words of commands that do not compile stay as they are.
    Raises CompileError(USAGE).
    """
    expanded = _expand_files(list(words), 0)
    index = _command_index(expanded, commands)
    if index is None or expanded[index] not in COMPILE_COMMANDS + COMPILING_COMMANDS:
        return Arguments(expanded)
    command, rest = expanded[index], expanded[:index] + expanded[index + 1:]
    if "--env-flags" in rest:
        rest = _split(environment, "NEURON_CC_FLAGS") + rest
    found = Arguments([command])
    _Rewriter(rest, found, command in COMPILE_COMMANDS).run()
    return found


def _expand_files(words: list[str], depth: int) -> list[str]:
    """Replace each `@FILE` by the words of that file."""
    found: list[str] = []
    for word in words:
        if not word.startswith("@") or word == "@":
            found.append(word)
            continue
        path = word[1:]
        if depth == MAX_FILE_DEPTH:
            raise CompileError(USAGE, f"argument files are nested deeper than {MAX_FILE_DEPTH}", path)
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read(MAX_FILE_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            raise CompileError(USAGE, f"argument file {path!r} cannot be read", why=str(error)) from None
        found += _expand_files(_split(text, path), depth + 1)
    return found


def _split(text: str, where: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise CompileError(USAGE, "arguments cannot be split into words", where, why=str(error)) from None


def _command_index(words: list[str], commands: Sequence[str]) -> int | None:
    """Where the command stands: the first word that is no option and no option's value."""
    skip = False
    for index, word in enumerate(words):
        if skip:
            skip = False
        elif word.startswith("-") and word != "-":
            skip = _wants_next(word) and words[index + 1:index + 2] != []
            skip = skip and not (words[index + 1] in commands and word.startswith("--verbose"))
        else:
            return index if word in commands else None
    return None


def _wants_next(word: str) -> bool:
    """Whether an option in this spelling takes the next word as its value."""
    if "=" in word:
        return False
    known = BY_FLAG.get(word)
    if known:
        return known[1].kind is not Kind.FLAG
    row = ACCEPTED.get(word)
    return row is not None and row.takes is Takes.VALUE


class _Rewriter:
    """Walks the words once; each kind of option has its own step.

    is_whole: every option is known here. Else the command has others of its own, and their words stay where they are.
    """

    def __init__(self, words: list[str], found: Arguments, is_whole: bool) -> None:
        self.words = words
        self.position = 0
        self.found = found
        self.is_whole = is_whole
        self.fp32_cast_given = False
        self.saves_temps = False

    def run(self) -> None:
        files: list[str] = []
        while self.position < len(self.words):
            word = self._next()
            if word == "--":
                files += self.words[self.position:]
                break
            if word != "-" and word.startswith("-"):
                self._option(word)
            else:
                (files if self.is_whole else self.found.words).append(word)
        if self.saves_temps:
            self._keep_temps(files)
        if files or self.is_whole:
            self.found.words += ["--", *files]

    def _keep_temps(self, files: Sequence[str]) -> None:
        """A work folder beside the output, unless one is given or nothing is written."""
        words = self.found.words
        if words[0] == "check" or "--query-compute" in words or any(word.startswith("--workdir=") for word in words):
            return
        outputs = [word.partition("=")[2] for word in words if word.startswith("--output=")]
        folder = f"{(outputs or [default_output(file) for file in files[:1]] or ['file'])[-1].removesuffix('.neff')}.temps"
        words.append(f"--workdir={folder}")
        self.found.notices.append(f"--pipeline {SAVE_TEMPS} keeps every stage's text in {folder}; --workdir chooses another")

    def _next(self) -> str:
        word = self.words[self.position]
        self.position += 1
        return word

    def _value(self, name: str, attached: str | None) -> str:
        if attached is not None:
            return attached
        if self.position == len(self.words):
            raise CompileError(USAGE, f"option {name} needs a value")
        return self._next()

    def _option(self, word: str) -> None:
        name, separator, value = word.partition("=")
        attached = value if separator else None
        name, attached = _optlevel_spelling(name, attached)
        if name in ("--help", "-h"):
            self.found.words.append("--help")
        elif name in BY_FLAG or name.replace("_", "-") in BY_FLAG:
            self._declared(name if name in BY_FLAG else name.replace("_", "-"), attached)
        elif name in _SPECIAL:
            _SPECIAL[name](self, attached)
        elif name in REPLACED:
            word, why = REPLACED[name]
            self.found.words.append(word)
            self.found.notices.append(f"{name} means {word}: {why}")
        elif self.is_whole or _is_accepted(name):
            self._accepted(name, attached)
        else:
            self.found.words.append(word)

    def _declared(self, flag: str, attached: str | None) -> None:
        _, row = BY_FLAG[flag]
        if row.kind is Kind.FLAG:
            if attached not in (None, "true", "True", "1"):
                raise CompileError(USAGE, f"option {flag} takes no value, {attached!r} was given")
            self.found.words.append(row.name)
        elif row.kind is Kind.LEVEL:
            self.found.words.append(f"{row.name}={self._level(attached)}")
        else:
            self.found.words.append(f"{row.name}={choice_value(row, self._value(flag, attached))}")

    def _level(self, attached: str | None) -> str:
        if attached is None:
            following = self.words[self.position:self.position + 1]
            if not following or verbosity(following[0]) is None:
                return "info"
            attached = self._next()
        if verbosity(attached) is None:
            raise CompileError(USAGE, f"--verbose takes no level {attached!r}",
                               remedy=f"{one_of(attached, VERBOSITY)}, or a number")
        return attached

    def _accepted(self, name: str, attached: str | None) -> None:
        row = ACCEPTED.get(name) or ACCEPTED.get(name.replace("_", "-"))
        if row is None and name.startswith(ACCEPTED_PREFIXES):
            row = Accepted("it is one of the vendor's internal options", Takes.NOTHING)
        if row is None:
            raise unknown_option(name)
        values = self._accepted_values(row, name, attached)
        for value in values:
            check_value(name, value, row.known, row.refused, row.many)
        if not (values or self.saves_temps) or any(value not in row.silent for value in values):
            self.found.notices.append(f"{' '.join([name, *values])} is accepted and has no effect: {row.why}")

    def _accepted_values(self, row: Accepted, name: str, attached: str | None) -> list[str]:
        if row.takes is Takes.VALUE:
            return [self._value(name, attached)]
        values = [] if attached is None else [attached]
        if row.takes is Takes.WORDS:
            values += self._words(PIPELINE_WORDS)
        if SAVE_TEMPS in values:
            self.saves_temps = True
            values.remove(SAVE_TEMPS)
        return values

    def _words(self, known: Sequence[str]) -> list[str]:
        found = []
        while self.position < len(self.words) and self.words[self.position] in known:
            found.append(self._next())
        return found

    def _set_cast(self, cast: tuple[str, str]) -> None:
        self.found.words += [f"--auto-cast={cast[0]}", f"--auto-cast-type={cast[1]}"]

    def fp32_cast(self, attached: str | None) -> None:
        word = self._value("--fp32-cast", attached)
        if word not in FP32_CAST:
            raise CompileError(USAGE, f"--fp32-cast cannot be {word!r}", remedy=one_of(word, tuple(FP32_CAST)))
        self.fp32_cast_given = True
        self._set_cast(FP32_CAST[word])

    def fast_math(self, attached: str | None) -> None:
        words = [] if attached is None else attached.split()
        words += self._words(tuple(FAST_MATH))
        for word in words or self.words[self.position:self.position + 1] or [""]:
            if word not in FAST_MATH:
                raise CompileError(USAGE, f"--fast-math cannot be {word!r}", remedy=one_of(word, FAST_MATH))
        presets = [word for word in words if word in FAST_MATH_PRESETS]
        casts = [word for word in words if word in FAST_MATH_CASTS]
        relayouts = [word for word in words if word in FAST_MATH_RELAYOUTS]
        if max(len(set(presets)), len(set(casts)), len(set(relayouts))) > 1:
            raise CompileError(USAGE, f"words of --fast-math exclude each other: {' '.join(words)}", remedy="give one of them")
        chosen = [FAST_MATH_CASTS[word] for word in casts] or [FAST_MATH_PRESETS[word][0] for word in presets]
        if chosen and not self.fp32_cast_given:
            self._set_cast(FP32_CAST[chosen[0]])
        turns = [FAST_MATH_RELAYOUTS[word] for word in relayouts] or [FAST_MATH_PRESETS[word][1] for word in presets]
        self.found.words += [f"--relayout={word}" for word in turns[:1]]


_SPECIAL = {"--fp32-cast": _Rewriter.fp32_cast, "--fast-math": _Rewriter.fast_math}


def _is_accepted(name: str) -> bool:
    """Whether an option is one that is accepted and does nothing."""
    return name in ACCEPTED or name.replace("_", "-") in ACCEPTED or name.startswith(ACCEPTED_PREFIXES)


def _optlevel_spelling(name: str, attached: str | None) -> tuple[str, str | None]:
    """`-O1` and `--O1` as `--optlevel=1`."""
    for prefix in ("--O", "-O"):
        digits = name.removeprefix(prefix)
        if name.startswith(prefix) and digits.isdigit():
            return "--optlevel", digits
    return name, attached


def choice_value(row: Option, value: str) -> str:
    """The value after synonyms; CompileError(USAGE) for one that is refused or no choice."""
    return check_value(row.name, row.canonical(value), row.choices, row.refused)


def check_value(name: str, value: str, known: Sequence[str], refused: Mapping[str, str] = _NONE, many: bool = False) -> str:
    """The value; CompileError(USAGE) for a value that is refused, or none of the known ones where there are such.

    many: the value is a list of them, with commas between.
    """
    for part in value.split(",") if many else (value,):
        if part in refused:
            raise CompileError(USAGE, f"option {name} cannot be {part}", why=refused[part])
        if known and part not in known:
            raise CompileError(USAGE, f"option {name} cannot be {part!r}", remedy=one_of(part, known))
    return value


def unknown_option(name: str) -> CompileError:
    """The error for an option that nobody declared, with the nearest name."""
    known = [*BY_FLAG, *REPLACED, *ACCEPTED, *_SPECIAL]
    return CompileError(USAGE, f"no option is named {name}", remedy=near(name, known, 0.5))


def environment_flags() -> str:
    """What NEURON_CC_FLAGS holds; looked at only when --env-flags asks for it."""
    return os.environ.get("NEURON_CC_FLAGS", "")
