"""Files that a compile reads and writes: formats by content, modules, arrays, outputs."""
