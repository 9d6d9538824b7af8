"""Elementwise operators as formulas on tiles."""
