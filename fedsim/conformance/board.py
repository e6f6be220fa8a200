"""What attacks are tested on: clients of a small model, whose secrets are known.

Every family is asked about the same clients: four inputs, ten classes, one gradient. Attacks that
reconstruct get a picture and a wider model.
"""

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Generator, Tensor, nn

from adversary.secrets import SECRETS, secret_of
from fedsim.conformance.views import bilinear, observe, plain_gradient
from fedsim.core.ground_truth import Truth
from fedsim.core.memory import Memory
from fedsim.core.rng import generator, global_stream
from fedsim.core.schema import Column, schema_of
from fedsim.core.secrets import Encoding, Rules
from fedsim.core.types import Auxiliary, Candidates, Ranges, Sets, View

NUM_CLASSES, OTHERS = 10, 7
MODEL = bilinear(NUM_CLASSES, features=20)
AUX_LABELS = torch.arange(200) % NUM_CLASSES
ENCODING = Encoding(torch.tensor([3]), torch.tensor([0.0]), torch.tensor([1.0]))
MARKS = torch.randint(2, (300,), generator=generator(0, "marks"))  # of candidates, then auxiliary
CANDIDATES = Candidates(
    ENCODING.put(torch.rand(100, 4, generator=generator(0, "asked")), MARKS[:100]),
    AUX_LABELS[:100],
)
UNKNOWN = torch.tensor([1.0, 0.0, 0.0, 0.0])  # the entry of a record that ranges leave open
RANGES = Ranges(
    CANDIDATES.inputs * (1 - UNKNOWN), CANDIDATES.inputs.maximum(UNKNOWN), CANDIDATES.labels
)
SETS = Sets(CANDIDATES.inputs[:50], CANDIDATES.labels[:50], {"0": torch.arange(50)}, {"0": 0.5})
RULES = Rules(1, shares=(0.2, 0.8), users=2)
AUXILIARY = Auxiliary(
    MODEL,
    NUM_CLASSES,
    inputs=ENCODING.put(torch.rand(200, 4, generator=generator(0, "auxiliary")), MARKS[100:]),
    labels=AUX_LABELS,
    candidates=CANDIDATES,
    ranges=RANGES,
    sets=SETS,
    marks=dict.fromkeys(("attribute", *SECRETS), MARKS[100:]),
    rules=RULES,
    encoding=ENCODING,
)
MEMORY = Memory()  # the same weights are sent in all trials
SENT = {name: value.clone() for name, value in MODEL.state_dict().items()}

PIXELS = (1, 6, 6)
PICTURES = torch.rand(40, *PIXELS, generator=generator(0, "pictures"))
with global_stream(0, "flat"):
    FLAT = nn.Sequential(nn.Flatten(), nn.Linear(36, 40), nn.ReLU(), nn.Linear(40, 5))
FLAT_SENT = {name: value.clone() for name, value in FLAT.state_dict().items()}
SCHEMA = schema_of([Column(f"pixel {place}", (place,)) for place in range(36)], 36)
KNOWS = Auxiliary(FLAT, 5, inputs=PICTURES[10:], labels=torch.arange(30) % 5, schema=SCHEMA)


class Patched(nn.Module):
    """Patches of 2×2 pixels with learned positions, for attacks on nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 2, stride=2)
        self.positions = nn.Parameter(torch.zeros(1, 9, 16))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(144, 20), nn.Tanh(), nn.Linear(20, 5))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(tokens + tokens.mean(1, keepdim=True).tanh())


class Tokens(nn.Module):
    """The same with a linear layer on each token, for attacks that read the tokens' span."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 24, 2, stride=2)
        self.positions = nn.Parameter(torch.randn(1, 9, 24))
        self.each = nn.Linear(24, 24)
        self.head = nn.Linear(216, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.each(tokens).tanh().flatten(1))


with global_stream(0, "patched"):
    PATCHED, TOKENS = Patched(), Tokens()
with global_stream(0, "narrowing"):  # a convolution with few places, for attacks on nothing else
    NARROWING = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 24, 3, 2, 1), nn.Tanh(),
        nn.Flatten(), nn.Linear(216, 5),
    )  # fmt: skip
PICTURED = tuple(  # what who attacks pictures may know
    replace(KNOWS, model=model) for model in (FLAT, PATCHED, TOKENS, NARROWING)
)


def trial(seed: int, *, independent: bool = False, size: int = 1) -> tuple[View, Truth]:
    """Return one client's view and truth.

    The client's examples are among the candidates, and so are those of the other clients.

    Args:
        seed: Of the trial.
        independent: Whether updates are nothing but noise.
        size: Number of the client's examples.
    """
    stream = generator(seed, "trial")
    order = torch.randperm(len(CANDIDATES.labels), generator=stream)
    rows, others = order[:size], order[size : size + OTHERS * 8].split(8)
    labels = CANDIDATES.labels[rows]
    view, *cohort = (
        observe(gradient_of(used, stream if independent else None), len(used), sent=SENT, client=c)
        for c, used in zip("01234567", (rows, *others), strict=True)
    )
    members = torch.isin(torch.arange(len(CANDIDATES.labels)), rows)
    users = torch.isin(torch.arange(len(CANDIDATES.labels)), order[: size + OTHERS * 8]).long()
    secrets = {family: secret_of(family, MARKS[rows], RULES) for family in SECRETS}
    truth = Truth(
        labels,
        rows,
        members,
        CANDIDATES.labels,
        users,
        ranges=members,  # no other candidate lies in a candidate's range
        range_classes=CANDIDATES.labels,
        in_set=members[:50],
        secrets={family: value for family, value in secrets.items() if value is not None},
        attributes=MARKS[:100] == 1,
    )
    return View(view.observations, [[each.latest for each in (view, *cohort)]], MEMORY), truth


shared_trial = lru_cache(maxsize=None)(trial)  # of all attacks, which leave their views alone


def gradient_of(rows: Tensor, noise: Generator | None = None) -> dict[str, Tensor]:
    """Return the gradient of some candidates, or drawn from `noise`."""
    if noise is not None:
        return {k: torch.randn(v.shape, generator=noise) for k, v in SENT.items()}
    return plain_gradient(MODEL, CANDIDATES.inputs[rows], CANDIDATES.labels[rows])


def picture(place: int, knows: Auxiliary = KNOWS) -> View:
    """Return the view of a client with one picture."""
    label = torch.tensor([place % 5])
    gradient = plain_gradient(knows.model, PICTURES[place : place + 1], label)
    return observe(gradient, 1, sent=_sent(knows))


def noise_picture(place: int, knows: Auxiliary = KNOWS) -> View:
    """Return the view of a client whose upload is nothing but noise."""
    stream, sent = generator(place, "noise"), _sent(knows)
    noise = {k: torch.randn(v.shape, generator=stream) for k, v in sent.items()}
    return observe(noise, 1, sent=sent)


def _sent(knows: Auxiliary) -> dict[str, Tensor]:
    if knows is KNOWS:
        return FLAT_SENT
    return {name: value.clone() for name, value in knows.model.state_dict().items()}
