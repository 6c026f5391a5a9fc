"""The version history and the coverage: every state ever seen, how it ended, what was searched.

Both are a function of the increments. Nothing here calls the service.
"""
