"""Passes that decide element types: casts asked for, types that the target lacks, integers that fit fewer bits."""
