"""Which operators have rules, and that rules and signatures fit together."""

from nxcc.ir.graphdef.registry import needed_opcodes, rules
from nxcc.ir.graphdef.signatures import known_names, signature
from nxcc.ir.graphdef.unsupported import REASONS, reason
from nxcc.ir.hlo.operator import operators

DOCUMENTED_V1 = """
Abs Add AddV2 AdjustContrastv2 AdjustSaturation All ArgMax ArgMin AvgPool BatchMatMul BatchMatMulV2 BatchToSpaceND BiasAdd
BroadcastTo Cast Ceil Cholesky Concat ConcatV2 Const Conv2D Conv2DBackpropInput Conv3D Cos CropAndResize DepthwiseConv2dNative
Equal Erf Exp ExpandDims Fill Floor FloorDiv FusedBatchNorm FusedBatchNormV3 Greater GreaterEqual HSVToRGB Identity
InvertPermutation IsNan L2Loss LRN LeakyRelu Less LessEqual Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul
MatrixBandPart MatrixDiag MatrixSetDiag MatrixTriangularSolve Max MaxPool MaxPool3D Maximum Mean Min Minimum MirrorPad Mul Neg
NoOp NotEqual Pack Pad PadV2 Placeholder Pow Prod RGBToHSV RandomUniform Range Rank RealDiv Reciprocal Relu Relu6 Reshape
ResizeBilinear ResizeNearestNeighbor ReverseV2 Round Rsqrt Select Shape Sigmoid Sign Sin Size Slice Softmax
SoftmaxCrossEntropyWithLogits Softplus SpaceToBatchND Split SplitV Sqrt Square SquaredDifference Squeeze StopGradient
StridedSlice Sub Sum Tanh Tile Transpose Unpack UnsortedSegmentSum ZerosLike
AddN Cumsum Einsum FusedBatchNormV2
""".split()
"""Union of the releases' lists and the TensorFlow 2 page of the Neuron SDK's documentation."""


def test_documented_operators_have_rules() -> None:
    assert set(DOCUMENTED_V1) <= rules().keys()


def test_every_rule_has_a_signature() -> None:
    assert not [name for name in rules() if signature(name) is None]


def test_no_operator_is_both_lowered_and_refused() -> None:
    assert not rules().keys() & REASONS.keys()


def test_needed_opcodes_exist() -> None:
    assert {opcode for name in rules() for opcode in needed_opcodes(name)} <= operators().keys()


def test_every_signature_parses() -> None:
    for name in known_names():
        row = signature(name)
        assert row is not None and row.name == name


def test_signature_of_a_convolution() -> None:
    row = signature("Conv2D")
    assert row is not None
    assert [a.name for a in row.inputs] == ["input", "filter"]
    assert row.attributes["data_format"].default == "NHWC" and row.attributes["dilations"].default == (1, 1, 1, 1)
    assert row.attributes["strides"].default is None


def test_no_family_of_refused_operators_has_a_rule() -> None:
    assert not [name for name in rules() if reason(name)]


def test_operators_of_one_family_share_their_reason() -> None:
    assert "feeds data" in reason("PrefetchDataset") == reason("IteratorGetNext")
    assert "changes a variable" in reason("ResourceApplyAdam") == reason("ResourceScatterNdAdd")
    assert "StableHLO" in reason("XlaCallModule")
    assert reason("NoSuchOperator") == ""
