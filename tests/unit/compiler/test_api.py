"""The Python API: the verbs of the command line, with the same errors."""

from importlib.metadata import version
from pathlib import Path

import numpy as np
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


@pytest.mark.parametrize(("options", "text"), [
    ({"weights": {"0": 1}}, "weights is dict {'0': 1}: it should be the path of a file"),
    ({"weights": 3}, "weights is int 3"),
    ({"output": ["a"]}, "output is list"),
    ({"output": "a\0b"}, "which holds no NUL"),
    ({"optlevel": 9}, "it may be 0, 1, 2, 3"),
    ({"optlevel": True}, "optlevel is bool True"),
    ({"auto_cast": ["all"]}, "auto_cast is list"),
    ({"target": "trn2"}, "target is 'trn2'"),
    ({"json": "yes"}, "json is str 'yes': it should be True or False"),
    ({"jobs": "2"}, "jobs is str '2': it should be an integer"),
    ({"weight_params": 5}, "weight_params is int 5: it should be a text"),
    ({"disable_pass": "fusion"}, "disable_pass is str 'fusion': it should be a list of texts"),
    ({"disable_pass": [1]}, "disable_pass is int 1: it should be a text"),
    ({"verbose": "loud"}, "verbose is str 'loud'"),
])
def test_a_value_of_another_type_is_named(options: dict, text: str) -> None:
    with pytest.raises(nxcc.CompileError) as caught:
        nxcc.compile("m.hlo", **options)
    assert text in str(caught.value) and caught.value.code is USAGE


@pytest.mark.parametrize("model", [None, 3, ["m.hlo"], b"m.hlo", "m\0.hlo"])
def test_a_file_is_given_as_a_path(model: object) -> None:
    for verb in (nxcc.compile, nxcc.load):
        with pytest.raises(nxcc.CompileError) as caught:
            verb(model)
        assert caught.value.code is USAGE
    with pytest.raises(nxcc.CompileError, match="cannot read none.hlo"):
        nxcc.compile(Path("none.hlo"), weights=Path("w.npz"), output=None)


@pytest.fixture
def negated(tmp_path: Path) -> nxcc.Model:
    """x and w to w - x, w a declared weight."""
    path = tmp_path / "m.hlo"
    path.write_text("HloModule m\nENTRY e { x = f32[3] parameter(0)  w = f32[3] parameter(1)  ROOT y = f32[3] subtract(w, x) }")
    weights = tmp_path / "w.npz"
    np.savez(weights, **{"1": np.ones(3, np.float32)})
    compiled = nxcc.compile(path, tmp_path / "m.neff", weight_params="1")
    return compiled.load(weights)


def test_inputs_are_what_numpy_makes_arrays_of(negated: nxcc.Model) -> None:
    class Foreign:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return np.float32([1, 2, 3])
    assert negated.inputs == ("input0: f32[3]",) and negated.outputs == ("output0: f32[3]",)
    for given in ([Foreign()], {"input0": Foreign()}, (np.float32([1, 2, 3]),)):
        np.testing.assert_array_equal(negated.run(given)[0], [0, -1, -2])


@pytest.mark.parametrize("inputs", ["in.npz", 5, [None], [["a", "b", "c"]], [[[1], [2, 3]]], [np.array([{}])], {"input0": None},
                                    {"x": np.zeros(3, np.float32)}, [], [np.zeros(3)], [np.zeros(4, np.float32)]])
def test_inputs_that_are_none_are_refused(negated: nxcc.Model, inputs: object) -> None:
    with pytest.raises(nxcc.CompileError):
        negated.run(inputs)


@pytest.mark.parametrize("weights", [5, [1], {1: None}, {"1": "a"}, {1: np.zeros(4, np.float32)}, {2: np.zeros(3, np.float32)},
                                     None])
def test_weights_that_are_none_are_refused(negated: nxcc.Model, tmp_path: Path, weights: object) -> None:
    with pytest.raises(nxcc.CompileError):
        nxcc.load(tmp_path / "m.neff", weights)
    with pytest.raises(nxcc.CompileError, match="strict is str"):
        nxcc.load(tmp_path / "m.neff", strict="no")


def test_a_weight_may_be_called_by_its_number(negated: nxcc.Model, tmp_path: Path) -> None:
    model = nxcc.load(tmp_path / "m.neff", {1: np.zeros(3, np.float32)})
    np.testing.assert_array_equal(model.run([np.float32([1, 2, 3])])[0], [-1, -2, -3])
