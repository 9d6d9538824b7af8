"""Comparison, selection and logic on tiles."""
