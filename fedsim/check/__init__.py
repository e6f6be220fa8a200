"""The gate: a run's tables held against rules that say what must not be.

In: rules, and a run, an audit's or games' folder. Out: a verdict per rule. What a table cannot
show is open, and an open rule is not kept: an attack that failed is no evidence of privacy.
"""
