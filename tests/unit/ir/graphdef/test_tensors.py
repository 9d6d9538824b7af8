"""Every encoding of a tensor."""

import numpy as np
import pytest

from nxcc.ir.diagnostics import GRAPH_INVALID, CompileError
from nxcc.ir.graphdef.schema import message_type
from nxcc.ir.graphdef.tensors import Strings, read_tensor
from nxcc.ir.literals import Literal


def tensor(dims: list[int], **fields: object) -> Literal | Strings:
    message = message_type("TensorProto")(**fields)
    for size in dims:
        message.tensor_shape.dim.add(size=size)
    content = message.SerializeToString()
    return read_tensor(content, (0, len(content)), "w")


def values(dims: list[int], **fields: object) -> list:
    found = tensor(dims, **fields)
    assert isinstance(found, Literal)
    return found.array.tolist()


@pytest.mark.parametrize(("given", "wanted"), [
    ([1, 2, 3, 4], [1, 2, 3, 4]), ([1, 2], [1, 2, 2, 2]), ([5], [5, 5, 5, 5]), ([], [0, 0, 0, 0]),
    ([1, 2, 3, 4, 9], [1, 2, 3, 4]),
], ids=["full", "tail", "splat", "none", "surplus"])
@pytest.mark.parametrize(("dtype", "field"), [(1, "float_val"), (2, "double_val"), (3, "int_val"), (6, "int_val"),
                                              (9, "int64_val"), (22, "uint32_val"), (23, "uint64_val")])
def test_short_lists_repeat_their_last_value(given: list, wanted: list, dtype: int, field: str) -> None:
    assert values([4], dtype=dtype, **{field: given}) == wanted


def test_halves_are_bit_patterns() -> None:
    assert values([2], dtype=19, half_val=[0x3C00, 0xC000]) == [1.0, -2.0]
    assert values([2], dtype=14, half_val=[0x3F80, 0xC000]) == [1.0, -2.0]


def test_negative_bytes_are_sign_extended() -> None:
    assert values([2], dtype=6, int_val=[-1, -128]) == [-1, -128]


def test_complex_values_are_pairs() -> None:
    assert values([1], dtype=8, scomplex_val=[1.0, 2.0]) == [1 + 2j]


def test_content_wins_over_values() -> None:
    assert values([1], dtype=1, tensor_content=np.float32([3]).tobytes(), float_val=[4]) == [3]


def test_booleans_in_content_are_bytes() -> None:
    assert values([3], dtype=10, tensor_content=b"\0\1\2") == [False, True, True]


def test_empty_tensor_has_no_data() -> None:
    assert values([0, 3], dtype=1) == []


def test_strings_keep_their_bytes() -> None:
    assert tensor([2], dtype=7, string_val=[b"a\0", b"\xff"]) == Strings((2,), (b"a\0", b"\xff"))


@pytest.mark.parametrize(("dims", "fields"), [
    ([3], {"dtype": 1, "tensor_content": b"\0" * 11}), ([-1], {"dtype": 1}), ([1], {"dtype": 0}), ([1], {"dtype": 20}),
    ([2**30, 2**30], {"dtype": 1}),
], ids=["short", "unknown-size", "no-type", "resource", "huge"])
def test_impossible_tensor_names_the_node(dims: list[int], fields: dict) -> None:
    with pytest.raises(CompileError, match=r"\[at w\]") as caught:
        tensor(dims, **fields)
    assert caught.value.code is GRAPH_INVALID


def test_damage_inside_is_named() -> None:
    with pytest.raises(CompileError, match="a constant is damaged") as caught:
        read_tensor(bytes([0x00, 0x01]), (0, 2), "w")
    assert caught.value.code is GRAPH_INVALID
