"""The audit room: how private a mechanism is at most, beside what it claims.

In: configs with `[audit]`, or a recorded run. Out: bounds and estimates of ε in rows, checks of
each defense, and whether a claim is refuted.
"""
