"""How tests and people steer a running emulator: its admin requests, their client, days going by.

None of it exists in AWS HealthImaging.
"""
