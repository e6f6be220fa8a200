"""Playing a game: many independent trials against an adversary that learns from shadow trials."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from adversary.games.game import draw_secrets
from adversary.games.learn import Adversary, learn
from adversary.games.predictors import Predictor, combine
from adversary.games.records import Pool
from adversary.games.scores import Measured
from fedsim.core.rng import generator
from fedsim.core.types import Params


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
    adversary: Adversary, private: Pool, states: Sequence[Params], *, trials: int
) -> dict[str, Played]:
    """Play a game, and return what the static and the adaptive adversary answered.

    A static one learns from undefended shadow trials; an adaptive one also from defended ones, and
    chooses on defended shadow trials among all predictors, the static ones included. Without a
    defense there is the static one only.

    Args:
        adversary: Who plays, and which game.
        private: Records of the trials.
        states: The weights sent in every round; each trial uploads in each round, new records
            under the same secret.
        trials: How many.

    Raises:
        ValueError: The game cannot be played with these records.
    """
    game, rules, knowledge = adversary.game, adversary.rules, adversary.knowledge
    secrets = draw_secrets(trials, adversary.classes, generator(adversary.seed, "secrets"))
    rounds: dict[str, list[tuple[Tensor, Predictor]]] = defaultdict(list)
    uploads: list[Tensor] = []
    fitted: dict[str, Predictor] = {}
    for round_, state in enumerate(states):
        draws = game.sample(private, rules, secrets, generator(adversary.seed, "trials", round_))
        evidence = adversary.learner.evidence(
            state,
            draws,
            coins=f"{adversary.seed} trial {round_}",
            defense=True,
            knows_label=knowledge.label,
            knows_others=knowledge.others,
            assumed_batch=adversary.batch,
            assumed_state=state if knowledge.model else states[0],
        )
        uploads.append(evidence.uploads)
        if knowledge.model or not fitted:
            fitted = learn(adversary, state, round_)
        for name, predictor in fitted.items():
            rounds[name].append((predictor.log_probabilities(evidence), predictor))
    return {name: _played(of, uploads, secrets) for name, of in rounds.items()}


def _played(
    rounds: Sequence[tuple[Tensor, Predictor]], uploads: Sequence[Tensor], secrets: Tensor
) -> Played:
    """Return what one adversary answered, from its answer and predictor of each round."""
    answers, predictors = zip(*rounds, strict=True)
    return Played(
        combine(answers, uploads),
        secrets,
        tuple(predictor.name for predictor in predictors),
        tuple(predictor.held_out_auroc for predictor in predictors),
    )
