"""Host programs in custom calls: what a file may say that is no program, and a program whose result has another size."""

import json

import numpy as np
import pytest

from nxcc.ir.diagnostics import CompileError
from nxcc.ir.hlo.oracle import evaluate
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.texts import ATTRIBUTE, texts_of

GOOD = {"operands": 1, "steps": [["Where", [0], {}]], "result": 1}


def run(config: str, x: list) -> np.ndarray:
    module = read_text('HloModule m\nENTRY main {\n  x = s32[3] parameter(0)\n'
                       '  ROOT r = s64[2,1] custom-call(x), custom_call_target="nxcc.program"\n}\n')
    module.entry.root.backend_config = config.encode()
    return evaluate(module, [np.array(x, np.int32)])


def test_a_program_runs() -> None:
    assert run(json.dumps(GOOD), [4, 0, 1]).tolist() == [[0], [2]]


def test_another_size_than_was_compiled_for_is_an_error() -> None:
    with pytest.raises(CompileError, match=r"gives the size \[1, 1\]"):
        run(json.dumps(GOOD), [4, 0, 0])


@pytest.mark.parametrize("config", ["", "[]", "{}", json.dumps(GOOD | {"steps": [["Where", [-1], {}]]}), "{" * 9000,
                                    json.dumps(GOOD | {"steps": 3}), json.dumps(GOOD | {"steps": [["Nothing", [0], {}]]}),
                                    json.dumps(GOOD | {"result": 9}), json.dumps(GOOD | {"steps": [["Where", [], {}]]})])
def test_what_is_no_program_is_a_clear_error(config: str) -> None:
    with pytest.raises(CompileError):
        run(config, [1, 0, 1])


@pytest.mark.parametrize("words", ["inputs=0", "inputs=0 outputs=0", "inputs=0 outputs=5", "x"])
def test_declared_strings_must_fit_the_module(words: str) -> None:
    module = read_text("HloModule m\nENTRY main {\n  ROOT x = s32[3] parameter(0)\n}\n")
    module.frontend_attributes[ATTRIBUTE] = words
    with pytest.raises(CompileError, match="does not fit the module"):
        texts_of(module)
