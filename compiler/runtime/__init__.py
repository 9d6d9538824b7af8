"""A NEFF loaded and run: device nodes simulated, host nodes evaluated, a run made again where it has to be."""
