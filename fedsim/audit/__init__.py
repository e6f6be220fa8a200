"""The audit room: how private a mechanism is at most, beside what it claims.

In: a config or a recorded run. Out: rows of bounds and estimates, and whether a claim is refuted.
"""
