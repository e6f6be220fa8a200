"""The grading room, which alone knows the truth; nothing that infers imports it.

In: what an attack answered, and the client's truth. Out: rows of the ledger, beside blind guesses.
"""
