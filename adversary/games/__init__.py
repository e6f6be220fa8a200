"""Inference games: a secret is drawn, a client uploads, the adversary scores the secret.

In: a game, records of both parties, a client's learning algorithm. Out: log-probabilities of the
secret for every trial, and the limits that no adversary exceeds. `GAMES` lists the games; each has
its record in its file.

Z. Li, A. Lowy, J. Liu, T. Koike-Akino, K. Parsons, B. Malin, Y. Wang, "Analyzing Inference Privacy
Risks Through Gradients in Machine Learning", CCS 2024: one game for attributes, properties,
distributions and users. Membership and source are two more instances of it.
"""

from adversary.games.game import Game
from fedsim.core.records import Records

MODULES = (
    "attribute",
    "attribute_known",
    "property_",
    "distribution",
    "user",
    "membership",
    "source",
)
GAMES = Records[Game]("adversary.games", MODULES, "GAME")
