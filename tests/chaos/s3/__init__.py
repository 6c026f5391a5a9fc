"""Storms, and kills between any two writes, over a lake on S3."""
