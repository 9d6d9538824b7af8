"""The --io-config of a TensorFlow graph."""

import pytest

from nxcc.ir.diagnostics import IO_CONFIG, CompileError
from nxcc.ir.graphdef.io_config import parse_io_config


def test_documented_form_keeps_its_order() -> None:
    text = '{"inputs": {"b/x:0": [[1, 100], "float16"], "a:1": [[], "int64"]}, "outputs": ["y:2", "z"]}'
    config = parse_io_config(text)
    assert [(i.tensor, i.dims, str(i.kind)) for i in config.inputs] == [
        (("b/x", 0), (1, 100), "float16"), (("a", 1), (), "int64")]
    assert config.outputs == (("y", 2), ("z", 0))


@pytest.mark.parametrize("text", [
    "", "[]", "{}", '{"inputs": {}}', '{"inputs": [], "outputs": ["y"]}', '{"inputs": {}, "outputs": []}',
    '{"inputs": {}, "outputs": "y"}', '{"inputs": {"x": [[1]]}, "outputs": ["y"]}',
    '{"inputs": {"x": [[-1], "float32"]}, "outputs": ["y"]}', '{"inputs": {"x": [[1.5], "float32"]}, "outputs": ["y"]}',
    '{"inputs": {"x": [[true], "float32"]}, "outputs": ["y"]}', '{"inputs": {"x": [[1], "float33"]}, "outputs": ["y"]}',
    '{"inputs": {"x:a": [[1], "float32"]}, "outputs": ["y"]}', '{"inputs": {}, "outputs": ["y:-1"]}',
    '{"inputs": {"x": [[1], "int8"], "x": [[1], "int8"]}, "outputs": ["y"]}', '{"inputs": {}, "outputs": ["y"], "more": 1}',
])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(CompileError) as caught:
        parse_io_config(text)
    assert caught.value.code is IO_CONFIG
