"""Which casts a compile makes: what the user asked for, the target's default, and what its tensor engine cannot do without.

The vendor's words (`--fast-math`, `--fp32-cast`) become `--auto-cast`, `--auto-cast-type` and `--relayout` in `arguments`.
"""

from __future__ import annotations

from dataclasses import replace

from nxcc.backends.isa.program import Engine
from nxcc.backends.target import Target
from nxcc.compiler.options import CompileOptions
from nxcc.ir.diagnostics import USAGE, CompileError
from nxcc.ir.dtypes import F32
from nxcc.passes.dtypes.autocast import TYPES

NONE, PRODUCTS = "none", "matmult"

WORDS = {"none": "no f32 operator is cast", "matmult": "f32 matrix products and convolutions compute in {type}",
         "all": "f32 operators compute in {type} where they bear it"}
RELAYOUT = {
    "": "the default: where products read little in all, transposes move elements one by one, else they may use the tensor "
        "engine",
    "fast": "transposes may use the tensor engine, in the dtype that it multiplies: no bit is lost, except beside a NaN or an "
            "infinity",
    "exact": "transposes move elements one by one, which is exact and slow",
}


def resolved(options: CompileOptions, target: Target) -> CompileOptions:
    """The options with what they leave open decided; CompileError(USAGE) for a type that the target does not multiply."""
    defaults = target.features.default_cast
    mode, word = options.auto_cast or defaults["mode"], options.auto_cast_type or defaults["type"]
    if mode == NONE and must_cast(target):
        mode = PRODUCTS
    if mode != NONE and not multiplies(target, word):
        known = ", ".join(name for name in (*TYPES, "tf32") if multiplies(target, name))
        raise CompileError(USAGE, f"--auto-cast-type cannot be {word} on {target.name}",
                           why=f"its tensor engine multiplies {known}", remedy=f"one of {known}")
    return replace(options, auto_cast=mode, auto_cast_type=word)


def must_cast(target: Target) -> bool:
    """Whether the tensor engine has no f32 products, so that their operands are always cast."""
    return F32 not in target.engines[Engine.PE].dtypes


def multiplies(target: Target, word: str) -> bool:
    """Whether the tensor engine multiplies a type of --auto-cast-type."""
    return word in target.tensor.passes if word == "tf32" else TYPES[word] in target.engines[Engine.PE].dtypes


def notices(asked: CompileOptions, options: CompileOptions, target: Target) -> list[tuple[bool, str]]:
    """What to say of the casts that a compile makes; True where the user asked for something else."""
    origin = "" if asked.auto_cast else f" (the default on {target.name})"
    turned = (False, f"relayout: {RELAYOUT[options.relayout]}")
    if asked.auto_cast == NONE and options.auto_cast != NONE:
        return [(True, f"{target.name} has no f32 matrix products: their operands are cast to {options.auto_cast_type} "
                       "in spite of --auto-cast none"), turned]
    found = [(False, f"casts: {cast_words(options)}{origin}; sums stay in f32, inputs and outputs keep their types")]
    if asked.auto_cast_type and options.auto_cast == NONE:
        found.append((True, f"--auto-cast-type {asked.auto_cast_type} has no effect: --auto-cast none casts nothing"))
    return [*found, turned]


def cast_words(options: CompileOptions) -> str:
    """What is cast, in words; options: resolved."""
    return WORDS[options.auto_cast].format(type=options.auto_cast_type)
