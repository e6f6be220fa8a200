"""The room of adversaries that know the clients' defense.

In: an attack that does not know it. Out: one that rehearses clients with it, and so corrects
what it answers.
"""
