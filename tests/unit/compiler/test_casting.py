"""The documented words about casts, the defaults of each target, and what a tensor engine cannot do without."""

from __future__ import annotations

import pytest

from nxcc.backends.target import load_target
from nxcc.compiler.choices.casting import notices, resolved
from nxcc.compiler.console.arguments import prepare
from nxcc.compiler.options import CompileOptions, options_from
from nxcc.ir.diagnostics import CompileError


def words(line: str) -> dict[str, str]:
    """The last value of each option that a line becomes."""
    found = prepare(f"compile m {line}".split(), ("compile",)).words
    return dict(word.removeprefix("--").split("=", 1) for word in found if "=" in word)


@pytest.mark.parametrize(("line", "mode", "word", "relayout"), [
    ("--fast-math all", "all", "bf16", "fast"),
    ("--fast-math none", "matmult", "bf16", "exact"),
    ("--fast-math fp32-cast-all", "all", "bf16", None),
    ("--fast-math fp32-cast-all-fp16", "all", "fp16", None),
    ("--fast-math fp32-cast-matmult", "matmult", "bf16", None),
    ("--fast-math fp32-cast-matmult-bf16", "matmult", "bf16", None),
    ("--fast-math=fp32-cast-matmult-fp16", "matmult", "fp16", None),
    ("--fast-math fp32-cast-matmult no-fast-relayout", "matmult", "bf16", "exact"),
    ("--fast-math none fast-relayout", "matmult", "bf16", "fast"),
    ("--fast-math all fp32-cast-matmult-fp16", "matmult", "fp16", "fast"),
    ("--fp32-cast all", "all", "bf16", None),
    ("--fp32-cast=all-fp16", "all", "fp16", None),
    ("--fast-math=none --fp32-cast=matmult-fp16", "matmult", "fp16", "exact"),
    ("--fp32-cast=matmult-fp16 --fast-math=all", "matmult", "fp16", "fast"),
])
def test_words_of_neuron_cc(line: str, mode: str, word: str, relayout: str | None) -> None:
    found = words(line)
    assert (found["auto-cast"], found["auto-cast-type"], found.get("relayout")) == (mode, word, relayout)


@pytest.mark.parametrize("line", ["--fast-math all none", "--fast-math fp32-cast-all fp32-cast-matmult",
                                  "--fast-math fast-relayout no-fast-relayout", "--fp32-cast none"])
def test_words_that_exclude_each_other(line: str) -> None:
    with pytest.raises(CompileError):
        words(line)


@pytest.mark.parametrize(("target", "asked", "mode"), [
    ("v1", "", "all"), ("v1", "none", "matmult"), ("v1", "matmult", "matmult"), ("v2", "", "none"), ("v2", "none", "none"),
])
def test_defaults_and_needs_of_a_target(target: str, asked: str, mode: str) -> None:
    options = resolved(options_from(target=target, auto_cast=asked), load_target(target))
    assert (options.auto_cast, options.auto_cast_type) == (mode, "bf16")
    assert resolved(options, load_target(target)) == options


@pytest.mark.parametrize("word", ["tf32", "fp8_e4m3"])
def test_types_that_v1_does_not_multiply(word: str) -> None:
    with pytest.raises(CompileError, match="multiplies bf16, fp16"):
        resolved(options_from(target="v1", auto_cast="matmult", auto_cast_type=word), load_target("v1"))


def test_the_log_says_what_is_cast() -> None:
    target = load_target("v1")
    asked = CompileOptions(target="v1")
    (is_warning, text), (_, turned) = notices(asked, resolved(asked, target), target)
    assert not is_warning and "default on v1" in text and "bf16" in text
    assert turned.startswith("relayout: the default")
    asked = CompileOptions(target="v1", auto_cast="none")
    (is_warning, text), _ = notices(asked, resolved(asked, target), target)
    assert is_warning and "no f32 matrix products" in text


def test_a_type_that_nothing_is_cast_to_is_said() -> None:
    target = load_target("v2")
    asked = CompileOptions(auto_cast_type="fp16")
    said = [text for is_warning, text in notices(asked, resolved(asked, target), target) if is_warning]
    assert said == ["--auto-cast-type fp16 has no effect: --auto-cast none casts nothing"]


def test_relayout_is_recorded_only_if_given() -> None:
    assert "relayout" not in CompileOptions().effective()
    assert CompileOptions(relayout="exact").effective()["relayout"] == "exact"
