"""Conversions between element types on tiles."""
