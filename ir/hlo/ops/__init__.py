"""Operator declarations, one family a file: shape rule and evaluation side by side."""
