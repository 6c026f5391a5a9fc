"""What a cohort is, as data: steps, conditions and criteria, in Python, in SQL and as YAML.

No module here opens a lake.
"""
