"""What other tools get beside the published tables: DuckDB views, a dictionary, Athena DDL.

No file here holds a row.
"""
