"""Criteria as data: steps, conditions and values, in Python, in SQL and as YAML.

No module here opens a lake.
"""
