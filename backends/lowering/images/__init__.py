"""Image programs: regions of convolutions, windows and elementwise work on images."""
