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
class ShadowTrials:
    """The shadow trials of one round: predictors are fitted on some, and chosen on the others.

    Attributes:
        game: Which.
        classes: How many values its secret has.
        learner: The client.
        stand_ins: As for `learn`.
        shares: The trials that each stand-in defends.
        state: The weights sent.
        draws: The records of all trials.
        secrets: The class of each, shape (shadows,).
        cut: Predictors are fitted on the trials before it.
        batch: Records per update as the adversary believes.
        knowledge: Of the adversary.
        seed: Of everything drawn.
        coins: Names the randomness of training and of defenses.
    """

    game: Game
    classes: int
    learner: Learner
    stand_ins: Sequence[StandIn]
    shares: Sequence[slice]
    state: Params
    draws: Draws
    secrets: Int[Tensor, " n"]
    cut: int
    batch: int
    knowledge: Knowledge
    seed: int
    coins: str

    def plain(self) -> Evidence:
        """Return what the adversary has of all trials, without a defense."""
        return self._look(self.learner, slice(None), self.coins, defense=False)

    def defended(self) -> Evidence:
        """Return what it has of them under the defense, or each stand-in's."""
        if not self.stand_ins:
            return self._look(self.learner, slice(None), self.coins, defense=True)
        places = enumerate(zip(self.stand_ins, self.shares, strict=True))
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
            knows_label=self.knowledge.label,
            knows_others=self.knowledge.others,
            assumed_batch=self.batch,
        )

    def scores(self, evidence: Evidence, through: float) -> dict[str, Score]:
        """Return ways to score a trial, as the trials before the cut teach them.

        Args:
            evidence: Of all trials.
            through: Which part of a gradient the defense lets through.
        """
        part, secrets = evidence.part(slice(self.cut)), self.secrets[: self.cut]
        if self.game.has_target:
            return record_scores(part, secrets, through=through)
        seed = derive(self.seed, "predictor") % 2**32
        return with_mean(
            upload_scores(part, secrets, self.classes, seed=seed), *self.held(evidence)
        )

    def defended_scores(self, evidence: Evidence) -> dict[str, Score]:
        """Return ways to score a trial by hypotheses that went through the defense; or none."""
        if not self.game.has_target:
            return {}
        others = anybody(self.learner, self.state, self.draws)
        clients = tuple(one.learner for one in self.stand_ins) or (self.learner,)
        push = partial(defended_hypotheses, clients, self.state, others=others)
        return defended_scores(evidence.part(slice(self.cut)), self.secrets[: self.cut], push)

    def held(self, evidence: Evidence) -> tuple[Evidence, Int[Tensor, " held"]]:
        """Return what predictors are chosen on: the trials after the cut, and their secrets."""
        return evidence.part(slice(self.cut, None)), self.secrets[self.cut :]


def learn(
    game: Game,
    rules: Rules,
    auxiliary: Pool,
    learner: Learner,
    state: Params,
    *,
    shadows: int,
    knowledge: Knowledge = USUAL,
    seed: int = 0,
    round_: int = 0,
    same_records: bool = False,
    stand_ins: Sequence[StandIn] = (),
) -> dict[str, Predictor]:
    """Return the predictor of the static adversary, and of the adaptive one under a defense.

    Args:
        game: Which.
        rules: What it leaves open.
        auxiliary: Records of the shadow trials, where there are no stand-ins.
        learner: The client.
        state: The weights sent.
        shadows: How many shadow trials; a quarter is kept for choosing and calibrating.
        knowledge: Of the adversary.
        seed: Of everything drawn.
        round_: Names the draws of one round.
        same_records: Whether shadow trials have the same records in all rounds, or only the same
            secrets.
        stand_ins: Clients with whose defenses the adversary rehearses, where the client's uses
            records that the adversary does not have; each defends as many shadow trials. Those
            that predictors are chosen on are defended by others than those they are fitted on.

    Raises:
        ValueError: The game cannot be played with these records.
    """
    trials = _trials(
        game,
        rules,
        auxiliary,
        learner,
        state,
        shadows=shadows,
        knowledge=knowledge,
        seed=seed,
        round_=round_,
        same_records=same_records,
        stand_ins=stand_ins,
    )
    plain = trials.plain()
    scores = trials.scores(plain, 1.0)
    static = choose(scores, *trials.held(plain))
    if learner.auxiliary.defense is None:
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
        same_records: As for `learn`.
    """
    learner = Learner(work.auxiliary, work.local)
    count = SHADOWS[work.local.upload]
    predictors = learn(
        game,
        rules,
        pool,
        learner,
        work.sent,
        shadows=count,
        round_=round_,
        same_records=same_records,
    )
    return learner, predictors.get("adaptive", predictors["static"])


def _trials(
    game: Game,
    rules: Rules,
    auxiliary: Pool,
    learner: Learner,
    state: Params,
    *,
    shadows: int,
    knowledge: Knowledge,
    seed: int,
    round_: int,
    same_records: bool,
    stand_ins: Sequence[StandIn],
) -> ShadowTrials:
    """Draw the shadow trials of a round; the arguments are those of `learn`."""
    classes = game.classes(rules)
    assumed = rules if knowledge.batch is None else replace(rules, batch=knowledge.batch)
    secrets = draw_secrets(shadows, classes, generator(seed, "shadow secrets", 0))
    names = "shadows", 0 if same_records else round_
    cut = round(shadows * (1 - VALIDATION))
    shares = split(shadows, cut, len(stand_ins))
    draws = (
        drawn(game, assumed, stand_ins, shares, secrets, seed, *names)
        if stand_ins
        else game.sample(auxiliary, assumed, secrets, generator(seed, *names))
    )
    return ShadowTrials(
        game=game,
        classes=classes,
        learner=learner,
        stand_ins=stand_ins,
        shares=shares,
        state=state,
        draws=draws,
        secrets=secrets,
        cut=cut,
        batch=assumed.batch,
        knowledge=knowledge,
        seed=seed,
        coins=f"{seed} shadow {round_}",
    )


def _through(defended: Tensor, plain: Tensor) -> float:
    """Return which part of an update the defense lets through, ⟨u, g⟩ / ⟨g, g⟩."""
    return float((defended * plain).sum() / plain.square().sum().clamp(min=1e-30))
