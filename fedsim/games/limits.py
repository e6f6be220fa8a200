"""What no adversary of a game can exceed, by metric: of its records, and of a defense's promise."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from adversary.games import ceilings
from adversary.games.game import Game, Shift
from defenses.promise import Promise, Relation
from fedsim.core.secrets import Rules
from fedsim.games.board import Board

LARGE = 300.0  # an ε beyond which nothing is bounded

Values = Mapping[str, float]


@dataclass(frozen=True)
class Limits:
    """What no adversary can exceed, by metric.

    Attributes:
        records: Who reads the records as far as the game's closed form goes: the count ceiling.
        promised: What the defense guarantees of this secret; empty where it guarantees nothing.
        promise: μ or ε that `promised` follows from; None where it guarantees nothing.
    """

    records: Values
    promised: Values
    promise: str | None = None

    def lowest(self, metric: str) -> float:
        """Return the lower of both; NaN for a metric without any."""
        both = [values[metric] for values in (self.records, self.promised) if metric in values]
        return min(both, default=math.nan)


def limits(board: Board, game: Game, rules: Rules, rounds: int) -> Limits:
    """Return what no adversary can exceed.

    Args:
        board: What is played with.
        game: The game.
        rules: What it leaves open.
        rounds: In how many rounds each trial uploads.
    """
    once = game.merged_rounds(rules, rounds)
    prior = board.private.prior if board.config.game.column is not None else 0.5
    bits = math.log2(game.classes(rules)) if once is None else game.bits(once, prior)
    records = {
        "auroc": 1.0 if once is None else game.ceiling(once, prior),
        "information": bits,
        "advantage": 1.0,
        "accuracy": 1 - ceilings.error_floor(bits, game.classes(rules)),
    }
    return Limits(records, *_promised(board, game, rules, rounds))


def _promised(board: Board, game: Game, rules: Rules, rounds: int) -> tuple[Values, str | None]:
    """Return what the defense guarantees of a game's secret, and in which numbers."""
    promise = None if board.defense is None else board.defense.promise
    if promise is None or not promise.formal:
        return {}, None
    local = board.client(rules.batch).local
    about, shift = _about(promise, game, rules, rounds)
    if about is None or about.epsilon is None or shift is None:
        return {}, None
    mu = about.mu(local, rules.batch, 1) if about.mu else None
    if mu is not None:
        values = _gaussian(mu, shift)
        if game.classes(rules) > 2:  # each class against a mixture of the others
            values = {"auroc": values["auroc"]}
        return values, f"μ = {mu:.3g} for a replaced {_unit(about)}, one round"
    epsilon = about.epsilon(local, rules.batch, rounds)
    if not shift.is_one_record(rounds) or epsilon > LARGE or game.classes(rules) > 2:
        return {}, None
    return _private(epsilon, about.delta), f"ε = {epsilon:.3g} for a replaced {_unit(about)}"


def _unit(promise: Promise) -> str:
    return "client" if promise.relation is Relation.REPLACE_CLIENT else "record"


def _about(
    promise: Promise, game: Game, rules: Rules, rounds: int
) -> tuple[Promise | None, Shift | None]:
    """Return the promise that covers a secret, and how far the secret moves the uploads.

    A promise about all of a client's data comes first: two batches are two data sets of a client.
    """
    if (whole := promise.about(Relation.REPLACE_CLIENT)) is not None:
        return whole, Shift.of(1, rounds)
    attribute = game.has_target and game.has_column
    relation = Relation.REPLACE_ATTRIBUTE if attribute else Relation.REPLACE_EXAMPLE
    return promise.about(relation), None if game.shift is None else game.shift(rules, rounds)


def _gaussian(mu: float, shift: Shift) -> Values:
    mus = mu * shift.sizes
    mean = lambda bound: float(sum(p * bound(m) for m, p in zip(mus, shift.chances, strict=True)))
    advantage = mean(ceilings.gaussian_advantage)
    return {
        "auroc": ceilings.mixed_gaussian_auroc(mus, shift.chances),
        "information": mean(ceilings.gaussian_information),
        "advantage": advantage,
        "accuracy": (1 + advantage) / 2,
    }


def _private(epsilon: float, delta: float) -> Values:
    advantage = ceilings.private_advantage(epsilon, delta)
    return {
        "auroc": ceilings.private_auroc(epsilon, delta),
        "information": ceilings.private_information(epsilon, delta),
        "advantage": advantage,
        "accuracy": (1 + advantage) / 2,
    }
