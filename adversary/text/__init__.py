"""What attacks on language models share: tables of a model, token sets, counts, positions, spans.

In: what a curious server sees of a client, and a model of tokens. Out: tokens, counts, texts.
"""
