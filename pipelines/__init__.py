"""WHEN and WITH WHAT: definitions, resources, jobs, schedules and sensors of the deployment.

Not here: what the assets are and do (see `assets`), and everything that is true without Dagster
(see `cohortlake`).
"""
