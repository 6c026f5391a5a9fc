"""Keeps an Iceberg table of each published table, in a catalogue that Athena, Spark and Trino read.

The rows are those of the published files. Files that describe these without a catalogue belong in
`export`.
"""
