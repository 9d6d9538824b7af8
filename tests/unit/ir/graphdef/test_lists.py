"""Tensor lists that loops fill: how long they get."""

import pytest

from nxcc.ir.diagnostics import GRAPH_DYNAMIC, CompileError

from harness.graphs import lower, run

LOOP = """
library {
  function {
    signature { name: "body" ARGUMENTS output_arg { name: "j" type: DT_INT32 } output_arg { name: "l" type: DT_INT32 }
                output_arg { name: "r" type: DT_VARIANT } }
    node_def { name: "one" op: "Const" attr { key: "dtype" value { type: DT_INT32 } }
               attr { key: "value" value { tensor { dtype: DT_INT32 tensor_shape { } int_val: 1 } } } }
    node_def { name: "next" op: "AddV2" input: "i" input: "one:output:0" attr { key: "T" value { type: DT_INT32 } } }
    node_def { name: "set" op: "TensorListSetItem" input: "list" input: "i" input: "i"
               attr { key: "element_dtype" value { type: DT_INT32 } }
               attr { key: "resize_if_index_out_of_bounds" value { b: true } } }
    ret { key: "j" value: "next:z:0" } ret { key: "l" value: "limit" } ret { key: "r" value: "set:output_handle:0" }
  }
  function {
    signature { name: "test" ARGUMENTS output_arg { name: "c" type: DT_BOOL } }
    node_def { name: "less" op: "CONDITION" input: "i" input: "limit" attr { key: "T" value { type: DT_INT32 } } }
    ret { key: "c" value: "less:z:0" }
  }
}
node { name: "zero" op: "Const" attr { key: "dtype" value { type: DT_INT32 } }
       attr { key: "value" value { tensor { dtype: DT_INT32 tensor_shape { } int_val: 0 } } } }
node { name: "limit" LIMIT }
node { name: "shape" op: "Const" attr { key: "dtype" value { type: DT_INT32 } }
       attr { key: "value" value { tensor { dtype: DT_INT32 tensor_shape { } int_val: -1 } } } }
node { name: "list" op: "TensorListReserve" input: "shape" input: "zero"
       attr { key: "element_dtype" value { type: DT_INT32 } } attr { key: "shape_type" value { type: DT_INT32 } } }
node { name: "loop" op: "StatelessWhile" input: "zero" input: "limit" input: "list"
       attr { key: "T" value { list { type: DT_INT32 type: DT_INT32 type: DT_VARIANT } } }
       attr { key: "body" value { func { name: "body" } } } attr { key: "cond" value { func { name: "test" } } } }
node { name: "y" op: "TensorListStack" input: "loop:2" input: "shape" attr { key: "element_dtype" value { type: DT_INT32 } } }
"""
"""for i = 0; i CONDITION limit; i += 1: the list, empty at first, gets i at place i."""
ARGUMENTS = "".join(f'input_arg {{ name: "{name}" type: {kind} }} '
                    for name, kind in (("i", "DT_INT32"), ("limit", "DT_INT32"), ("list", "DT_VARIANT")))
FOUR = """op: "Const" attr { key: "dtype" value { type: DT_INT32 } }
  attr { key: "value" value { tensor { dtype: DT_INT32 tensor_shape { } int_val: 4 } } }"""
FED = 'op: "Placeholder" attr { key: "dtype" value { type: DT_INT32 } }'


def loop(condition: str, limit: str) -> str:
    return LOOP.replace("ARGUMENTS", ARGUMENTS).replace("CONDITION", condition).replace("LIMIT", limit)


@pytest.mark.parametrize(("condition", "wanted"), [("Less", [0, 1, 2, 3]), ("LessEqual", [0, 1, 2, 3, 4])])
def test_list_that_a_counted_loop_makes_is_as_long_as_its_turns(condition: str, wanted: list[int]) -> None:
    assert run(lower(loop(condition, FOUR), {}, ["y:0"]), [])[0].tolist() == wanted


def test_list_whose_length_values_decide_is_refused() -> None:
    with pytest.raises(CompileError) as caught:
        lower(loop("Less", FED), {"limit:0": [[], "int32"]}, ["y:0"])
    assert caught.value.code is GRAPH_DYNAMIC and "[at loop]" in str(caught.value)
