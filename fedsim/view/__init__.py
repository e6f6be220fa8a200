"""The view: the runs of a folder as pages, served on this machine alone.

In: a folder of runs. Out: HTML over HTTP on loopback. Nothing is written, and of a run only its
report and what its two tables say is shown.
"""
