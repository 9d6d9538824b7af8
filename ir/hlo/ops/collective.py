"""Collectives and transfers. With one replica and one partition each has a plain meaning; more are an error of the driver."""

from nxcc.ir.hlo.attributes import (
    CHANNEL_ID,
    CONSTRAIN_LAYOUT,
    DIMENSIONS,
    HAS_DYNAMIC_ROOT,
    INFEED_CONFIG,
    IS_HOST_TRANSFER,
    OPTIONAL_DIMENSIONS,
    OUTFEED_CONFIG,
    OUTFEED_SHAPE,
    REPLICA_GROUPS,
    SOURCE_TARGET_PAIRS,
    USE_GLOBAL_DEVICE_IDS,
)
from nxcc.ir.hlo.operator import operator

_GROUPED = (CHANNEL_ID, REPLICA_GROUPS, CONSTRAIN_LAYOUT)
_REDUCING = (*_GROUPED, USE_GLOBAL_DEVICE_IDS)
_GATHERING = (*_GROUPED, DIMENSIONS, USE_GLOBAL_DEVICE_IDS)
operator("all-reduce", (0, None), attributes=_REDUCING, called=("to_apply",), calls_back=True)
operator("all-reduce-start", (0, None), attributes=_REDUCING, called=("to_apply",), calls_back=True)
operator("all-reduce-done", 1)
operator("all-gather", (1, None), attributes=_GATHERING)
operator("all-gather-start", (1, None), attributes=_GATHERING)
operator("all-gather-done", 1)
operator("all-to-all", (1, None), attributes=(*_GROUPED, OPTIONAL_DIMENSIONS))
operator("reduce-scatter", (1, None), attributes=_GATHERING, called=("to_apply",), calls_back=True)
operator("collective-broadcast", (1, None), attributes=(*_GROUPED, HAS_DYNAMIC_ROOT))
operator("collective-permute", (1, None), attributes=(CHANNEL_ID, SOURCE_TARGET_PAIRS))
operator("collective-permute-start", (1, None), attributes=(CHANNEL_ID, SOURCE_TARGET_PAIRS))
operator("collective-permute-done", 1)
operator("ragged-all-to-all", 6, attributes=_GROUPED)
operator("partition-id", 0)
operator("replica-id", 0)
operator("send", 2, attributes=(CHANNEL_ID, IS_HOST_TRANSFER), side_effect=True)
operator("send-done", 1, attributes=(CHANNEL_ID, IS_HOST_TRANSFER), side_effect=True)
operator("recv", 1, attributes=(CHANNEL_ID, IS_HOST_TRANSFER), side_effect=True)
operator("recv-done", 1, attributes=(CHANNEL_ID, IS_HOST_TRANSFER), side_effect=True)
operator("infeed", 1, attributes=(INFEED_CONFIG,), side_effect=True)
operator("outfeed", 2, attributes=(OUTFEED_SHAPE, OUTFEED_CONFIG), side_effect=True)
