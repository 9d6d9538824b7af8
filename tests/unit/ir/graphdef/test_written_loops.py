"""Loops whose values grow from turn to turn: written out where it is known how often they run."""

import numpy as np
import pytest

from nxcc.ir.diagnostics import GRAPH_DYNAMIC, CompileError

from harness.graphs import lower, run

GROWING = """
library {
  function {
    signature { name: "body" ARGUMENTS output_arg { name: "j" type: DT_INT32 } output_arg { name: "l" type: DT_INT32 }
                output_arg { name: "r" type: DT_FLOAT } }
    node_def { name: "one" op: "Const" attr { key: "dtype" value { type: DT_INT32 } }
               attr { key: "value" value { tensor { dtype: DT_INT32 tensor_shape { } int_val: 1 } } } }
    node_def { name: "zero" op: "Const" attr { key: "dtype" value { type: DT_INT32 } }
               attr { key: "value" value { tensor { dtype: DT_INT32 tensor_shape { } int_val: 0 } } } }
    node_def { name: "next" op: "AddV2" input: "i" input: "one:output:0" attr { key: "T" value { type: DT_INT32 } } }
    node_def { name: "twice" op: "AddV2" input: "seen" input: "seen" attr { key: "T" value { type: DT_FLOAT } } }
    node_def { name: "more" op: "ConcatV2" input: "seen" input: "twice:z:0" input: "zero:output:0"
               attr { key: "T" value { type: DT_FLOAT } } attr { key: "N" value { i: 2 } } }
    ret { key: "j" value: "next:z:0" } ret { key: "l" value: "limit" } ret { key: "r" value: "more:output:0" }
  }
  function {
    signature { name: "test" ARGUMENTS output_arg { name: "c" type: DT_BOOL } }
    node_def { name: "less" op: "Less" input: "i" input: "limit" attr { key: "T" value { type: DT_INT32 } } }
    ret { key: "c" value: "less:z:0" }
  }
}
node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } } }
node { name: "start" op: "Const" attr { key: "dtype" value { type: DT_INT32 } }
       attr { key: "value" value { tensor { dtype: DT_INT32 tensor_shape { } int_val: 0 } } } }
node { name: "limit" LIMIT }
node { name: "loop" op: "While" input: "start" input: "limit" input: "x"
       attr { key: "T" value { list { type: DT_INT32 type: DT_INT32 type: DT_FLOAT } } }
       attr { key: "body" value { func { name: "body" } } } attr { key: "cond" value { func { name: "test" } } } }
node { name: "y" op: "Identity" input: "loop:2" attr { key: "T" value { type: DT_FLOAT } } }
"""
"""for i = 0; i < limit; i += 1: x = concat(x, x + x)."""
ARGUMENTS = "".join(f'input_arg {{ name: "{name}" type: {kind} }} '
                    for name, kind in (("i", "DT_INT32"), ("limit", "DT_INT32"), ("seen", "DT_FLOAT")))
FED = 'op: "Placeholder" attr { key: "dtype" value { type: DT_INT32 } }'


def growing(limit: str) -> str:
    return GROWING.replace("ARGUMENTS", ARGUMENTS).replace("LIMIT", limit)


def turns(count: int) -> str:
    return f"""op: "Const" attr {{ key: "dtype" value {{ type: DT_INT32 }} }}
  attr {{ key: "value" value {{ tensor {{ dtype: DT_INT32 tensor_shape {{ }} int_val: {count} }} }} }}"""


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_value_that_grows_has_the_size_of_the_last_turn(count: int) -> None:
    wanted = np.float32([1, 3])
    module = lower(growing(turns(count)), {"x:0": [[2], "float32"]}, ["y:0"])
    found, = run(module, [wanted])
    for _ in range(count):
        wanted = np.concatenate([wanted, 2 * wanted])
    np.testing.assert_array_equal(found, wanted)


def test_a_loop_that_values_end_cannot_grow_its_values() -> None:
    with pytest.raises(CompileError, match="changes from") as caught:
        lower(growing(FED), {"x:0": [[2], "float32"], "limit:0": [[], "int32"]}, ["y:0"])
    assert caught.value.code is GRAPH_DYNAMIC and "[at loop]" in str(caught.value)
