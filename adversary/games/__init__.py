"""Inference games: a secret is drawn, a client uploads, the adversary scores the secret.

Z. Li, A. Lowy, J. Liu, T. Koike-Akino, K. Parsons, B. Malin, Y. Wang, "Analyzing Inference Privacy
Risks Through Gradients in Machine Learning", CCS 2024: one game for attributes, properties,
distributions and users. Membership and source are two more instances of it.
"""
