"""Canonical JSON out, bounded JSON in."""

from typing import Any

import pytest

from nxcc.ir.diagnostics import NEFF_INVALID, CompileError
from nxcc.neff.canonical_json import dump_json, load_json


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def test_keys_are_sorted_without_blanks_and_one_newline() -> None:
    assert dump_json({"b": [1, {"d": True, "c": None}], "a": "é"}) == '{"a":"é","b":[1,{"c":null,"d":true}]}\n'.encode()


def test_control_characters_become_pictures_not_escapes() -> None:
    assert dump_json({"a": "\x00\x1b\n\\u001b\\\x07"}) == '{"a":"\u2400\u241b\\n\\\\u001b\\\\\u2407"}\n'.encode()


def test_keys_with_pictures_are_in_order() -> None:
    assert dump_json({"\x07": 1, "0": 2}) == '{"0":2,"\u2407":1}\n'.encode()


def test_float_needs_an_allowed_key() -> None:
    assert dump_json({"x": [{"scale": 0.5}]}, frozenset(("scale",))) == b'{"x":[{"scale":0.5}]}\n'
    for value in ({"scale": 0.5}, {"x": [0.5]}):
        with pytest.raises(AssertionError, match="float"):
            dump_json(value)


@pytest.mark.parametrize("value", [{1: 2}, {"a": {1: 2}}, {"a": b""}, {"a": {1, 2}}, nested(33)],
                         ids=["key", "inner key", "bytes", "set", "depth"])
def test_what_is_not_json_is_not_written(value: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        dump_json(value)


def test_depth_limit_is_the_same_both_ways() -> None:
    assert load_json(dump_json(nested(32)), "x") == nested(32)


@pytest.mark.parametrize("data", [
    b"", b"[]", b"1", b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":1e999}', b'{"a":1,"a":2}', b'{"a":{"b":1,"b":1}}',
    b'{"a":"\xff"}', b'\xef\xbb\xbf{}', b'{"a":"\\ud800"}', '{"a":1}'.encode("utf-16"), b'{"a":1} x',
    b'{"a":' * 33 + b"1" + b"}" * 33, b'{"a":' * 100_000, b'{"a":' + b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}",
])
def test_other_json_is_refused(data: bytes) -> None:
    with pytest.raises(CompileError) as caught:
        load_json(data, "x.neff: m.json")
    assert caught.value.code is NEFF_INVALID
    assert caught.value.where == "x.neff: m.json"


def test_escaped_pair_of_surrogates_is_a_character() -> None:
    assert load_json(b'{"a":"\\ud83d\\ude00"}', "x") == {"a": "\U0001f600"}


def test_member_above_64_mib_is_refused_unread() -> None:
    with pytest.raises(CompileError, match="67108865 bytes"):
        load_json(b" " * (64 << 20) + b" ", "x")
