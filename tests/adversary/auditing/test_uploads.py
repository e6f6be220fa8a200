import numpy as np
import pytest
import torch
from torch import nn

from adversary.auditing.uploads import RecordScores, UpdateScores, template
from clients.carried import direction, reach, turn
from defenses import clip, gaussian, sign
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining, Observation, Update

LINKS = [clip(bound=0.5), gaussian(std=3.0)]
LIKE = {"w": torch.zeros(40, 5), "b": torch.zeros(5)}


def canary_of(client="0"):
    return {n: reach(LINKS) * v for n, v in direction(LIKE, 0, client).items()}


def score_uploads(uploads, expected):
    """Score the uploads of rounds 1, 2, …"""
    scores, local = UpdateScores(expected, turn), LocalTraining(lr=0.1, batch_size=1)
    for round_, upload in enumerate(uploads, 1):
        scores.add(Observation(LIKE, Update(round_, "0", upload, 1), local))
    return scores.result()


def test_a_template_is_what_is_left_without_the_noise():
    expected = template(LINKS, canary_of(), 0)
    length = sum(float(v.square().sum()) for v in expected.values()) ** 0.5
    assert length == pytest.approx(0.5, rel=1e-5)
    assert torch.equal(
        template([*LINKS, sign()], canary_of(), 0)["w"].sign(), canary_of()["w"].sign()
    )


def test_scores_without_noise_are_the_coins():
    expected = template(LINKS, canary_of(), 0)
    uploads = [{n: -turn(t) * v for n, v in expected.items()} for t in (1, 2, 3)]
    result = score_uploads(uploads, expected)
    assert result.scores == pytest.approx([-1, -1, -1])
    assert result.cosine == pytest.approx(-1)
    assert result.dimension == 205


def test_noise_that_is_used_again_cancels_in_every_second_round():
    expected, stream = template(LINKS, canary_of(), 0), generator(0, "noise")
    noise = {n: torch.randn(v.shape, generator=stream) for n, v in LIKE.items()}
    uploads = [{n: noise[n] + turn(t) * v for n, v in expected.items()} for t in (1, 2)]
    assert score_uploads(uploads[:1], expected).cosine < 0.5
    assert score_uploads(uploads, expected).cosine == pytest.approx(1.0, abs=1e-5)


def test_a_canarys_direction_is_its_clients():
    first, other = direction(LIKE, 0, "0"), direction(LIKE, 0, "1")
    assert sum(float(v.square().sum()) for v in first.values()) == pytest.approx(1.0)
    assert abs(sum(float((v * other[n]).sum()) for n, v in first.items())) < 0.3


class Tempered(nn.Linear):
    """Has a parameter of no axis."""

    def __init__(self):
        super().__init__(60, 3)
        self.temperature = nn.Parameter(torch.tensor(0.9))

    def forward(self, input):
        return super().forward(input) * self.temperature


@pytest.mark.parametrize("build", [lambda: nn.Linear(60, 3), Tempered], ids=["plain", "tempered"])
@pytest.mark.parametrize("upload", ["gradient", "weights"])
def test_evidence_finds_the_records_that_were_in(upload, build):
    from torch.nn import functional

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
    stream = generator(0, "records")
    inputs = torch.randn(20, 60, generator=stream)
    labels, coins = torch.arange(20) % 3, np.arange(20) % 2 == 0
    local = LocalTraining(lr=0.1, batch_size=30, upload=upload)
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    loss = functional.cross_entropy(model(inputs[coins]), labels[coins], reduction="sum") / 30
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    scale = 1.0 if upload == "gradient" else -local.lr
    names = [name for name, _ in model.named_parameters()]
    delta = {n: scale * g for n, g in zip(names, gradient, strict=True)}
    evidence = RecordScores(model, inputs, labels, clip=float("inf"), num_examples=30)
    evidence.add(Observation(sent, Update(1, "0", delta, 30), local))
    assert ((evidence.result() > 0) == coins).all()
