"""What is published: the marker, the list of snapshots, the key, and whether files are as written.

Not here: what a publication writes and how. See the modules of `publish`.
"""
