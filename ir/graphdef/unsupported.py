"""TensorFlow operators that no HLO module can express, with the reason, for messages and for list-operators."""

from __future__ import annotations

import re

_STRINGS = "it reads or writes another form of strings, for which there is no host function"
_RESOURCES = "it works on tables, files or queues, which HLO does not have"
_DYNAMIC = "the size of its result depends on values, and HLO shapes are fixed"
_VARIABLES = "it changes a variable; only inference graphs are compiled"
_SAVING = "it saves or restores variables; end the graph before it"
_PYTHON = "it calls back into Python"

REASONS: dict[str, str] = {
    **dict.fromkeys((
        "DecodeJpeg", "DecodePng", "EncodePng", "ExtractJpegShape", "Fingerprint", "ParseExample", "ParseExampleV2",
        "StringFormat"), _STRINGS),
    **dict.fromkeys((
        "Barrier", "HashTable", "InitializeTableFromTextFileV2", "InitializeTableV2", "LookupTableImportV2",
        "LookupTableInsertV2", "MutableHashTableV2", "ReadFile"), _RESOURCES),
    **dict.fromkeys(("SparseConcat", "SparseReorder"), _DYNAMIC),
    **dict.fromkeys(("Assign", "AssignVariableOp", "AssignAddVariableOp"), _VARIABLES),
    **dict.fromkeys(("SaveV2", "RestoreV2", "ShardedFilename", "MergeV2Checkpoints"), _SAVING),
    **dict.fromkeys(("PyFunc", "EagerPyFunc"), _PYTHON),
}


FAMILIES: tuple[tuple[str, str], ...] = (
    (r"XlaCallModule", "it holds a whole module of StableHLO; convert and compile that module itself"),
    (r"(Tpu|TPU|Collective|Nccl|DTensor|_Send|_Recv|_Host|_Arg$|_Retval$|CrossReplica|Infeed|Outfeed|\w*TPU|Configure\w*Distributed)",
     "it passes data between machines or devices"),
    (r"\w*(Dataset|Iterator|Reader|Queue|Barrier|Stage$|Unstage|MapDefun)", "it feeds data in; begin behind it"),
    (r"\w*(Summary|Audio$|ImportEvent)", "it writes a record of a training run"),
    (r"(Resource|Sparse)*Apply|Assign|Ref|ScatterAdd$|ScatterSub$|ScatterUpdate$|ScatterMul$|ScatterDiv$|ScatterM(ax|in)$|"
     r"ScatterNd(Add|Sub|Update|Max|Min)$|ResourceScatter|ResourceStridedSliceAssign|ResourceCountUpTo|CountUpTo$|Accumulator|"
     r"Conditional\w*Accumulator", _VARIABLES),
    (r"(?!HashTableV2|LookupTableSize|LookupTableFindV2)\w*(HashTable|LookupTable|TensorMap|Mutex|Cache|"
     r"Stack(Push|Pop|Close)?V2$|Session|MemoryCache|SeedGenerator|BoostedTrees)",
     _RESOURCES),
    (r"\w*(String|Regex|Unicode|Utf8|Substr|Decode|Encode|Parse|Serialize|HashBucket|ReadFile|WriteFile|MatchingFiles|Proto|"
     r"Edit|Vocab|Ngram|KeywordS)", _STRINGS),
    (r"(Save|Restore|Checkpoint|LoadAndRemap|LoadTPU|RetrieveTPU)", _SAVING),
    (r"\w*PyFunc", _PYTHON),
    (r"(_Mkl|__Mkl|Cudnn|_Fused|_Native|Uniform\w*Quantized|Quantized)",
     "it is one platform's own kernel; give the graph as it was before it was optimised for that platform"),
)
"""Operators by how their names begin, with the reason; the first that fits counts."""


def reason(operator: str) -> str:
    """Why an operator cannot be compiled; empty if nothing is known against it."""
    return REASONS.get(operator, "") or next((why for start, why in FAMILIES if re.match(start, operator)), "")
