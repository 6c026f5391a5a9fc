"""Increments: what one search window found, one immutable Parquet file per window and run.

Which states follow from them belongs to `history`. How the service is searched belongs to `ingest`.
"""
