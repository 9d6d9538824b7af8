"""Serialized HLO (HloModuleProto, HloProto), both ways."""
