"""What a caller of a compiled module sees: parameters, weights, casts at its border, which outputs count."""
