"""Playing a game: many independent trials against an adversary that learns from shadow trials."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from jaxtyping import Float, Int
from torch import Tensor

from adversary.games.evidence import Evidence, joined
from adversary.games.game import Game, draw_secrets
from adversary.games.hypotheses import anybody, defended_hypotheses
from adversary.games.known_record import defended_scores, record_scores
from adversary.games.learner import Learner
from adversary.games.predictors import (
    VALIDATION,
    Predictor,
    Score,
    choose,
    combine,
    turned,
    upload_scores,
    with_mean,
)
from adversary.games.records import Pool
from adversary.games.scores import Measured, auroc_of
from adversary.games.stand_ins import StandIn, drawn, split
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


@dataclass(frozen=True)
class Played:
    """What an adversary answered in each trial.

    Attributes:
        log_probabilities: log p(secret | uploads) in nats, shape (trials, classes).
        secrets: Shape (trials,).
        chosen: The predictor of each round.
        held_out: Of each round, its AUROC on held-out shadow trials, defended as the trials are.
    """

    log_probabilities: Float[Tensor, "n classes"]
    secrets: Int[Tensor, " n"]
    chosen: tuple[str, ...]
    held_out: tuple[Measured, ...]

    @property
    def worst(self) -> Measured:
        """The lowest AUROC on held-out shadow trials."""
        return min(self.held_out, key=lambda measured: measured.value)


def play(
    game: Game,
    rules: Rules,
    private: Pool,
    auxiliary: Pool,
    learner: Learner,
    states: Sequence[Params],
    *,
    trials: int,
    shadows: int,
    knowledge: Knowledge = Knowledge(),
    seed: int = 0,
    stand_ins: Sequence[StandIn] = (),
) -> dict[str, Played]:
    """Play a game, and return what the static and the adaptive adversary answered.

    A static one learns from undefended shadow trials; an adaptive one also from defended ones, and
    chooses on defended shadow trials among all predictors, the static ones included. Without a
    defense there is the static one only.

    Args:
        game: Which.
        rules: What it leaves open.
        private: Records of the trials.
        auxiliary: Records of the shadow trials; of the same kind, and disjoint.
        learner: The client.
        states: The weights sent in every round; each trial uploads in each round, new records
            under the same secret.
        trials: How many.
        shadows: How many shadow trials; a quarter is kept for choosing and calibrating.
        knowledge: Of the adversary.
        seed: Of everything drawn.
        stand_ins: As for `learn`.

    Raises:
        ValueError: The game cannot be played with these records.
    """
    secrets = draw_secrets(trials, game.classes(rules), generator(seed, "secrets"))
    adversaries = ["static", "adaptive"] if learner.auxiliary.defense is not None else ["static"]
    answers: dict[str, list[Tensor]] = {name: [] for name in adversaries}
    used: dict[str, list[Predictor]] = {name: [] for name in adversaries}
    uploads: list[Tensor] = []
    fitted: dict[str, Predictor] = {}
    for round_, state in enumerate(states):
        draws = game.sample(private, rules, secrets, generator(seed, "trials", round_))
        evidence = learner.evidence(
            state,
            draws,
            coins=f"{seed} trial {round_}",
            defense=True,
            knows_label=knowledge.label,
            knows_others=knowledge.others,
            assumed_batch=knowledge.batch or rules.batch,
            assumed_state=state if knowledge.model else states[0],
        )
        uploads.append(evidence.uploads)
        if knowledge.model or not fitted:
            fitted = learn(
                game,
                rules,
                auxiliary,
                learner,
                state,
                stand_ins=stand_ins,
                shadows=shadows,
                knowledge=knowledge,
                seed=seed,
                round_=round_,
            )
        for name in adversaries:
            answers[name].append(fitted[name].log_probabilities(evidence))
            used[name].append(fitted[name])
    return {
        name: Played(
            combine(answers[name], uploads),
            secrets,
            tuple(predictor.name for predictor in used[name]),
            tuple(predictor.held_out_auroc for predictor in used[name]),
        )
        for name in adversaries
    }


def learn(
    game: Game,
    rules: Rules,
    auxiliary: Pool,
    learner: Learner,
    state: Params,
    *,
    shadows: int,
    knowledge: Knowledge = Knowledge(),
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

    def look(client: Learner, rows: slice, coins: str, *, defense: bool) -> Evidence:
        return client.evidence(
            state,
            draws.part(rows),
            coins=coins,
            defense=defense,
            knows_label=knowledge.label,
            knows_others=knowledge.others,
            assumed_batch=assumed.batch,
        )

    everything, coins = slice(None), f"{seed} shadow {round_}"

    def fit(shown: Evidence, through: float) -> dict[str, Score]:
        part, last = shown.part(slice(cut)), shown.part(slice(cut, None))
        if game.has_target:
            return record_scores(part, secrets[:cut], through=through)
        scores = upload_scores(part, secrets[:cut], classes, seed=derive(seed, "predictor") % 2**32)
        return with_mean(scores, last, secrets[cut:])

    plain = look(learner, everything, coins, defense=False)
    scores = fit(plain, 1.0)
    predictors = {"static": choose(scores, plain.part(slice(cut, None)), secrets[cut:])}
    if learner.auxiliary.defense is not None:
        looks = [
            look(one.learner, rows, f"{coins} {place}", defense=True)
            for place, (one, rows) in enumerate(zip(stand_ins, shares, strict=True))
        ]
        hidden = joined(looks) if looks else look(learner, everything, coins, defense=True)
        adapted = fit(hidden, _through(hidden.uploads, plain.uploads))
        if game.has_target:
            others = anybody(learner, state, draws)
            clients = tuple(one.learner for one in stand_ins) or (learner,)
            push = partial(defended_hypotheses, clients, state, others=others)
            adapted |= defended_scores(hidden.part(slice(cut)), secrets[:cut], push)
        last = hidden.part(slice(cut, None))
        static = predictors["static"]
        met = auroc_of(static.log_probabilities(last), secrets[cut:])
        predictors["static"] = replace(static, held_out_auroc=met)
        candidates = adapted | {f"static {name}": score for name, score in scores.items()}
        candidates |= turned(candidates, last, secrets[cut:])
        predictors["adaptive"] = choose(candidates, last, secrets[cut:])
    return predictors


def _through(defended: Tensor, plain: Tensor) -> float:
    """Return which part of an update the defense lets through, ⟨u, g⟩ / ⟨g, g⟩."""
    return float((defended * plain).sum() / plain.square().sum().clamp(min=1e-30))
