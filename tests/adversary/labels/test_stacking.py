import pytest
import torch
from torch import Tensor

from adversary.labels.stacking import LEAST, RIDGE, Stack, log_spread, stack
from fedsim.core.rng import generator

CLASSES, EVEN, UNEVEN = 6, 0.01, 1.0


def centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(dim=0)


def clients(count: int, *, errors: tuple[float, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """Return deviations that attacks answer, and true ones; every other client is even."""
    stream, answers, truth = generator(0, "stacking", count), list[Tensor](), list[Tensor]()
    for place in range(count):
        spread = UNEVEN if place % 2 else EVEN
        deviation = centred(spread * torch.randn(CLASSES, generator=stream).double())
        noise = torch.randn(CLASSES, len(errors), generator=stream).double()
        truth.append(deviation)
        answers.append(deviation.unsqueeze(1) + centred(noise) * torch.tensor(errors).double())
    return answers, truth


def kinds(count: int) -> list[bool]:
    return [place % 2 == 1 for place in range(count)]


def test_an_answer_that_is_right_is_believed_and_others_are_not():
    answers, truth = clients(12, errors=(1e-3, 3.0))
    learned, held_out = stack(answers, truth, kinds(12))
    torch.testing.assert_close(
        learned.weights, torch.tensor([1.0, 0.0]).double(), atol=0.03, rtol=0
    )
    for place in range(1, 12, 2):
        torch.testing.assert_close(held_out[place], truth[place], atol=0.2, rtol=0)


def test_answers_that_say_nothing_give_even_counts():
    stream = generator(0, "nothing")
    answers = [centred(torch.randn(CLASSES, 2, generator=stream).double()) for _ in range(40)]
    _, truth = clients(40, errors=(1.0,))
    learned, _ = stack(answers, truth, kinds(40))
    assert float(learned.deviation(answers[0]).abs().max()) < 0.25 * UNEVEN


def test_a_client_that_looks_even_is_taken_to_be_even():
    answers, truth = clients(12, errors=(0.2,))
    learned, held_out = stack(answers, truth, kinds(12))
    even = centred(0.2 * torch.randn(CLASSES, 1, generator=generator(1)).double())
    uneven = centred(UNEVEN * torch.randn(CLASSES, 1, generator=generator(2)).double())
    assert float(learned.deviation(even).abs().max()) < 0.2 * float(even.abs().max())
    torch.testing.assert_close(
        learned.deviation(uneven), uneven @ learned.weights, rtol=0.05, atol=0.05
    )
    assert all(len(each) == CLASSES for each in held_out)


def test_half_way_between_the_kinds_an_answer_is_halved():
    learned = Stack(torch.ones(1).double(), even=-4.0, uneven=0.0, variance=0.5)
    deviation = torch.tensor([1.0, -1.0]).double() * torch.e**-1  # whose log spread is −2
    assert log_spread(deviation) == pytest.approx(-2.0, abs=1e-4)
    torch.testing.assert_close(learned.shrunken(deviation), deviation / 2, rtol=1e-4, atol=0)


def test_each_client_is_left_out_of_its_own_weights():
    # The naive twin: ridge regression on the others, one client at a time.
    answers, truth = clients(8, errors=(0.5, 1.0))
    learned, held_out = stack(answers, truth, kinds(8))
    whole = torch.cat(answers)
    ridge = torch.diag(RIDGE * (whole.T @ whole).diagonal())
    for place in range(8):
        x = torch.cat([*answers[:place], *answers[place + 1 :]])
        y = torch.cat([*truth[:place], *truth[place + 1 :]])
        weights = torch.linalg.solve(x.T @ x + ridge, x.T @ y)
        torch.testing.assert_close(held_out[place], learned.shrunken(answers[place] @ weights))


def test_kinds_that_look_the_same_or_the_wrong_way_round_are_not_told_apart():
    stream = generator(0, "same")
    answers = [centred(torch.randn(CLASSES, 1, generator=stream).double()) for _ in range(8)]
    truth = [0.01 * each[:, 0] for each in answers]
    learned, _ = stack(answers, truth, [False, True] * 4)
    assert learned.uneven >= learned.even
    assert learned.variance >= LEAST
    zero = torch.zeros(CLASSES, 1).double()
    assert torch.equal(learned.deviation(zero), zero[:, 0])
