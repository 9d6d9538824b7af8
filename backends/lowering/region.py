"""Fused regions."""
