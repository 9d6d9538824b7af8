"""Shape functions of operators that may become steps of host programs."""
