"""TensorFlow operators that no HLO module can express, with the reason, for messages and for list-operators."""

from __future__ import annotations

_STRINGS = "it works on strings, which HLO does not have"
_RESOURCES = "it works on tables, files or queues, which HLO does not have"
_DYNAMIC = "the size of its result depends on values, and HLO shapes are fixed"
_VARIABLES = "it changes a variable; only inference graphs are compiled"
_SAVING = "it saves or restores variables; end the graph before it"
_PYTHON = "it calls back into Python"

REASONS: dict[str, str] = {
    **dict.fromkeys((
        "AsString", "DecodeJpeg", "DecodePng", "EncodePng", "ExtractJpegShape", "Fingerprint", "ParseExample",
        "ParseExampleV2", "ReduceJoin", "RegexReplace", "StaticRegexFullMatch", "StaticRegexReplace", "StringFormat",
        "StringJoin", "StringLower", "StringNGrams", "StringSplit", "StringSplitV2", "StringToHashBucketFast"), _STRINGS),
    **dict.fromkeys((
        "Barrier", "HashTable", "HashTableV2", "InitializeTableFromTextFileV2", "InitializeTableV2", "LookupTableFindV2",
        "LookupTableImportV2", "LookupTableInsertV2", "LookupTableSizeV2", "MutableHashTableV2", "ReadFile"), _RESOURCES),
    **dict.fromkeys((
        "DynamicPartition", "Where", "Unique", "UniqueV2", "UniqueWithCounts", "SparseConcat", "SparseFillEmptyRows",
        "SparseReorder",
        "SparseReshape",
        "RaggedTensorToTensor"), _DYNAMIC),
    **dict.fromkeys(("Assign", "AssignVariableOp", "AssignAddVariableOp"), _VARIABLES),
    **dict.fromkeys(("SaveV2", "RestoreV2", "ShardedFilename", "MergeV2Checkpoints"), _SAVING),
    **dict.fromkeys(("PyFunc", "EagerPyFunc"), _PYTHON),
}


def reason(operator: str) -> str:
    """Why an operator cannot be compiled; empty if nothing is known against it."""
    return REASONS.get(operator, "")
