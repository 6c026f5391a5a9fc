"""The chaos suite: after faults and kills, the lake equals the data store."""
