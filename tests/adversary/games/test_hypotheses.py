from dataclasses import replace
from functools import partial

import pytest
import torch

from adversary.games import GAMES
from adversary.games.evidence import Evidence, Records
from adversary.games.game import Draws, draw_secrets
from adversary.games.hypotheses import COINS, Others, _uploads, anybody, defended_hypotheses
from adversary.games.known_record import defended_scores, record_scores
from adversary.games.scores import auroc_of
from defenses import Marked, chain, clip, dp_sgd, gaussian, mixup, perturb, prune, sign
from fedsim.core.rng import generator
from fedsim.core.secrets import Rules
from fedsim.core.types import LocalTraining
from tests.adversary.games.game_cases import NUMBERS, census, learner, rotation

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
    aside = census("auxiliary")
    marked = Marked(aside.inputs[:64], aside.labels[:64], aside.marks[:64])
    against = perturb(strength=1.0).against
    assert against is not None
    clipped = dp_sgd(clip=0.2, noise=0.0, sampling="shuffle")
    for hidden in (
        prune(rate=0.5), clip(bound=0.2), rotation(), clipped, against(marked),
        chain(clipped, rotation()),
    ):  # fmt: skip
        client = learner(hidden, local=local)
        shown = client.evidence(
            client.model.state_dict(), trials, coins="coins", defense=True, knows_label=True,
            knows_others=True, assumed_batch=BATCH,
        )  # fmt: skip
        nobody = Others(inputs[0], labels[0], torch.zeros(90))
        whole = defended_hypotheses([client], client.model.state_dict(), shown, others=nobody)
        torch.testing.assert_close(whole[:, 0, 0], shown.uploads, rtol=1e-3, atol=1e-5)
        assert not torch.allclose(whole[:, 1, 0], shown.uploads, rtol=1e-3, atol=1e-5)


def test_noise_is_the_same_for_all_hypotheses_and_others_are_the_mean_of_all():
    inputs, labels = batches()
    records = Records(torch.stack([inputs[:, 0], inputs[:, 1]], dim=1), labels[:, :1])
    client = learner(gaussian(std=3.0), local=GRADIENT)
    state = client.model.state_dict()
    plain = client.hypotheses(state, records)
    shown = Evidence(torch.zeros(COUNT, 90), BATCH, 1 / BATCH, plain, records=records)
    others = anybody(client, state, Draws(inputs=inputs, labels=labels, secrets=torch.zeros(COUNT)))
    mean = others.gradient
    torch.testing.assert_close(
        mean, client._plain(state, inputs, labels, None).mean(dim=0), rtol=1e-4, atol=1e-6
    )
    whole = defended_hypotheses([client], state, shown, others=others)
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
    whole = defended_hypotheses(
        [client], state, shown, others=Others(inputs[0], labels[0], torch.zeros(90))
    )
    assert torch.equal(whole[plain != 0], plain[plain != 0].sign())
    coins = whole[plain == 0]  # a hidden unit that is not active
    assert set(coins.tolist()) <= {-1.0, -0.5, 0.0, 0.5, 1.0}
    assert len(coins.unique()) > 2


def test_each_example_is_clipped_by_itself_and_noise_cancels():
    inputs, labels = batches()
    inputs[:, 0] *= 10.0 ** torch.arange(COUNT).view(-1, 1)  # norms differ widely
    records = Records(inputs[:, :1], labels[:, :1])
    plain, noisy = (
        learner(dp_sgd(clip=0.2, noise=noise, sampling="shuffle"), local=GRADIENT)
        for noise in (0.0, 2.0)
    )
    state = plain.model.state_dict()
    each = plain.hypotheses(state, records)[:, 0, 0]
    shown = Evidence(torch.zeros(COUNT, 90), BATCH, 1 / BATCH, each[:, None, None], records=records)
    others = Others(inputs[0], labels[0], torch.zeros(90))
    whole, blurred = (
        defended_hypotheses([client], state, shown, others=others)[:, 0, 0]
        for client in (plain, noisy)
    )
    clipped = each * (0.2 / each.norm(dim=1, keepdim=True)).clamp(max=1.0)
    differences = BATCH * (whole - whole[0])
    torch.testing.assert_close(differences, clipped - clipped[0], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(blurred - blurred[0], whole - whole[0], rtol=1e-3, atol=1e-5)
    assert float((blurred - whole).std()) == pytest.approx(2 * 0.2 / BATCH, abs=0.03)


def uneven(half):
    """Return half of the census, with numbers of widely different sizes."""
    pool = census(half)
    sizes = 10 ** (3 * torch.rand(len(pool.labels), 1, generator=generator(0, "sizes", half)) - 1.5)
    inputs = torch.cat([sizes * pool.inputs[:, :NUMBERS], pool.inputs[:, NUMBERS:]], dim=1)
    return replace(pool, inputs=inputs)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_clip_inside_training_is_in_the_hypotheses(batch):
    game, rules = GAMES["attribute-known"], Rules(batch)
    local = replace(GRADIENT, batch_size=batch)
    client = learner(dp_sgd(clip=0.3, noise=0.0, sampling="shuffle"), local=local)
    state, looks = client.model.state_dict(), []
    for half, count in (("auxiliary", 120), ("private", 80)):
        secrets = draw_secrets(count, 2, generator(0, "secrets", half))
        draws = game.sample(uneven(half), rules, secrets, generator(0, "draws", half))
        shown = client.evidence(
            state, draws, coins=half, defense=True, knows_label=True, knows_others=False,
            assumed_batch=batch,
        )  # fmt: skip
        looks.append((shown, secrets, draws))
    (shadows, secrets, draws), (trials, truth, _) = looks
    others = anybody(client, state, draws)
    push = partial(defended_hypotheses, [client], state, others=others)
    best = lambda scores: max(auroc_of(it(trials), truth).value for it in scores.values())
    without = record_scores(shadows, secrets)
    if batch == 1:
        del without["cosine"]  # of one record it does not see the length
        assert best(defended_scores(shadows, secrets, push)) == 1.0
    assert best(defended_scores(shadows, secrets, push)) > best(without) + 0.04


def test_what_coins_do_to_a_batch_is_averaged():
    inputs, labels = batches()
    records = Records(inputs[:, :1], labels[:, :1])
    client = learner(mixup(alpha=1.0), local=GRADIENT)
    state = client.model.state_dict()
    shown = Evidence(torch.zeros(COUNT, 90), BATCH, 1 / BATCH, None, records=records)
    others = Others(inputs[1], labels[1], torch.zeros(90))
    once = defended_hypotheses([client], state, shown, others=others)
    assert torch.equal(once, defended_hypotheses([client], state, shown, others=others))
    draws = [
        torch.stack([client.flat(d) for d in _uploads(client, state, shown, others, coin)])
        for coin in range(COINS)
    ]
    torch.testing.assert_close(once[:, 0, 0], torch.stack(draws).mean(dim=0))
    assert not torch.allclose(draws[0], draws[1], rtol=1e-2)
