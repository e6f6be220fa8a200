from dataclasses import replace

import pytest
import torch

from adversary.adaptive.corrections import learn, whiten
from adversary.adaptive.members import LUCK, NONE, Choice, best_of, infer, most_helpful, rehearsed
from adversary.attacks.cosine_mia import cosine_mia
from adversary.grading import selection
from adversary.grading.membership import grade_members
from adversary.workspace import workspace
from defenses import Defense, chain, clip, dp_sgd, gaussian, perturb
from fedsim.config import Part
from fedsim.core.ground_truth import Truth
from fedsim.core.rng import generator
from fedsim.core.sgd import mean_gradient
from fedsim.core.types import Auxiliary, Candidates, LocalTraining, View
from tests.adversary import member_cases as cases
from tests.adversary.games.game_cases import rotation
from tests.adversary.label_cases import client
from tests.builders import bilinear

MODEL = bilinear(3, features=24)
SCALES = 4.0 ** torch.linspace(-1, 1, 4)  # some inputs say more, and louder, than others
RECORDS = torch.randn(300, 4, generator=generator(0, "records")) * SCALES
LABELS = torch.arange(300) % 3
GRADIENT = LocalTraining(0.1, 16, upload="gradient")
SENT = {name: value.clone() for name, value in MODEL.state_dict().items()}  # of all: rehearsed once


def situation(defense, *, seed, local=GRADIENT):
    """Return a view of a client, an adversary that knows its defense, and who was a member."""
    order = torch.randperm(100, generator=generator(seed, "members"))
    mine, asked = order[:16], slice(0, 100)
    view = client(MODEL, RECORDS[mine], LABELS[mine], local, seed=seed)
    update = view.latest.update
    coins = generator(seed, "coins")
    delta, _ = defense.apply(update.delta, defense.init(update.delta), coins)
    view = View([replace(view.latest, sent=SENT, update=replace(update, delta=delta))])
    members = torch.isin(torch.arange(100), mine)
    truth = Truth(LABELS[mine], mine, members, LABELS[asked])
    return view, truth


def knowing(defense):
    return Auxiliary(MODEL, 3, inputs=RECORDS[100:], labels=LABELS[100:], defense=defense,
                     candidates=Candidates(RECORDS[:100], LABELS[:100]))  # fmt: skip


def aurocs(defense, local=GRADIENT, trials=12):
    known, static, adaptive = knowing(defense), [], []
    for seed in range(trials):
        view, truth = situation(defense, seed=seed, local=local)
        score = lambda guess: grade_members(guess, truth)["auroc"]
        static.append(score(cosine_mia(view, known, generator(0))))
        adaptive.append(score(infer(view, known, generator(0), inner=cosine_mia)))
    return sum(static) / trials, sum(adaptive) / trials


@pytest.mark.contract
@pytest.mark.parametrize(
    "local",
    [GRADIENT, pytest.param(LocalTraining(0.1, 8, epochs=2), marks=pytest.mark.slow)],
    ids=["gradient", "weights"],
)
@pytest.mark.parametrize(
    "defense",
    [pytest.param(clip(bound=0.1), marks=pytest.mark.slow), gaussian(std=0.003)],
    ids=["clip", "gaussian"],
)
def test_who_knows_the_defense_does_better(defense, local):
    static, adaptive = aurocs(defense, local)
    assert adaptive > static + 0.02


@pytest.mark.slow
@pytest.mark.contract
def test_pure_noise_says_nothing():
    noise = Defense(name="noise", apply=lambda p, s, g: (
        {n: torch.randn(v.shape, generator=g) for n, v in p.items()}, s,
    ))  # fmt: skip
    static, adaptive = aurocs(noise)
    # One AUROC of 16 among 84 has a standard deviation of 0.08.
    assert abs(static - 0.5) < 3.5 * 0.08 / 12**0.5
    assert abs(adaptive - 0.5) < 3.5 * 0.08 / 12**0.5


def test_a_useless_correction_is_not_chosen():
    view, _ = situation(chain(), seed=0)
    rehearsal = rehearsed(workspace(view, knowing(chain())), 16)
    nothing = lambda parts: [torch.randn(p.shape, generator=generator(0)) for p in parts]
    worse = replace(rehearsal, corrections={"none": lambda parts: parts, "worse": nothing})
    assert most_helpful(worse, cosine_mia, view.memory) == NONE


def test_rehearsed_members_are_who_was_trained_on():
    view, _ = situation(chain(), seed=0)
    rehearsal = rehearsed(workspace(view, knowing(chain())), 16)
    asked = rehearsal.auxiliary.candidates
    assert len(rehearsal.clients) == len(rehearsal.members) == 24
    for seen, members in zip(rehearsal.clients[:4], rehearsal.members, strict=False):
        assert int(members.sum()) == 16
        again = client(MODEL, asked.inputs[members], asked.labels[members], GRADIENT)
        for name, value in again.latest.update.delta.items():
            torch.testing.assert_close(seen.update.delta[name], value, rtol=1e-4, atol=1e-6)


def test_a_client_with_more_examples_than_the_adversary_is_rehearsed_with_half_of_them():
    view, _ = situation(chain(), seed=0, local=LocalTraining(0.1, 50))
    rehearsal = rehearsed(workspace(view, knowing(chain())), 1000)
    assert {seen.update.num_examples for seen in rehearsal.clients} == {100}
    assert all(bool(m.any()) and not bool(m.all()) for m in rehearsal.members)


def test_whitening_divides_by_the_variance():
    stream = generator(0, "white")
    spread = torch.tensor([1.0, 2.0, 10.0])
    uploads = [[1 + spread * torch.randn(3, generator=stream)] for _ in range(4000)]
    (found,) = whiten(uploads)([torch.ones(3) + spread])
    torch.testing.assert_close(found, 1 / spread, rtol=0.1, atol=0.1)


def test_learned_corrections_of_a_known_line():
    stream = generator(0, "line")
    plain = [[torch.randn(2, 3, generator=stream)] for _ in range(50)]
    uploaded = [[p[0] / 4] for p in plain]
    found = learn(plain, uploaded)
    for name in ("scale", "expect"):
        (value,) = found[name]([torch.full((2, 3), 0.5)])
        torch.testing.assert_close(value.double(), torch.full((2, 3), 2.0).double())


def test_the_twin_runs_beside_the_static_attack():
    names = lambda known: [a.title for a in selection.build([Part(name="cosine-mia")], known)]
    assert names(knowing(gaussian(std=0.1))) == ["cosine-mia", "cosine-mia (adaptive)"]
    assert names(knowing(None)) == ["cosine-mia"]


def test_a_client_that_tells_no_number_is_one_clear_error():
    view, _ = situation(chain(), seed=0)
    latest = replace(view.latest, update=replace(view.latest.update, num_examples=None))
    with pytest.raises(ValueError, match="num_examples: must be told"):
        infer(View([latest]), knowing(chain()), generator(0), inner=cosine_mia)


@pytest.mark.contract
@pytest.mark.untyped
@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("cosine-mia", 0.16), ("gradient-difference-mia", 0.14), ("update-lira", 0.16),
        ("whitened-mia", 0.2), ("rmia", 0.078), ("rmia-online", 0.105), ("ramia", 0.078),
        pytest.param("whitened-mia-full", 0.35, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_rotation_that_the_adversary_knows_hides_no_member(name, hidden):
    _, gains = cases.gains_of_knowing(name, rotation())
    assert sum(gains) / len(gains) > hidden / 2  # the undefended attack's AUROC less one half


def turned_in_training():
    """A defense that turns every gradient of a batch by one secret rotation, inside training."""
    turn = rotation()

    def gradient(model, parameters, inputs, labels, local, stream):
        plain = mean_gradient(model, parameters, inputs, labels, local, stream)
        named = dict(zip(parameters, plain, strict=True))
        return list(turn.apply(named, {}, stream)[0].values())

    return Defense(name="turned", gradient=gradient)


def test_of_many_useless_choices_none_is_made():
    made = 0
    for seed in range(200):
        noise = torch.randn(12, 24, generator=generator(seed, "useless"))
        values = {Choice(str(k), in_training=True): row for k, row in enumerate(noise)}
        made += best_of({NONE: torch.zeros(24), **values}) != NONE
    assert made <= 200 * LUCK + 3.5 * (200 * LUCK) ** 0.5
    helpful = {
        NONE: torch.zeros(24),
        Choice("back", in_training=False): 1.0 + torch.arange(24) / 24,
    }
    assert best_of(helpful).correction == "back"


IN_TRAINING = {
    "turned": turned_in_training(),
    "dp-sgd": dp_sgd(clip=0.5, noise=0.05, sampling="shuffle"),
    "perturb": perturb(strength=2.0),
}


@pytest.mark.contract
@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("cosine-mia", 0.16), ("gradient-difference-mia", 0.14), ("whitened-mia", 0.2),
        ("fedmia", 0.16), ("quantile-mia", 0.16), ("update-lira", 0.16),
    ],
)  # fmt: skip
def test_a_rotation_inside_training_that_the_adversary_knows_hides_no_member(name, hidden):
    _, gains = cases.gains_of_knowing(name, IN_TRAINING["turned"], rounds=4)
    assert sum(gains) / len(gains) > hidden / 2  # the undefended attack's AUROC less one half


@pytest.mark.contract
@pytest.mark.untyped
@pytest.mark.parametrize(
    ("name", "defense"),
    [
        ("cosine-mia", "dp-sgd"), ("whitened-mia", "dp-sgd"), ("fedmia", "dp-sgd"),
        ("gradient-difference-mia", "perturb"), ("update-lira", "perturb"),
        pytest.param("quantile-mia", "dp-sgd", marks=pytest.mark.slow),
        pytest.param("whitened-mia", "perturb", marks=pytest.mark.slow),
        pytest.param("source-whitened", "perturb", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_who_knows_a_defense_inside_training_loses_nothing(name, defense):
    _, gains = cases.gains_of_knowing(name, IN_TRAINING[defense], rounds=4)
    gains = torch.tensor(gains)
    assert float(gains.mean()) > -3.5 * float(gains.std()) / len(gains) ** 0.5 - 1e-6
