"""Convolutions as shifted matmuls over access patterns."""
