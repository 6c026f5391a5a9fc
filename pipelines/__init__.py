"""WHEN and WITH WHAT: definitions, resources, jobs, schedules and sensors of the deployment.

What the assets are and do belongs into `assets`, and everything that is true without
Dagster into `cohortlake`.
"""
