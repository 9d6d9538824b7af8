"""Passes that form regions: row, image and scan programs, their merging and chaining, equal layers as one."""
