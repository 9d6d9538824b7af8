"""The Python API: the verbs of the command line, with the same errors."""

from importlib.metadata import version
from pathlib import Path

import pytest

import nxcc
from nxcc.ir.diagnostics import USAGE, CompileError


def test_the_version_is_that_of_the_package() -> None:
    assert nxcc.__version__ == version("nxcc")


def test_unknown_names_and_options_are_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'compil'"):
        nxcc.compil  # noqa: B018
    with pytest.raises(CompileError, match="did you mean optlevel") as caught:
        nxcc.compile("m.hlo", optlvel=0)
    assert caught.value.code is USAGE and nxcc.CompileError is CompileError


def test_a_file_is_given_as_a_path() -> None:
    with pytest.raises(nxcc.CompileError, match="weights is dict; it is the path of a file"):
        nxcc.compile("m.hlo", weights={"0": 1})
    with pytest.raises(nxcc.CompileError, match="cannot read none.hlo"):
        nxcc.compile("none.hlo", weights=Path("w.npz"))
