"""Where bytes and tables lie: a folder or S3, locks, DuckDB and Delta Lake.

No module here knows a column of a table, or what a file is for.
"""
