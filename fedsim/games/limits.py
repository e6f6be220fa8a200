"""What no adversary of a game can exceed, by metric: its ceiling, and a defense's promise."""

import math
from collections.abc import Mapping

from adversary.games import ceilings
from adversary.games.game import Game
from defenses.promise import Relation
from fedsim.core.secrets import Rules
from fedsim.games.board import Board

LARGE = 300.0  # an ε beyond which nothing is bounded


def limits(board: Board, game: Game, rules: Rules, rounds: int) -> Mapping[str, float]:
    """Return what no adversary can exceed, by metric.

    Args:
        board: What is played with.
        game: The game.
        rules: What it leaves open.
        rounds: In how many rounds each trial uploads.
    """
    once = game.merged_rounds(rules, rounds)
    prior = board.private.prior if board.config.game.column is not None else 0.5
    auroc = 1.0 if once is None else game.ceiling(once, prior)
    bits = math.log2(game.classes(rules)) if once is None else game.bits(once, prior)
    open_limits = {
        "auroc": auroc,
        "information": bits,
        "advantage": 1.0,
        "accuracy": 1 - ceilings.error_floor(bits, game.classes(rules)),
    }
    promised = _promised(board, game, rules, rounds)
    return open_limits | {name: min(open_limits[name], value) for name, value in promised.items()}


def _promised(board: Board, game: Game, rules: Rules, rounds: int) -> Mapping[str, float]:
    """Return the limits that the defense's promise sets, if it covers the secret.

    An ε that holds when one record is added or removed holds twice over when one is replaced.
    """
    defense = board.defense
    if defense is None or defense.promise.epsilon is None or game.classes(rules) > 2:
        return {}
    promise, local = defense.promise, board.client(rules.batch).local
    mu = promise.mu(local, rules.batch, rounds) if promise.mu else None
    if mu is not None and promise.relation is Relation.REPLACE_CLIENT:
        # Two batches are two data sets of one client.
        return {"auroc": ceilings.gaussian_auroc(mu), "advantage": ceilings.gaussian_advantage(mu)}
    epsilon = defense.promise.epsilon(local, rules.batch, rounds)
    if not game.single_record or rules.count > 1 or epsilon > LARGE:
        return {}
    doubled = min(1.0, promise.delta * (1 + math.exp(epsilon)))
    advantage = ceilings.private_advantage(2 * epsilon, doubled)
    return {"auroc": ceilings.auroc_of_advantage(advantage), "advantage": advantage}
