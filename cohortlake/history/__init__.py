"""The version history and the coverage: every state ever seen, how it ended, what was searched.

Both follow from the increments alone. Nothing here calls the service or applies a policy.
"""
