"""Descriptions of members: attrition, counts with small cells hidden, Table 1 and plots.

Who is a member is decided in `cohort.select`.
"""
