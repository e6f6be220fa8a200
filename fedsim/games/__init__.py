"""The game room: many independent trials of one inference game against one model.

In: configs with `[game]`. Out: a table of scores with their intervals, and the ceilings beside them
that no adversary exceeds.
"""
