"""WHAT exists: the lake's layers as Dagster assets, and the checks that watch them.

Each asset takes the library as a resource, makes one library call and returns metadata.
No column name, no boto3 and no SQL belongs here; when things run and with what is
`pipelines`', which this package never imports.
"""
