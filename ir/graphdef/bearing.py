"""Operators that may have a type attribute that says string: they move elements, or compare them for being equal."""

from __future__ import annotations

TEXT_BEARING = frozenset("""
    HashTableV2 LookupTableFindV2 LookupTableSizeV2
    Abort AsString Assert BroadcastTo Case Concat ConcatV2 Const Copy CopyHost DebugIdentity DeepCopy DynamicPartition
    DynamicStitch EmptyTensorList EnsureShape Equal ExpandDims Fill Gather GatherNd GatherV2 GuaranteeConst Identity
    IdentityN If ListDiff NoOp NotEqual Pack ParallelConcat ParallelDynamicStitch PartitionedCall Placeholder PlaceholderV2
    PlaceholderWithDefault PreventGradient Print PrintV2 RaggedTensorToSparse RaggedTensorToTensor Rank Reshape Reverse
    ReverseV2 ScatterNd Select SelectV2 Shape ShapeN Size Slice Snapshot SparseFillEmptyRows SparseToDense Split SplitV
    Squeeze StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile StopGradient StridedSlice TensorArrayGatherV3
    TensorArrayReadV3 TensorArrayScatterV3 TensorArraySizeV3 TensorArrayV3 TensorArrayWriteV3 TensorListConcatV2
    TensorListElementShape TensorListFromTensor TensorListGather TensorListGetItem TensorListLength TensorListPopBack
    TensorListPushBack TensorListReserve TensorListResize TensorListSetItem TensorListSplit TensorListStack
    TensorScatterUpdate Tile Transpose Unique UniqueWithCounts Unpack Where While ZerosLike
""".split())
