"""Controls of a running emulator: its admin requests, their client, and simulated days.

AWS HealthImaging has none of these.
"""
