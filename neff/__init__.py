"""The NEFF container: header, archive, JSON members; knows no instruction.

`package.Package` -> `writer.write_neff` -> file -> `reader.open_neff` -> `reader.Neff`.
"""
