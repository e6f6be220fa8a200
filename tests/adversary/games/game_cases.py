"""A small census of six numbers and a sex, half of it the client's and half the adversary's."""

from functools import lru_cache

import torch
from torch import Generator, Tensor, nn

from adversary.games import GAMES
from adversary.games.evidence import Evidence
from adversary.games.game import draw_secrets
from adversary.games.learn import Adversary, Knowledge
from adversary.games.learner import Learner
from adversary.games.play import Played, play
from adversary.games.records import Pool
from adversary.games.scores import Measured, auroc, macro_auroc
from defenses import Defense
from defenses.defense import State
from fedsim.core.rng import generator, global_stream
from fedsim.core.secrets import Encoding, Rules
from fedsim.core.types import Auxiliary, LocalTraining, Params

SIZE, NUMBERS = 2000, 6
ALL = Knowledge()
HALVES = ("private", "auxiliary")
PRIOR = 0.6  # of the sex that is asked about
ENCODING = Encoding(
    torch.tensor([NUMBERS, NUMBERS + 1]), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
)


@lru_cache
def census(half: str, *, inside: bool = True, users: int = 0) -> Pool:
    """Return the "private" or the "auxiliary" half; where not `inside`, sex is no input.

    With `users`, marks say whose record it is: users differ in the mean of one number.
    """
    stream = generator(0, "census", half)
    sex = (torch.rand(SIZE, generator=stream) < PRIOR).long()
    marks = torch.randint(users, (SIZE,), generator=stream) if users else sex
    numbers = torch.randn(SIZE, NUMBERS, generator=stream)
    numbers[:, 0] += 1.5 * (2 * sex - 1)  # gives the sex away, but not always
    numbers[:, 1] += 2.0 * marks * (users > 0)
    chance = torch.sigmoid(numbers[:, 2] + numbers[:, 3] + sex - 0.5)
    labels = (torch.rand(SIZE, generator=stream) < chance).long()
    if not inside:
        return Pool(numbers, labels, marks)
    coded = torch.where(sex[:, None] == 1, ENCODING.present, ENCODING.absent)
    return Pool(torch.cat([numbers, coded], dim=1), labels, marks, ENCODING)


def learner(
    defense: Defense | None = None,
    *,
    inside: bool = True,
    local: LocalTraining | None = None,
    hidden: int = 8,
) -> Learner:
    """Return a client with a small network that uploads a gradient."""
    with global_stream(0, "census"):
        model = nn.Sequential(
            nn.Linear(NUMBERS + 2 * inside, hidden), nn.ReLU(), nn.Linear(hidden, 2)
        )
    return Learner(
        Auxiliary(model, 2, defense=defense), local or LocalTraining(0.1, 1, upload="gradient")
    )


def played(
    game: str,
    batch: int = 1,
    defense: Defense | None = None,
    *,
    inside: bool = True,
    trials: int = 600,
    shadows: int = 900,
    rounds: int = 1,
    rules: Rules | None = None,
    knowledge: Knowledge = ALL,
    seed: int = 0,
    local: LocalTraining | None = None,
) -> dict[str, Played]:
    """Play a game of the census at the first weights."""
    rules = rules or Rules(batch)
    client = learner(defense, inside=inside, local=local)
    users = rules.users if game == "user" else 0
    private, public = (census(half, inside=inside, users=users) for half in HALVES)
    adversary = Adversary(
        game=GAMES[game], rules=rules, learner=client, pool=public,
        shadows=shadows, knowledge=knowledge, seed=seed,
    )  # fmt: skip
    return play(adversary, private, [client.model.state_dict()] * rounds, trials=trials)


def evidence(game: str, batch: int, half: str, *, count: int) -> tuple[Evidence, Tensor]:
    """Return what an adversary has of undefended trials with half of the census, and the truth."""
    rules, client = Rules(batch), learner()
    wanted = draw_secrets(count, GAMES[game].classes(rules), generator(0, "secrets", half))
    trials = GAMES[game].sample(census(half), rules, wanted, generator(0, "records", half))
    return client.evidence(
        client.model.state_dict(), trials, coins=half, defense=False,
        knows_label=True, knows_others=False, assumed_batch=batch,
    ), wanted  # fmt: skip


def told(one: Played) -> Measured:
    """Return the AUROC of what an adversary said."""
    if one.log_probabilities.shape[1] > 2:
        return macro_auroc(one.log_probabilities, one.secrets)
    odds = one.log_probabilities[:, 1] - one.log_probabilities[:, 0]
    return auroc(odds, one.secrets == 1)


def chance_error(trials: int) -> float:
    """Return the standard error of an AUROC of 1/2 over as many trials, half of each kind."""
    half = trials / 2
    return ((2 * half + 1) / (12 * half**2)) ** 0.5


def error(one: Measured) -> float:
    """Return an AUROC's standard error."""
    return (one.high - one.low) / (2 * 1.959964)


def rotation() -> Defense:
    """A defense that turns every update by one secret rotation: what it hides, it hides well."""

    @lru_cache
    def basis(size: int) -> Tensor:
        return torch.linalg.qr(flat_noise(size, size, "rotation"))[0]

    def apply(params: Params, state: State, _: Generator) -> tuple[dict[str, Tensor], State]:
        flat = torch.cat([value.flatten() for value in params.values()])
        parts = (basis(len(flat)) @ flat).split([value.numel() for value in params.values()])
        named = zip(params, parts, params.values(), strict=True)
        return {name: part.view_as(value) for name, part, value in named}, state

    return Defense(name="rotation", apply=apply)


def flat_noise(size: int, dims: int, *names: object) -> Tensor:
    """Return independent N(0, 1)."""
    return torch.randn(size, dims, generator=generator(0, *names))
