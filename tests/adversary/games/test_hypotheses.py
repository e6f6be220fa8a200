import pytest
import torch

from adversary.games.evidence import Evidence, Records
from adversary.games.game import Draws
from adversary.games.hypotheses import defended_hypotheses
from defenses import clip, gaussian, prune, sign
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining
from tests.adversary.games.game_cases import census, learner, rotation

COUNT, BATCH = 5, 4
GRADIENT, WEIGHTS = LocalTraining(0.1, BATCH, upload="gradient"), LocalTraining(0.1, BATCH)


def batches():
    pool = census("private")
    rows = torch.randint(len(pool.labels), (COUNT, BATCH), generator=generator(0, "batches"))
    return pool.inputs[rows], pool.labels[rows]


@pytest.mark.parametrize("local", [GRADIENT, WEIGHTS])
def test_hypotheses_go_through_the_defense_as_uploads_do(local):
    inputs, labels = batches()
    trials = Draws(
        inputs=inputs,
        labels=labels,
        secrets=torch.zeros(COUNT).long(),
        targets=torch.stack([inputs[:, 0], inputs[:, 1]], dim=1),
        target_labels=labels[:, 0],
    )
    nothing = torch.zeros(90)
    for hidden in (prune(rate=0.5), clip(bound=0.2), rotation()):
        client = learner(hidden, local=local)
        shown = client.evidence(
            client.model.state_dict(), trials, coins="coins", defense=True, knows_label=True,
            knows_others=True, assumed_batch=BATCH,
        )  # fmt: skip
        whole = defended_hypotheses(client, client.model.state_dict(), shown, mean=nothing)
        torch.testing.assert_close(whole[:, 0, 0], shown.uploads, rtol=1e-3, atol=1e-5)
        assert not torch.allclose(whole[:, 1, 0], shown.uploads, rtol=1e-3, atol=1e-5)


def test_noise_is_the_same_for_all_hypotheses_and_others_are_the_mean_of_all():
    inputs, labels = batches()
    records = Records(torch.stack([inputs[:, 0], inputs[:, 1]], dim=1), labels[:, :1])
    client = learner(gaussian(std=3.0), local=GRADIENT)
    state = client.model.state_dict()
    plain = client.hypotheses(state, records)
    shown = Evidence(torch.zeros(COUNT, 90), BATCH, 1 / BATCH, plain, records=records)
    mean = client.mean_gradient(state, inputs, labels)
    torch.testing.assert_close(
        mean, client._plain(state, inputs, labels, None).mean(dim=0), rtol=1e-4, atol=1e-6
    )
    whole = defended_hypotheses(client, state, shown, mean=mean)
    noise = whole - (plain + (BATCH - 1) * mean) / BATCH
    torch.testing.assert_close(noise, noise[:1, :1].expand_as(noise), rtol=1e-3, atol=1e-5)
    assert float(noise[0, 0].std()) == pytest.approx(3, abs=0.8)  # of 90 entries


def test_coins_that_act_on_each_update_differently_are_averaged():
    inputs, labels = batches()
    labels[0] = 1 - labels[1]
    records = Records(inputs[:, :1], labels[:, :1])
    client = learner(sign(magnitude=1.0), local=GRADIENT)
    state = client.model.state_dict()
    plain = client.hypotheses(state, records)
    shown = Evidence(torch.zeros(COUNT, 90), 1, 1.0, plain, records=records)
    whole = defended_hypotheses(client, state, shown, mean=torch.zeros(90))
    assert torch.equal(whole[plain != 0], plain[plain != 0].sign())
    coins = whole[plain == 0]  # a hidden unit that is not active
    assert set(coins.tolist()) <= {-1.0, -0.5, 0.0, 0.5, 1.0}
    assert len(coins.unique()) > 2
