import pytest
import torch

from adversary.attacks.dimitrov import dimitrov
from adversary.attacks.geng import zlg_plus
from adversary.labels.counts import round_counts
from adversary.labels.head import forward, read_head
from adversary.labels.reading import end_state
from adversary.workspace import workspace
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining
from tests.adversary.label_cases import asr, hand, unbalanced


def test_worked_example_of_one_step():
    view, auxiliary = hand("A")
    assert dimitrov(view, auxiliary, generator(0)).tolist() == [2, 1, 1]


def one_step_at_a_time(view, auxiliary, steps):
    """The loop of the paper's code: the counts of Geng et al. at every step, averaged."""
    latest, work = view.latest, workspace(view, auxiliary)
    head = read_head(latest, work)
    start, end = (
        forward(work, state, auxiliary.inputs) for state in (latest.sent, end_state(latest))
    )
    counts = []
    for step in range(steps):
        way = step / steps
        p = (1 - way) * start.probabilities.mean(0) + way * end.probabilities.mean(0)
        o = (1 - way) * start.sums.mean() + way * end.sums.mean()
        counts.append(head.total * p - head.row_sums / o)
    return round_counts(torch.stack(counts).mean(0), head.total)


@pytest.mark.parametrize(("epochs", "batch_size"), [(1, 16), (4, 7)])
def test_it_equals_the_loop_over_all_steps(epochs, batch_size):
    local = LocalTraining(lr=0.1, batch_size=batch_size, epochs=epochs)
    view, auxiliary, _ = unbalanced(local)
    twin = one_step_at_a_time(view, auxiliary, epochs * -(-40 // batch_size))
    assert torch.equal(dimitrov(view, auxiliary, generator(0)), twin)


def test_one_step_reads_nothing_of_the_end_model():
    local = LocalTraining(lr=0.1, batch_size=40)
    view, auxiliary, _ = unbalanced(local)
    assert torch.equal(
        dimitrov(view, auxiliary, generator(0)), zlg_plus(view, auxiliary, generator(0))
    )


def test_several_local_steps():
    view, auxiliary, counts = unbalanced(LocalTraining(lr=0.05, batch_size=8, epochs=4))
    assert asr(dimitrov(view, auxiliary, generator(0)), counts) > 0.7
    # Without auxiliary data noise does the same.
    without = Auxiliary(auxiliary.model, 4, input_shape=(4,))
    assert asr(dimitrov(view, without, generator(0)), counts) > 0.6
