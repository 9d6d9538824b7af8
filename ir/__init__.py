"""The compiler's data: dtypes, shapes, literals, HLO modules. Knows nothing of passes, backends or files of NEFF."""
