"""The NEFF container: header, archive, JSON members; knows no instruction."""
