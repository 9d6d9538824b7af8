"""One small instruction of each operator, as text with the element type left open: what its support is asked with.

`T` stands for the element type. list-operators asks the lowering rules with these, dtype by dtype, so that what it prints is
what the compiler does; tests lower and run the same forms.
"""

from __future__ import annotations

from nxcc.ir.hlo.operator import operators

_OPERANDS = {1: "T[6,9] p", 2: "T[6,9] p, T[6,9] q"}


def _combiner(opcode: str) -> str:
    return f"{{ a = T[] parameter(0) b = T[] parameter(1) ROOT c = T[] {opcode}(a, b) }}"


_LESS = "{ a = T[] parameter(0) b = T[] parameter(1) ROOT c = pred[] compare(a, b), direction=LT }"
_NOT_LESS = _LESS.replace("LT", "GE")
_HALF = "{ x = T[6,9] parameter(0) ROOT y = T[6,9] negate(x) }"
_COUNT = "x = (s32[], T[6,9]) parameter(0) i = s32[] get-tuple-element(x), index=0"
_TURN = (f"{{ {_COUNT} v = T[6,9] get-tuple-element(x), index=1 one = s32[] constant(1) j = s32[] add(i, one) "
         "w = T[6,9] negate(v) ROOT t = (s32[], T[6,9]) tuple(j, w) }")
_MORE = f"{{ {_COUNT} n = s32[] constant(3) ROOT c = pred[] compare(i, n), direction=LT }}"

FORMS: dict[str, str] = {
    **{row.name: f"T[6,9] {row.name}({_OPERANDS[row.min_operands]})" for row in operators().values()
       if row.elementwise and row.min_operands in _OPERANDS},
    "opt-barrier": "T[6,9] opt-barrier(T[6,9] p)",
    "is-finite": "pred[6,9] is-finite(T[6,9] p)",
    "real": "T[6,9] real(T[6,9] p)", "imag": "T[6,9] imag(T[6,9] p)",
    "complex": "c64[6,9] complex(T[6,9] p, T[6,9] q)",
    "compare": "pred[6,9] compare(T[6,9] p, T[6,9] q), direction=LT",
    "clamp": "T[6,9] clamp(T[6,9] p, T[6,9] q, T[6,9] r)",
    "select": "T[6,9] select(pred[6,9] p, T[6,9] q, T[6,9] r)",
    "convert": "f32[6,9] convert(T[6,9] p)",
    "bitcast-convert": "T[6,9] bitcast-convert(T[6,9] p)",
    "stochastic-convert": "s8[6,9] stochastic-convert(T[6,9] p, u32[6,9] q)",
    "reduce-precision": "T[6,9] reduce-precision(T[6,9] p), exponent_bits=5, mantissa_bits=6",
    "map": f"T[6,9] map(T[6,9] p, T[6,9] q), dimensions={{0,1}}, to_apply={_combiner('multiply')}",
    "dot": "T[6,5] dot(T[6,9] p, T[9,5] q), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
    "convolution": "T[2,4,7,7] convolution(T[2,3,9,9] p, T[4,3,3,3] q), window={size=3x3}, dim_labels=bf01_oi01->bf01",
    "ragged-dot": "T[6,5] ragged-dot(T[6,9] p, T[3,9,5] q, s32[3] r), lhs_contracting_dims={1}, rhs_contracting_dims={1}, "
                  "lhs_ragged_dims={0}, rhs_group_dims={0}",
    "scaled-dot": "T[6,5] scaled-dot(T[6,8] p, T[8,5] q, T[3,2] r, T[] s), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
    "fft": "c64[6,9] fft(c64[6,9] p), fft_type=FFT, fft_length={9}",
    "cholesky": "T[6,6] cholesky(T[6,6] p), lower=true",
    "triangular-solve": "T[6,6] triangular-solve(T[6,6] p, T[6,6] q), left_side=true, lower=true, transpose_a=NO_TRANSPOSE",
    "bitcast": "T[9,6] bitcast(T[6,9] p)", "broadcast": "T[4,6,9] broadcast(T[6,9] p), dimensions={1,2}",
    "concatenate": "T[8,9] concatenate(T[6,9] p, T[2,9] q), dimensions={0}", "iota": "T[6,9] iota(), iota_dimension=1",
    "pad": "T[8,17] pad(T[6,9] p, T[] q), padding=1_1x0_0_1", "reshape": "T[9,6] reshape(T[6,9] p)",
    "reverse": "T[6,9] reverse(T[6,9] p), dimensions={1}", "slice": "T[3,4] slice(T[6,9] p), slice={[1:4], [0:8:2]}",
    "transpose": "T[9,6] transpose(T[6,9] p), dimensions={1,0}",
    "reduce": f"T[6] reduce(T[6,9] p, T[] q), dimensions={{1}}, to_apply={_combiner('maximum')}",
    "reduce-window": f"T[6,7] reduce-window(T[6,9] p, T[] q), window={{size=1x3}}, to_apply={_combiner('maximum')}",
    "select-and-scatter": f"T[6,9] select-and-scatter(T[6,9] p, T[6,3] q, T[] r), window={{size=1x3 stride=1x3}}, "
                          f"select={_NOT_LESS}, scatter={_combiner('add')}",
    "scan": "(T[6,9], T[9]) scan(T[6,9] p, T[9] q), dimensions={0}, num_carries=1, to_apply={ a = T[9] parameter(0) "
            "b = T[9] parameter(1) c = T[9] maximum(a, b) ROOT t = (T[9], T[9]) tuple(c, c) }",
    "sort": f"T[6,9] sort(T[6,9] p), dimensions={{1}}, to_apply={_LESS}",
    "topk": "(T[6,3], s32[6,3]) topk(T[6,9] p), k=3, largest=true",
    "batch-norm-training": "(T[6,9], T[9], T[9]) batch-norm-training(T[6,9] p, T[9] q, T[9] r), epsilon=0.01, feature_index=1",
    "batch-norm-inference": "T[6,9] batch-norm-inference(T[6,9] p, T[9] q, T[9] r, T[9] s, T[9] t), epsilon=0.01, "
                            "feature_index=1",
    "batch-norm-grad": "(T[6,9], T[9], T[9]) batch-norm-grad(T[6,9] p, T[9] q, T[9] r, T[9] s, T[6,9] t), epsilon=0.01, "
                       "feature_index=1",
    "dynamic-slice": "T[2,9] dynamic-slice(T[6,9] p, s32[] q, s32[] r), dynamic_slice_sizes={2,9}",
    "dynamic-update-slice": "T[6,9] dynamic-update-slice(T[6,9] p, T[2,9] q, s32[] r, s32[] s)",
    "gather": "T[4,9] gather(T[6,9] p, s32[4] q), offset_dims={1}, collapsed_slice_dims={0}, start_index_map={0}, "
              "index_vector_dim=1, slice_sizes={1,9}",
    "scatter": "T[6,9] scatter(T[6,9] p, s32[4] q, T[4,9] r), update_window_dims={1}, inserted_window_dims={0}, "
               f"scatter_dims_to_operand_dims={{0}}, index_vector_dim=1, to_apply={_combiner('maximum')}",
    "constant": "f32[3] constant({1, 2, 3})",
    "tuple": "(T[6,9], T[6,9]) tuple(T[6,9] p, T[6,9] q)",
    "get-tuple-element": "T[6,9] get-tuple-element((T[6,9], s32[]) p), index=0",
    "call": f"T[6,9] call(T[6,9] p), to_apply={_HALF}",
    "fusion": f"T[6,9] fusion(T[6,9] p), kind=kLoop, calls={_HALF}",
    "conditional": f"T[6,9] conditional(pred[] p, T[6,9] q, T[6,9] r), true_computation={_HALF}, "
                   "false_computation={ x = T[6,9] parameter(0) ROOT y = T[6,9] copy(x) }",
    "while": f"(s32[], T[6,9]) while((s32[], T[6,9]) p), condition={_MORE}, body={_TURN}",
    "rng-bit-generator": "(u64[2], u32[6,9]) rng-bit-generator(u64[2] p), algorithm=rng_three_fry",
    "rng": "T[6,9] rng(T[] p, T[] q), distribution=rng_uniform",
    "all-reduce": f"T[6,9] all-reduce(T[6,9] p), replica_groups={{}}, to_apply={_combiner('add')}",
    "reduce-scatter": "T[6,9] reduce-scatter(T[6,9] p), replica_groups={{0}}, dimensions={0}, "
                      f"to_apply={_combiner('add')}",
    "all-gather": "T[6,9] all-gather(T[6,9] p), replica_groups={{0}}, dimensions={0}",
    "all-to-all": "T[6,9] all-to-all(T[6,9] p), replica_groups={{0}}, dimensions={1}",
    "collective-broadcast": "T[6,9] collective-broadcast(T[6,9] p), replica_groups={{0}}",
    "collective-permute": "T[6,9] collective-permute(T[6,9] p), source_target_pairs={{0,0}}",
    "domain": "T[6,9] domain(T[6,9] p), domain={kind=\"sharding\", entry={maximal device=0}, exit={maximal device=0}}",
    "custom-call": 'T[6,9] custom-call(T[6,9] p), custom_call_target="AwsNeuronErf"',
}
"""opcode -> an instruction: of elementwise operators by their declarations, unless results or attributes want another form.
Operators that have none are structure, order, or talk to other devices."""

LIMITS: dict[str, tuple[str, ...]] = {
    "sort": (f"T[2,100000] sort(T[2,100000] p), dimensions={{1}}, to_apply={_LESS}",),
    "topk": ("(T[2,5000], s32[2,5000]) topk(T[2,100000] p), k=5000, largest=true",),
    "convolution": ("T[1,1,3,3,3,3] convolution(T[1,1,3,3,3,3] p, T[1,1,1,1,1,1] q), window={size=1x1x1x1}, "
                    "dim_labels=bf0123_oi0123->bf0123",),
    "reduce-window": ("T[6,1] reduce-window(T[6,90] p, T[] q), window={size=1x90}, to_apply={ a = T[] parameter(0) "
                      "b = T[] parameter(1) c = T[] negate(a) ROOT d = T[] maximum(c, b) }",),
    "stochastic-convert": ("f16[6,9] stochastic-convert(T[6,9] p, u32[6,9] q)",),
    "gather": ("T[4,9] gather(T[300000000,9] p, s32[4] q), offset_dims={1}, collapsed_slice_dims={0}, start_index_map={0}, "
               "index_vector_dim=1, slice_sizes={1,9}",),
    "custom-call": ('T[6,9] custom-call(T[6,9] p), custom_call_target="Another"',),
}
"""opcode -> instructions beyond what the device takes, whose reasons say where the limits are."""

ALONE = "on one device; what needs the data of others is refused"

EXPANDED = {
    "scan": "a counted loop",
    **dict.fromkeys(("batch-norm-training", "batch-norm-inference", "batch-norm-grad"), "plain operators"),
    **dict.fromkeys(("ragged-dot", "scaled-dot"), "plain products"),
    **dict.fromkeys(("all-reduce", "all-reduce-start", "all-reduce-done", "all-gather", "all-gather-start", "all-gather-done",
                     "all-to-all", "collective-broadcast"), f"its operand, {ALONE}"),
    "reduce-scatter": f"the first part of its operand, {ALONE}",
    **dict.fromkeys(("collective-permute", "collective-permute-start", "collective-permute-done"),
                    f"its operand, or zeros where nobody sends, {ALONE}"),
    **dict.fromkeys(("partition-id", "replica-id"), f"0, {ALONE}"), **dict.fromkeys(("copy-start", "copy-done"), "its operand"),
    **dict.fromkeys(("async-start", "async-update", "async-done"), "the call that it wraps"),
    "rng": "rng-bit-generator", "rng-get-and-update-state": "a constant",
}
"""Operators that passes write in other operators, and in which."""

ELSEWHERE = {
    "ragged-all-to-all": "one device has its own data alone; more devices are refused",
    **dict.fromkeys(("infeed", "outfeed", "send", "send-done", "recv", "recv-done"),
                    "there is no program at the other end; the host stands for it"),
    **dict.fromkeys(("dynamic-reshape", "get-dimension-size", "set-dimension-size"),
                    "sizes that change at run time are the host's, within their static bound"),
}
"""Operators without device code, and why."""
