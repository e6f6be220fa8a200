"""The room that attacks on linkage share: what uploads look like, how alike two are, sequences.

In: rounds of uploads without names (`fedsim.run.unnamed`). Out: a score for every pair of uploads
of different rounds, and which uploads are of one client.
"""
