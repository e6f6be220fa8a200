from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.attacks.dlg import dlg
from adversary.attacks.inverting_gradients import inverting_gradients
from adversary.attacks.see_through_gradients import see_through_gradients
from adversary.grading.answers import attack_view
from adversary.grading.selection import build
from adversary.inversion import through_defenses
from adversary.inversion.continuation import SETTLED, SMOOTH, continued, weight_at
from adversary.inversion.descent import adam
from adversary.inversion.distances import DISTANCES
from adversary.inversion.lbfgs import _Pairs, lbfgs
from adversary.inversion.local_steps import flat, one_hot, simulated
from adversary.inversion.matching import match
from adversary.inversion.priors import data_range
from adversary.inversion.problems import problem_of
from adversary.inversion.settings import Settings
from adversary.inversion.through_defenses import straight_through
from adversary.workspace import workspace
from clients.train import train
from defenses.clip import clip
from defenses.prune import prune
from defenses.sign import sign
from fedsim.config import Part
from fedsim.core.params import subtract
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining
from tests.builders import observe, plain_gradient, same_params

pytestmark = pytest.mark.filterwarnings("ignore::fedsim.core.errors.Remark")
CLASSES, SHAPE = 4, (1, 6, 6)
ATTACKS = {
    "dlg": dlg,
    "inverting-gradients": inverting_gradients,
    "see-through-gradients": see_through_gradients,
}


def network():
    with global_stream(0, "matching"):
        return nn.Sequential(
            nn.Conv2d(1, 5, 3, padding=1), nn.Sigmoid(), nn.Flatten(), nn.Linear(180, CLASSES)
        )


MODEL = network()
KNOWN = torch.rand(40, *SHAPE, generator=generator(0, "known"))
AUXILIARY = Auxiliary(MODEL, CLASSES, input_shape=SHAPE)
INFORMED = replace(AUXILIARY, inputs=KNOWN, labels=torch.arange(40) % CLASSES)


def client(size=1, *, seed=0, defense=None):
    """The view of one gradient, and the examples."""
    x = torch.rand(size, *SHAPE, generator=generator(seed, "client"))
    y = torch.arange(size) % CLASSES
    gradient = plain_gradient(MODEL, x, y)
    if defense is not None:
        gradient, _ = defense.apply(gradient, defense.init(gradient), generator(seed))
    return observe(gradient, size, sent=MODEL), x, y


def error(guess, x):
    return float((guess - x).square().mean())


def quadratic(curvature):
    def evaluate(v):
        return 0.5 * (curvature * v.square()).sum(dim=1), curvature * v

    return evaluate


def test_the_direction_is_that_of_the_two_loop_recursion():
    stream, rows, n, history = generator(0), 3, 12, 4
    pairs = _Pairs.of(torch.zeros(rows, n, dtype=torch.float64), history)
    draw = lambda: torch.randn(rows, n, dtype=torch.float64, generator=stream)
    a = torch.randn(n, n, dtype=torch.float64, generator=stream)
    hessian, kept = a @ a.T + torch.eye(n), [[] for _ in range(rows)]
    for _ in range(9):
        s, wanted = draw(), torch.rand(rows, generator=stream) < 0.7
        pairs.add(s, s @ hessian, wanted)
        for row in wanted.nonzero()[:, 0].tolist():
            kept[row].append((s[row], s[row] @ hessian))
    g = draw()
    found = pairs.direction(g)
    for row, known in enumerate(kept):
        q, alphas = g[row].clone(), []
        for s, y in reversed(known[-history:]):
            alphas.append((s @ q) / (s @ y))
            q -= alphas[-1] * y
        s, y = known[-1]
        q *= (s @ y) / (y @ y)
        for (s, y), alpha in zip(known[-history:], reversed(alphas), strict=True):
            q += (alpha - (y @ q) / (s @ y)) * s
        torch.testing.assert_close(found[row], -q, rtol=1e-9, atol=1e-12)


def test_rows_of_lbfgs_do_not_depend_on_each_other():
    def rosenbrock(v):
        at = v.detach().requires_grad_()
        loss = (100 * (at[:, 1:] - at[:, :-1] ** 2) ** 2 + (1 - at[:, :-1]) ** 2).sum(dim=1)
        return loss.detach(), torch.autograd.grad(loss.sum(), at)[0]

    start = torch.randn(5, 6, dtype=torch.float64, generator=generator(0))
    together = lbfgs(rosenbrock, start, steps=40)
    for row in range(5):
        alone = lbfgs(rosenbrock, start[row : row + 1], steps=40)
        torch.testing.assert_close(together.points[row], alone.points[0], rtol=1e-6, atol=1e-8)
    to_the_end = lbfgs(rosenbrock, start, steps=400).losses
    # Another local minimum of this function lies near −1, with a loss of 3.97.
    assert bool(((to_the_end < 1e-12) | (to_the_end - 3.97).abs().lt(0.02)).all())


def test_a_step_that_is_too_long_or_not_a_number_is_refused():
    def steep(v):
        losses, slope = quadratic(torch.tensor([1.0, 1e4]))(v)
        outside = v.abs().amax(dim=1) > 3
        return torch.where(outside, torch.nan, losses), slope

    best = lbfgs(steep, torch.tensor([[2.0, 2.0], [-1.0, 2.5]]), steps=60)
    assert float(best.losses.max()) < 1e-6


def test_adam_keeps_the_best_point_and_the_box():
    evaluate = quadratic(torch.tensor([1.0, 5.0]))
    best = adam(
        lambda v: evaluate(v - 0.7), torch.zeros(2, 2), steps=80, lr=0.1, signed=True,
        project=lambda v: v.clamp(0, 0.5),
    )  # fmt: skip
    torch.testing.assert_close(best.points, torch.full((2, 2), 0.5), atol=0.02, rtol=0)
    torch.testing.assert_close(best.losses, evaluate(best.points - 0.7)[0])
    assert torch.equal(adam(evaluate, torch.zeros(1, 2), steps=9, lr=9.0).losses, torch.zeros(1))


def test_the_weight_of_smoothness_falls_geometrically_and_then_stays():
    assert weight_at(0.01, 0.0) == pytest.approx(SMOOTH)
    assert weight_at(0.01, SETTLED / 2) == pytest.approx((0.01 * SMOOTH) ** 0.5)
    assert weight_at(0.01, SETTLED) == weight_at(0.01, 1.0) == pytest.approx(0.01)
    assert weight_at(0.0, 0.0) == 0
    assert weight_at(2 * SMOOTH, 0.0) == 2 * SMOOTH
    each = torch.tensor([0.01, 0.0, 2 * SMOOTH])
    expected = [float(weight_at(float(final), 0.3)) for final in each]
    torch.testing.assert_close(weight_at(each, 0.3), torch.tensor(expected))


def test_points_count_once_the_loss_has_settled_and_every_row_has_its_rate():
    shares = []

    def evaluate(v, share):
        shares.append(share)
        slope = torch.ones_like(v)
        return v.sum(dim=1) + (0.0 if share >= SETTLED else -100.0), slope

    rates = torch.tensor([[0.1], [0.2]])
    best = continued(evaluate, torch.zeros(2, 1), steps=10, lr=rates)
    assert shares == pytest.approx([k / 10 for k in range(1, 11)])
    assert float(best.losses.min()) > -100
    torch.testing.assert_close(best.points[1], 2 * best.points[0])


def test_distances_by_hand():
    found, observed = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[4.0, 3.0]])
    assert DISTANCES["l2"](found, observed).tolist() == pytest.approx([2 / 25, 1.0])
    assert DISTANCES["l1"](found, observed).tolist() == pytest.approx([2 / 7, 1.0])
    assert DISTANCES["cosine"](found, observed).tolist() == pytest.approx([1 - 24 / 25, 1.0])


@pytest.mark.parametrize("distance", ["l2", "l1", "cosine"])
def test_the_truth_has_no_distance_and_the_best_row_is_the_one_of_least_loss(distance):
    view, x, y = client(2)
    problem = problem_of(view.latest, AUXILIARY)
    settings = Settings(distance=distance, iterations=60, restarts=3, optimiser="adam")
    guesses, losses = match(problem, settings, y, generator(0), box=data_range(AUXILIARY))
    assert guesses.shape == (3, 2, *SHAPE)
    assert bool((losses > 0).all())

    def loss(images):
        targets = one_hot(y, CLASSES, x.dtype).expand(len(images), 2, CLASSES)
        found = flat(simulated(problem.model, images, targets, problem.local))
        return DISTANCES[distance](found.detach(), problem.observed)

    assert float(loss(x[None])) < 1e-5
    torch.testing.assert_close(loss(guesses), losses, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("labels", ["joint", "recovered"])
def test_dlg_recovers_an_example_to_many_digits(labels):
    view, x, _ = client()
    guess = dlg(view, AUXILIARY, generator(0), labels=labels, restarts=2, iterations=200).values
    assert guess.shape == x.shape
    assert error(guess, x) < 1e-4  # 40 dB


@pytest.mark.parametrize("name", ATTACKS)
def test_the_answer_beats_a_grey_picture_and_repeats_itself(name):
    view, x, _ = client(seed=1)
    before = {n: v.clone() for n, v in view.latest.update.delta.items()}
    options = {"restarts": 2, "iterations": 120, "tv": 0.0}  # this picture is noise
    infer = lambda: ATTACKS[name](view, AUXILIARY, generator(3), **options)
    answer, again = infer(), infer()
    assert error(answer.values, x) < 0.6 * error(torch.full_like(x, 0.5), x)
    assert torch.equal(answer.values, again.values)
    assert torch.equal(answer.uncertainty, again.uncertainty)
    assert answer.uncertainty.shape == x.shape
    assert float(answer.uncertainty.min()) >= 0
    assert same_params(view.latest.update.delta, before)


def test_weights_of_several_local_steps_are_matched():
    local = LocalTraining(lr=0.1, batch_size=1, epochs=2)
    _, x, y = client(2, seed=4)
    sent = {name: value.clone() for name, value in MODEL.state_dict().items()}
    state, _ = train(network(), sent, x, y, local, generator=generator(0))
    view = observe(subtract(state, sent), 2, sent=MODEL, local=local)
    settings = Settings(iterations=120, restarts=5, tv=0.0)
    guesses, losses = match(
        problem_of(view.latest, AUXILIARY), settings, y, generator(0), box=data_range(AUXILIARY)
    )
    guess = guesses[losses.argmin()]
    # Restarts suppose either order of the two steps; only the right one fits.
    assert min(error(guess, x), error(guess.flip(0), x)) < 1e-3
    assert float(losses.max()) > 100 * float(losses.min().abs()) + 0.01


def test_through_a_defense_the_truth_still_fits_and_its_gradient_passes():
    for defense in (prune(rate=0.7), clip(bound=0.01), sign()):
        view, _, _ = client(defense=defense)
        problem = problem_of(view.latest, INFORMED)
        change = straight_through(problem, replace(INFORMED, defense=defense))
        plain = problem_of(client()[0].latest, INFORMED).observed.requires_grad_()
        through = change(plain)
        torch.testing.assert_close(through, problem.observed, rtol=1e-4, atol=1e-7)
        (slope,) = torch.autograd.grad(through.sum(), plain)
        assert float(slope.min()) == pytest.approx(float(slope.max()))
        assert float(slope.max()) > 0


def test_knowing_the_defense_helps_with_signs(monkeypatch):
    monkeypatch.setattr(through_defenses, "VICTIMS", 1)
    view, x, _ = client(defense=sign())
    options = {"restarts": 1, "iterations": 60, "tv": 0.0, "rehearsals": 0}
    static = inverting_gradients(view, INFORMED, generator(0), **options)
    known = replace(INFORMED, defense=sign())
    adaptive = inverting_gradients(view, known, generator(0), **options)
    assert error(adaptive, x) < error(static, x)


def test_without_a_known_defense_nothing_is_adapted():
    view, _, _ = client()
    problem, settings = problem_of(view.latest, INFORMED), Settings(tv=0.001)
    adapted = through_defenses.adapt(problem, workspace(view, INFORMED), settings)
    assert adapted == (problem, settings)


def test_a_run_lists_it_and_its_adaptive_self():
    options = {"iterations": 5, "restarts": 1}
    parts = [Part(name=name, **options) for name in ("inverting-gradients", "idlg-inversion")]
    attacks = build(parts, replace(INFORMED, defense=sign()))
    assert len(attacks) == 3
    view, x, _ = client(defense=sign())
    for answer in attack_view(view, attacks, replace(INFORMED, defense=sign()), 0):
        assert answer.reason is None
        assert answer.guess.shape == x.shape


def test_inputs_that_are_no_images_have_no_total_variation():
    with global_stream(0, "table"):
        model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, CLASSES))
    x = torch.randn(1, 6, generator=generator(0))
    view = observe(plain_gradient(model, x, torch.tensor([2])), 1, sent=model)
    auxiliary = Auxiliary(model, CLASSES, input_shape=(6,))
    guess = inverting_gradients(view, auxiliary, generator(0), iterations=300).values
    assert error(guess, x) < 0.05


def test_knowing_the_defense_of_inputs_that_are_no_images_needs_no_total_variation():
    with global_stream(0, "table"):
        model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, CLASSES))
    x = torch.randn(1, 6, generator=generator(0))
    view = observe(plain_gradient(model, x, torch.tensor([2])), 1, sent=model)
    inputs, labels = torch.randn(8, 6, generator=generator(1)), torch.arange(8) % CLASSES
    known = Auxiliary(model, CLASSES, inputs=inputs, labels=labels, input_shape=(6,))
    known = replace(known, defense=prune(rate=0.5))
    for attack in (inverting_gradients, dlg):
        guess = attack(view, known, generator(0), iterations=20, restarts=2).values
        assert guess.shape == x.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"restarts": 0}, "restarts: must be at least 1, got 0"),
        ({"iterations": 0}, "iterations: must be at least 1, got 0"),
        ({"tv": -1.0}, "tv: must be at least 0, got -1.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    for infer in ATTACKS.values():
        with pytest.raises(ValueError, match=message):
            infer(client()[0], AUXILIARY, generator(0), **options)


def test_updates_that_say_nothing_are_refused():
    view, _, _ = client()
    latest = view.latest
    gone = {n: v for n, v in latest.update.delta.items() if n != "3.bias"}
    for delta, count, message in (
        ({n: torch.zeros_like(v) for n, v in latest.update.delta.items()}, 1, "must not be zero"),
        ({n: v / 0 for n, v in latest.update.delta.items()}, 1, "must be finite"),
        (gone, 1, "3.bias: must be in the update"),
        (latest.update.delta, None, "num_examples: must be told by the client"),
    ):
        with pytest.raises(ValueError, match=message):
            dlg(observe(delta, count, sent=MODEL), AUXILIARY, generator(0))
