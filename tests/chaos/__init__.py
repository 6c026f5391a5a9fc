"""The chaos suite: the lake equals the data store, whatever happened meanwhile."""
