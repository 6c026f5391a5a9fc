"""From criteria to rows: the compiled query, the tables that it reads, and tables from outside.

What a cohort is belongs to `cohort.define`, what is told about its members to `cohort.describe`.
"""
