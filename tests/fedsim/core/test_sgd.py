import pytest
import torch

from fedsim.core.sgd import Descent, descend
from fedsim.core.types import LocalTraining

TORCH = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
BATCHES = [torch.tensor([0])] * 5


def quadratic(scales):
    """Return a loss whose gradient differs by entry and by step."""
    return lambda values: (scales * (values - 0.3) ** 2).sum() + (values**3).sum()


@pytest.mark.twin
@pytest.mark.parametrize("optimizer", TORCH)
@pytest.mark.parametrize("proximal_mu", [0.0, 0.7])
def test_adam_takes_the_steps_of_torch(optimizer, proximal_mu):
    start = torch.randn(4, 3, dtype=torch.float64)
    loss = quadratic(torch.rand(4, 3, dtype=torch.float64))
    theirs = torch.nn.Parameter(start.clone())
    steps = TORCH[optimizer]([theirs], lr=0.02)
    for _ in BATCHES:
        steps.zero_grad()
        (loss(theirs) + proximal_mu / 2 * (theirs - start).square().sum()).backward()
        steps.step()
    ours = start.clone().requires_grad_()
    local = LocalTraining(0.02, 1, optimizer=optimizer, proximal_mu=proximal_mu)
    descend([ours], local, BATCHES, lambda _: torch.autograd.grad(loss(ours), [ours]))
    torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.worked
def test_adams_first_step_is_as_long_as_the_learning_rate_in_every_entry():
    ours = torch.zeros(3)
    gradient = torch.tensor([1e-3, -40.0, 0.0])
    descend([ours], LocalTraining(0.1, 1, optimizer="adam"), BATCHES[:1], lambda _: [gradient])
    torch.testing.assert_close(ours, torch.tensor([-0.1, 0.1, 0.0]))


@pytest.mark.twin
def test_clients_together_take_the_steps_that_each_takes_alone():
    local = LocalTraining(0.1, 1, optimizer="adamw")
    gradients = torch.randn(3, 2, 5)  # of three steps; the second client takes one of them
    together = torch.ones(2, 5)
    descent = Descent([together], local)
    descent.step([gradients[0]], slice(0, 2), before=0)
    for number in (1, 2):
        descent.step([gradients[number, :1]], slice(0, 1), before=number)
    for client, steps in enumerate((3, 1)):
        alone = torch.ones(5)
        slopes = iter(gradients[:, client])
        descend([alone], local, BATCHES[:steps], lambda _, it=slopes: [next(it)])
        torch.testing.assert_close(together[client], alone)
