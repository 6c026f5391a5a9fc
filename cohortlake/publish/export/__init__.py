"""What other tools get beside the published tables: DuckDB views, a dictionary, DDL.

No file that is written here holds a row. The tables themselves are written by `publish.writer`.
"""
