"""The run room: what a run is, on paper and on disk.

In: a config. Out: a plan in which everything is built and checked, a run folder, a ledger.
"""
