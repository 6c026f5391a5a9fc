"""From criteria to rows: opened tables, tables from outside, and the compiled query.

Criteria as data belong to `cohort.define`, and what is said about members to `cohort.describe`.
"""
