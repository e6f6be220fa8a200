"""The command-line room: arguments in, tables and exit codes out.

In: what the user types. Out: calls of the rooms below, and one sentence for every failure.
"""
