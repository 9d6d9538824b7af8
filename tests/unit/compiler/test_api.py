from importlib.metadata import version

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
    assert caught.value.code is USAGE
