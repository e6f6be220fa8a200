"""The report room: HTML pages that stand alone, without network.

In: run folders, or the tables of games and audits. Out: one file.
"""
