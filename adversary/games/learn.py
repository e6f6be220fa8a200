"""Learning from shadow trials: the adversary plays the client itself, and fits predictors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from jaxtyping import Int
from torch import Tensor

from adversary.games.evidence import Evidence, joined
from adversary.games.game import Draws, Game, draw_secrets
from adversary.games.hypotheses import anybody, defended_hypotheses
from adversary.games.known_record import defended_scores, record_scores
from adversary.games.learner import Learner
from adversary.games.predictors import (
    VALIDATION,
    Predictor,
    Score,
    choose,
    turned,
    upload_scores,
    with_mean,
)
from adversary.games.records import Pool
from adversary.games.scores import auroc_of
from adversary.games.stand_ins import StandIn, drawn, split
from adversary.workspace import Workspace
from fedsim.core.rng import derive, generator
from fedsim.core.secrets import Rules
from fedsim.core.types import Params


@dataclass(frozen=True)
class Knowledge:
    """What the adversary does and does not know.

    Attributes:
        batch: Records per update as it believes; None where it knows the number.
        model: Whether it has every round's weights, or the first round's only.
        label: Whether it knows the label of a record in question.
        others: Whether it knows all other records of the batch: the worst case.
    """

    batch: int | None = None
    model: bool = True
    label: bool = True
    others: bool = False


USUAL = Knowledge()
SHADOWS = {"gradient": 600, "weights": 160}  # trials of an attack on rounds, by what is uploaded


@dataclass(frozen=True, eq=False, kw_only=True)
class Adversary:
    """An adversary of a game, and what it learns from.

    Attributes:
        game: Which.
        rules: What the game leaves open.
        learner: The client.
        pool: Records of the shadow trials, where there are no stand-ins; of the same kind as the
            client's, and disjoint from them.
        shadows: How many shadow trials; a quarter is kept for choosing and calibrating.
        knowledge: Of the client.
        seed: Of everything drawn.
        same_records: Whether shadow trials have the same records in all rounds, or only the same
            secrets.
        stand_ins: Clients with whose defenses it rehearses, where the client's uses records that
            the adversary does not have; each defends as many shadow trials. Those that predictors
            are chosen on are defended by others than those they are fitted on.
    """

    game: Game
    rules: Rules
    learner: Learner
    pool: Pool
    shadows: int
    knowledge: Knowledge = USUAL
    seed: int = 0
    same_records: bool = False
    stand_ins: Sequence[StandIn] = ()

    @property
    def classes(self) -> int:
        """How many values the secret has."""
        return self.game.classes(self.rules)

    @property
    def batch(self) -> int:
        """Records per update as the adversary believes."""
        return self.knowledge.batch or self.rules.batch


@dataclass(frozen=True, eq=False, kw_only=True)
class ShadowTrials:
    """The shadow trials of one round: predictors are fitted on some, and chosen on the others.

    Attributes:
        adversary: Whose.
        shares: The trials that each stand-in defends.
        state: The weights sent.
        draws: The records of all trials.
        secrets: The class of each, shape (shadows,).
        cut: Predictors are fitted on the trials before it.
        coins: Names the randomness of training and of defenses.
    """

    adversary: Adversary
    shares: Sequence[slice]
    state: Params
    draws: Draws
    secrets: Int[Tensor, " n"]
    cut: int
    coins: str

    def plain(self) -> Evidence:
        """Return what the adversary has of all trials, without a defense."""
        return self._look(self.adversary.learner, slice(None), self.coins, defense=False)

    def defended(self) -> Evidence:
        """Return what it has of them under the defense, or each stand-in's."""
        if not self.adversary.stand_ins:
            return self._look(self.adversary.learner, slice(None), self.coins, defense=True)
        places = enumerate(zip(self.adversary.stand_ins, self.shares, strict=True))
        return joined(
            [
                self._look(one.learner, rows, f"{self.coins} {place}", defense=True)
                for place, (one, rows) in places
            ]
        )

    def _look(self, client: Learner, rows: slice, coins: str, *, defense: bool) -> Evidence:
        return client.evidence(
            self.state,
            self.draws.part(rows),
            coins=coins,
            defense=defense,
            knows_label=self.adversary.knowledge.label,
            knows_others=self.adversary.knowledge.others,
            assumed_batch=self.adversary.batch,
        )

    def scores(self, evidence: Evidence, through: float) -> dict[str, Score]:
        """Return ways to score a trial, as the trials before the cut teach them.

        Args:
            evidence: Of all trials.
            through: Which part of a gradient the defense lets through.
        """
        part, secrets = evidence.part(slice(self.cut)), self.secrets[: self.cut]
        if self.adversary.game.has_target:
            return record_scores(part, secrets, through=through)
        seed = derive(self.adversary.seed, "predictor") % 2**32
        return with_mean(
            upload_scores(part, secrets, self.adversary.classes, seed=seed), *self.held(evidence)
        )

    def defended_scores(self, evidence: Evidence) -> dict[str, Score]:
        """Return ways to score a trial by hypotheses that went through the defense; or none."""
        if not self.adversary.game.has_target:
            return {}
        others = anybody(self.adversary.learner, self.state, self.draws)
        clients = tuple(one.learner for one in self.adversary.stand_ins) or (
            self.adversary.learner,
        )
        push = partial(defended_hypotheses, clients, self.state, others=others)
        return defended_scores(evidence.part(slice(self.cut)), self.secrets[: self.cut], push)

    def held(self, evidence: Evidence) -> tuple[Evidence, Int[Tensor, " held"]]:
        """Return what predictors are chosen on: the trials after the cut, and their secrets."""
        return evidence.part(slice(self.cut, None)), self.secrets[self.cut :]


def learn(adversary: Adversary, state: Params, round_: int = 0) -> dict[str, Predictor]:
    """Return the predictor of the static adversary, and of the adaptive one under a defense.

    Args:
        adversary: Who learns.
        state: The weights sent.
        round_: Names the draws of one round.

    Raises:
        ValueError: The game cannot be played with these records.
    """
    trials = _trials(adversary, state, round_)
    plain = trials.plain()
    scores = trials.scores(plain, 1.0)
    static = choose(scores, *trials.held(plain))
    if adversary.learner.auxiliary.defense is None:
        return {"static": static}
    defended = trials.defended()
    adapted = trials.scores(defended, _through(defended.uploads, plain.uploads))
    adapted |= trials.defended_scores(defended)
    held, secrets = trials.held(defended)
    candidates = adapted | {f"static {name}": score for name, score in scores.items()}
    candidates |= turned(candidates, held, secrets)
    reached = auroc_of(static.log_probabilities(held), secrets)
    return {
        "static": replace(static, held_out_auroc=reached),
        "adaptive": choose(candidates, held, secrets),
    }


def rehearsed(
    game: Game, rules: Rules, pool: Pool, work: Workspace, round_: int, *, same_records: bool
) -> tuple[Learner, Predictor]:
    """Return the client of an attack on rounds, and a predictor learned at the weights sent.

    Args:
        game: Which.
        rules: What it leaves open.
        pool: The adversary's records.
        work: Of the round; an adversary that has the defense adapts to it.
        round_: Its number.
        same_records: As of `Adversary`.
    """
    learner = Learner(work.auxiliary, work.local)
    adversary = Adversary(
        game=game, rules=rules, learner=learner, pool=pool,
        shadows=SHADOWS[work.local.upload], same_records=same_records,
    )  # fmt: skip
    predictors = learn(adversary, work.sent, round_)
    return learner, predictors.get("adaptive", predictors["static"])


def _trials(of: Adversary, state: Params, round_: int) -> ShadowTrials:
    """Draw the shadow trials of a round."""
    assumed = replace(of.rules, batch=of.batch)
    secrets = draw_secrets(of.shadows, of.classes, generator(of.seed, "shadow secrets", 0))
    names = "shadows", 0 if of.same_records else round_
    cut = round(of.shadows * (1 - VALIDATION))
    shares = split(of.shadows, cut, len(of.stand_ins))
    draws = (
        drawn(of.game, assumed, of.stand_ins, shares, secrets, of.seed, *names)
        if of.stand_ins
        else of.game.sample(of.pool, assumed, secrets, generator(of.seed, *names))
    )
    return ShadowTrials(
        adversary=of, shares=shares, state=state, draws=draws, secrets=secrets, cut=cut,
        coins=f"{of.seed} shadow {round_}",
    )  # fmt: skip


def _through(defended: Tensor, plain: Tensor) -> float:
    """Return which part of an update the defense lets through, ⟨u, g⟩ / ⟨g, g⟩."""
    return float((defended * plain).sum() / plain.square().sum().clamp(min=1e-30))
