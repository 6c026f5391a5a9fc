"""Cohorts and tables as files for spreadsheets.

The files that prove a cohort belong to `cohort.freeze`.
"""
