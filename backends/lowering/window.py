"""Windows: reduce-window and its relatives."""
