"""From a cohort to its pixels: manifests by which other tools fetch them.

Not here: who is in a cohort (`select`), proof of it (`freeze`), and its members as a table
(`export`).
"""
