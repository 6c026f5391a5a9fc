"""WHAT exists: the lake's layers as Dagster assets, and the checks that watch them.

Each asset takes the library as a resource, makes one library call and returns metadata. Not here:
column names, boto3, SQL, and decisions on windows, gaps or limits. See `pipelines` for when things
run and with which resources; this package never imports it.
"""
