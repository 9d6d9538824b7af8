"""A module that was written and read again is the same module; its bytes depend on nothing but the module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nxcc.ir.diagnostics import FILE_UNWRITABLE, CompileError
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.proto.reader import read_module
from nxcc.ir.hlo.proto.schema import message_type
from nxcc.ir.hlo.proto.writer import module_bytes, write_module
from nxcc.ir.hlo.text.reader import read_text

from harness.hlo_text import SCALARS
from harness.module_facts import module_facts

X = "x = f32[2,3]{1,0} parameter(0)"
BODIES = {
    "binary": "ROOT r = f32[2,3] add(x, x), metadata={op_type=\"a\" op_name=\"b\" source_file=\"c.py\" source_line=3}",
    "compare": "ROOT r = pred[2,3] compare(x, x), direction=GE, type=TOTALORDER",
    "dot": "ROOT r = f32[2,2] dot(x, x), lhs_contracting_dims={1}, rhs_contracting_dims={1}, "
           "operand_precision={highest,default}, algorithm=dot_bf16_bf16_f32",
    "reduce": "z = f32[] constant(0) ROOT r = f32[2] reduce(x, z), dimensions={1}, to_apply=add_f32",
    "reduce-window": "z = f32[] constant(-inf) ROOT r = f32[1,2] reduce-window(x, z), "
                     "window={size=2x2 pad=0_0x-1_1 rhs_dilate=1x2}, to_apply=max_f32",
    "convolution": "i = f32[1,4,4,2] parameter(1) k = f32[2,2,1,6] parameter(2) ROOT r = f32[1,3,3,6] convolution(i, k), "
                   "window={size=2x2}, dim_labels=b01f_01io->b01f, feature_group_count=2",
    "gather": "i = s32[4,1] parameter(1) ROOT r = f32[4,3] gather(x, i), offset_dims={1}, collapsed_slice_dims={0}, "
              "start_index_map={0}, index_vector_dim=1, slice_sizes={1,3}, indices_are_sorted=true",
    "scatter": "i = s32[4,1] parameter(1) u = f32[4,3] parameter(2) ROOT r = f32[2,3] scatter(x, i, u), "
               "update_window_dims={1}, inserted_window_dims={0}, scatter_dims_to_operand_dims={0}, index_vector_dim=1, "
               "to_apply=add_f32",
    "pad": "z = f32[] constant(1) ROOT r = f32[5,2] pad(x, z), padding=1_0_1x0_-1_0",
    "slice": "ROOT r = f32[1,2] slice(x), slice={[1:2], [0:3:2]}",
    "iota": "ROOT r = s32[2,3]{0,1} iota(), iota_dimension=1",
    "tuple": "t = (f32[2,3], f32[2,3]) tuple(x, x) ROOT r = f32[2,3] get-tuple-element(t), index=1",
    "literals": "c = (s32[], (f32[2], bf16[0])) constant((7, ({1, nan}, {}))) k = f32[2,2]{0,1} constant({{1,2},{3,4}}) "
                "m = s4[3] constant({-8,0,7}) n = u64[2] constant({0,18446744073709551615}) ROOT r = f32[2,3] negate(x)",
    "conditional": "i = s32[] constant(1) s = f32[] constant(2) p = (f32[], f32[]) tuple(s, s) "
                   "ROOT r = f32[] conditional(i, p, p), branch_computations={first, first}",
    "accuracy": "ROOT r = f32[2,3] tanh(x), result_accuracy={tolerance={atol=0,rtol=0.5,ulps=2}}",
    "custom-call": "ROOT r = (f32[2,3]) custom-call(x), custom_call_target=\"t\", operand_layout_constraints={f32[2,3]{0,1}}, "
                   "custom_call_has_side_effect=true, api_version=API_VERSION_TYPED_FFI, backend_config={\"a\":[1]}",
    "collective": "ROOT r = f32[2,3] all-reduce(x), channel_id=3, replica_groups=[2,4]<=[4,2]T(1,0), "
                  "use_global_device_ids=true, to_apply=add_f32",
    "sort": "ROOT r = f32[2,3] sort(x), dimensions={1}, is_stable=true, to_apply=less",
    "scan": "z = f32[3] constant({1,2,3}) ROOT r = (f32[2,3], f32[3]) scan(x, z), dimensions={0}, num_carries=1, "
            "is_associative=true, to_apply=both",
    "rng": "s = u64[2] constant({1,2}) ROOT r = (u64[2], u32[4]) rng-bit-generator(s), algorithm=rng_three_fry",
    "triangular": "ROOT r = f32[2,3] triangular-solve(x, x), lower=true, transpose_a=ADJOINT",
    "domain": "ROOT r = f32[2,3] domain(x), domain={kind=\"sharding\", entry={maximal device=0}, exit={replicated}}",
    "common": "y = f32[2,3] negate(x), frontend_attributes={a=\"1\"}, statistics={visualizing_index=0,count_nan=1.5}, "
              "origin={({\"p\" {0}}, {\"q\"})} ROOT r = f32[2,3] abs(x), control-predecessors={y}, origin={[synthetic_call]}",
    "sharding": "a = f32[2,3] negate(x), sharding={devices=[2,1,2]<=[2,2]T(1,0) last_tile_dims={manual}} "
                "b = f32[2,3] negate(x), sharding={mesh['a'=2,'b'=4], [{'a', ?}, {'b':(1)2}], replicated={'b':(2)2}} "
                "c = (f32[2,3], f32[2,3]) tuple(a, b), sharding={{devices=[2,1]1,0}, {maximal device=3}} "
                "ROOT r = f32[2,3] negate(a), sharding={maximal_mesh[device_id=3]}",
    "layout": "ROOT r = f32[2,3]{0,1:T(2,128)(2,1)E(4)S(1)} copy(x)",
    "dynamic": "n = s32[] constant(1) ROOT r = f32[<=2,3] set-dimension-size(x, n), dimensions={0}",
    "aliasing": "ROOT r = f32[2,3] fusion(x), kind=kLoop, calls=fused, output_to_operand_aliasing={{}: (0, {})}",
    "async": "s = ((f32[2,3]), f32[2,3], s32[]) negate-start(x), async_execution_thread=\"thread\" "
             "ROOT r = f32[2,3] negate-done(s)",
}
COMPUTATIONS = """
first { a = f32[] parameter(0) b = (f32[], f32[]) tuple(a, a) ROOT c = f32[] get-tuple-element(b), index=0 }
less { a = f32[] parameter(0) b = f32[] parameter(1) ROOT r = pred[] compare(a, b), direction=LT }
both { a = f32[3] parameter(0) b = f32[3] parameter(1) ROOT t = (f32[3], f32[3]) tuple(a, b) }
fused { a = f32[2,3] parameter(0) ROOT n = f32[2,3] negate(a) }
"""


def module_of(body: str, header: str = "") -> Module:
    computations = COMPUTATIONS if "branch" not in body else COMPUTATIONS.replace(
        "first { a = f32[] parameter(0) b = (f32[], f32[]) tuple(a, a)", "first { b = (f32[], f32[]) parameter(0)")
    return read_text(f"HloModule test{header}\n{SCALARS}\n{computations}\nENTRY main {{ {X} {body} }}\n")


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_module_comes_back(body: str) -> None:
    module = module_of(body)
    module.entry_layout = module.entry_layout or (tuple(p.shape for p in module.entry.parameters), module.entry.root.shape)
    assert module_facts(read_module(module_bytes(module))) == module_facts(module)


def test_header_comes_back() -> None:
    header = (", is_scheduled=true, input_output_alias={ {}: (0, {}, must-alias) }, buffer_donor={ (0, {}) }, "
              "entry_computation_layout={(f32[2,3]{0,1})->f32[2,3]{1,0}}, frontend_attributes={b=\"2\",a=\"1\"}")
    tables = ('\nFileNames\n1 "a.py"\nFunctionNames\n1 "f"\nFileLocations\n'
              "1 {file_name_id=1 function_name_id=1 line=3 end_line=3 column=4 end_column=9}\n"
              "StackFrames\n1 {file_location_id=1 parent_frame_id=1}\n2 {file_location_id=1 parent_frame_id=2}\n")
    module = module_of('b = f32[2,3] abs(x) ROOT r = f32[2,3] negate(x), metadata={source_file="z" stack_frame_id=2}',
                       header + tables)
    again = read_module(module_bytes(module))
    assert module_facts(again) == module_facts(module)
    assert [f.parent_frame_id for f in message_of(module).stack_frame_index.stack_frames] == [0, 1]


def message_of(module: Module) -> Any:
    return message_type("HloModuleProto").FromString(module_bytes(module))


def test_the_library_reads_what_was_written() -> None:
    message = message_of(module_of("only = f32[2] constant({1,2}) ROOT last = f32[2,3] abs(x)"))
    entry = message.computations[-1]
    assert [i.name for i in entry.instructions] == ["x", "only", "last"]
    assert list(entry.instructions[1].literal.f32s) == [1, 2]
    assert entry.instructions[2].operand_ids == [entry.id << 32]
    assert list(entry.program_shape.parameter_names) == ["x"]


def test_bytes_do_not_depend_on_ids_or_the_order_of_maps() -> None:
    module = module_of('ROOT r = f32[2,3] abs(x), frontend_attributes={b="2",a="1",c="3"}')
    content = module_bytes(module)
    message = message_type("HloModuleProto").FromString(content)
    for computation in message.computations:
        for instruction in computation.instructions:
            instruction.id += 1 << 50
            instruction.operand_ids[:] = [i + (1 << 50) for i in instruction.operand_ids]
        computation.root_id += 1 << 50
    assert module_bytes(read_module(message.SerializeToString())) == content


def test_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    module = module_of("ROOT r = f32[2,3] abs(x)")
    write_module(module, tmp_path / "m.pb")
    assert (tmp_path / "m.pb").read_bytes() == module_bytes(module)
    with pytest.raises(CompileError) as caught:
        write_module(module, tmp_path / "missing" / "m.pb")
    assert caught.value.code is FILE_UNWRITABLE
    assert [p.name for p in tmp_path.iterdir()] == ["m.pb"]
