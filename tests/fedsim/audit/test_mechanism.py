"""What is audited is the client's own code: runs drawn at once are as those drawn one by one."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import nn

from fedsim.audit.batches import Batch, Neighbours
from fedsim.audit.draws import DRAWS
from fedsim.audit.mechanism import Mechanism, mechanism
from fedsim.audit.quiet import quieted
from fedsim.audit.statistic import statistic
from fedsim.config import Part
from fedsim.core.errors import RunStopped
from fedsim.core.rng import global_stream
from fedsim.core.types import LocalTraining

GRADIENT = LocalTraining(0.1, 4, 1, "gradient")
WEIGHTS = LocalTraining(0.1, 4, 2, "weights", momentum=0.5)
DP_SGD = (Part(name="dp-sgd", clip=0.5, noise=0.7),)
MECHANISMS = [
    DP_SGD,
    (Part(name="clip", bound=0.3), Part(name="gaussian", std=0.1)),
    (Part(name="laplace", scale=0.05),),
]


def neighbours(*, rounds=1, relation="replace"):
    with global_stream(0, "audited"):
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    stream = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, 3, generator=stream)
    other = inputs.clone()
    there, gone = torch.ones(4, dtype=torch.bool), torch.tensor([False, True, True, True])
    if relation == "replace":
        other[0] *= -3
        gone = there
    labels = torch.tensor([0, 1, 1, 0])
    state = {name: value.clone() for name, value in model.state_dict().items()}
    both = Batch(other, labels, gone), Batch(inputs, labels, there)
    return Neighbours(model, [state] * rounds, ([both[0]] * rounds, [both[1]] * rounds))


@pytest.mark.parametrize("parts", MECHANISMS, ids=lambda parts: parts[0].name)
@pytest.mark.parametrize("relation", ["replace", "remove"])
def test_runs_drawn_at_once_are_as_those_drawn_one_by_one(parts, relation):
    made, both = mechanism(parts, GRADIENT), neighbours(relation=relation)
    slow = Mechanism(local=made.local, defense=made.defense, quiet=made.quiet, vectorised=False)
    score = statistic(made, both)
    for having in (0, 1):
        fast = score.scores(made.uploads(both, having, 150, "fast"), 1)
        twin = score.scores(slow.uploads(both, having, 150, "slow"), 1)
        assert len(fast) == len(twin) == len(set(fast.tolist())) == 150
        assert ks_2samp(fast, twin).pvalue > 1e-3


def test_what_training_draws_itself_is_drawn_in_every_run():
    both = neighbours()
    dropping = nn.Sequential(both.model[0], nn.ReLU(), nn.Dropout(0.5), both.model[2])
    state = {name: value.clone() for name, value in dropping.state_dict().items()}
    made = mechanism((Part(name="clip", bound=1e6),), GRADIENT)
    blocks = [b for _, b in made.uploads(Neighbours(dropping, [state], both.batches), 1, 8, "x")]
    assert len(blocks) == 8  # one by one
    assert len({tuple(block[0].tolist()) for block in blocks}) > 4


def test_a_score_is_the_likelihood_ratio_of_equal_noise_whose_middle_is_nought():
    made, both = mechanism(DP_SGD, GRADIENT), neighbours()
    score = statistic(made, both)
    distance = float(score.distances[0])
    without, having = (score.scores(made.uploads(both, h, 2000, "x"), 1) for h in (0, 1))
    std = 0.7 * 0.5 / 4
    assert having.mean() == pytest.approx(distance / 2, abs=5 * std / 2000**0.5)
    assert without.mean() == pytest.approx(-distance / 2, abs=5 * std / 2000**0.5)
    assert having.std() == pytest.approx(std, rel=0.05)


def test_the_same_names_have_the_same_coins_and_others_have_others():
    made, both = mechanism(DP_SGD, GRADIENT), neighbours()
    score = statistic(made, both)
    one, two, other = (score.scores(made.uploads(both, 1, 5, name), 1) for name in "aab")
    np.testing.assert_array_equal(one, two)
    assert not np.isin(other, one).any()


def test_without_noise_every_run_is_what_is_expected():
    parts = (Part(name="clip", bound=0.3),)
    made, both = mechanism(parts, WEIGHTS), neighbours(rounds=2)
    expected = made.expected(both, 1)
    for place, upload in made.uploads(both, 1, 1, "x"):
        assert upload.shape == (1, 26)
        assert float(upload.norm()) <= 0.3 * (1 + 1e-3)
        assert upload[0].shape == expected[place].shape


def test_a_record_that_is_gone_keeps_its_place_in_the_sampling():
    local = LocalTraining(0.1, 2, 3, "weights")
    for parts in (DP_SGD, (Part(name="gaussian", std=0.1),)):
        made, both = mechanism(parts, local), neighbours(relation="remove")
        uploads = [block for having in (0, 1) for _, block in made.uploads(both, having, 2, "x")]
        assert all(bool(torch.isfinite(block).all()) for block in uploads)


def test_only_the_record_that_is_gone_is_gone():
    parts = (Part(name="clip", bound=1e6),)
    made, both = mechanism(parts, GRADIENT), neighbours(relation="remove")
    (_, without), (_, having) = (next(made.uploads(both, h, 1, "x")) for h in (0, 1))
    model, batch = both.model, both.batches[1][0]
    model.load_state_dict(both.states[0])

    def mean(rows):
        loss = nn.functional.cross_entropy(model(batch.inputs[rows]), batch.labels[rows])
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])

    torch.testing.assert_close(without[0], mean([1, 2, 3]))
    torch.testing.assert_close(having[0], mean([0, 1, 2, 3]))


def test_noise_is_turned_off_to_know_what_to_look_for():
    off = quieted((Part(name="clip", bound=2.0), Part(name="gaussian", std=3.0)))
    update = {"w": torch.tensor([3.0, 4.0])}
    out, _ = off.apply(update, {}, torch.Generator())
    torch.testing.assert_close(out["w"], torch.tensor([1.2, 1.6]))


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda *_: torch.zeros(3), "must return 26 finite numbers, .* got \\(3,\\)"),
        (lambda *_: torch.full((26,), torch.nan), "must return 26 finite numbers"),
        (lambda *_: 1 / 0, "must return an update, got ZeroDivisionError: .*test_mechanism.py"),
        (lambda *_: "text", "must return an update"),
    ],
)
def test_what_a_user_s_mechanism_returns_is_checked(returned, said):
    made = Mechanism(local=GRADIENT, defense=mechanism((), GRADIENT).defense, user=returned)
    with pytest.raises(RunStopped, match=f"audit.mechanism: {said}"):
        next(made.uploads(neighbours(), 1, 1, "x"))


def test_neighbours_that_do_not_differ_are_refused():
    both = neighbours()
    same = Neighbours(both.model, both.states, (both.batches[1], both.batches[1]))
    with pytest.raises(RunStopped, match="canary: must move the update"):
        statistic(mechanism(DP_SGD, GRADIENT), same)


NOISE = (Part(name="clip", bound=0.3), Part(name="gaussian", std=0.1))


SPARSE = Part(name="sparsify", rate=0.99)
AFTER = [Part(name="quantise"), Part(name="prune", rate=0.99), Part(name="sign")]


@pytest.mark.parametrize(
    ("after", "seed"), [*((SPARSE, seed) for seed in range(4)), *((part, 0) for part in AFTER)]
)
def test_what_is_looked_for_does_not_depend_on_a_draw_of_a_random_link(after, seed):
    made, both = mechanism((*NOISE, after), GRADIENT), neighbours()
    inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
    other = inputs + torch.tensor([[1e-3], [0.0], [0.0], [0.0]])  # flips no sign
    batches = tuple([batch._replace(inputs=x)] for batch, x in zip(
        (both.batches[0][0], both.batches[1][0]), (other, inputs), strict=True
    ))  # fmt: skip
    both = Neighbours(both.model, both.states, batches)
    score = statistic(made, both)
    alone = statistic(mechanism(NOISE, GRADIENT), both)
    np.testing.assert_array_equal(score.distances, alone.distances)  # before the noise
    assert score.length > 0


def test_the_mean_over_draws_of_an_unbiased_link_is_what_it_is_given():
    after = Part(name="sparsify", rate=0.5)
    made, both = mechanism((*NOISE, after), GRADIENT), neighbours()
    (mean,), (given,) = made.expected(both, 1), made.before_noise(both, 1)
    assert float((mean - given).norm() / given.norm()) < 4 / DRAWS**0.5  # 4 standard errors
    assert not torch.equal(mean, given)
