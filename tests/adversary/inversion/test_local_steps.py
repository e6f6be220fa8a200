import pytest
import torch
from torch import nn

from adversary.inversion.local_steps import batches, one_hot, simulated
from adversary.inversion.rows import Rows, cross_entropy
from clients.train import train
from fedsim.core.params import subtract
from fedsim.core.rng import generator, global_stream
from fedsim.core.sgd import shuffled
from fedsim.core.types import LocalTraining
from fedsim.models.cnn import cnn
from fedsim.models.lenet import lenet


class Residual(nn.Module):
    """As torchvision's: the shortcut is added, and the ReLU taken, in place."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.second, self.batch = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.act, self.head = nn.ReLU(inplace=True), nn.Linear(4, 10)

    def forward(self, x):
        there = self.act(self.norm(self.first(x)))
        out = self.batch(self.second(there))
        out += there
        return self.head(self.act(out).mean(dim=(2, 3)))


NORMED = lambda: nn.Sequential(  # a LayerNorm is none of the layers that rows know
    nn.Flatten(), nn.Linear(48, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 10)
)
STRIDED = lambda: nn.Sequential(
    nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=2, bias=False), nn.BatchNorm2d(4), nn.ELU(),
    nn.Dropout(0.5), nn.Conv2d(4, 5, 2), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
    nn.Linear(20, 10),
)  # fmt: skip
RECORDS = lambda: nn.Sequential(
    nn.Linear(6, 8), nn.BatchNorm1d(8), nn.GroupNorm(2, 8), nn.ELU(), nn.Linear(8, 10)
)
MODELS = {
    "lenet": (lambda: lenet((3, 8, 8), 10), (3, 8, 8), True),
    "cnn": (lambda: cnn((1, 8, 8), 10, hidden=5), (1, 8, 8), True),
    "strided": (STRIDED, (3, 11, 11), True),
    "residual": (Residual, (3, 6, 6), True),
    "layer norm": (NORMED, (3, 4, 4), False),
    "records": (RECORDS, (6,), True),
}


def example(name, *, rows=3, batch=2):
    build, shape, layered = MODELS[name]
    with global_stream(0, "local steps", name):
        model = build().double()
        inputs = torch.rand(rows, batch, *shape, dtype=torch.float64)
        labels = torch.randint(10, (rows, batch))
    trained = [key for key, _ in model.named_parameters()]
    return model, Rows(model, model.state_dict(), trained), inputs, labels, layered


def quiet(model):
    """Return the model as clients have it, without dropout."""
    for module in model.train().modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    return model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("own", [False, True], ids=["shared weights", "own weights"])
def test_gradients_of_all_rows_are_those_of_each_by_itself(name, own):
    model, rows, inputs, labels, layered = example(name)
    weights = None
    if own:
        spread = 1 + torch.arange(len(inputs), dtype=torch.float64) / 10
        weights = {n: spread.view(-1, *(1,) * w.ndim) * w for n, w in rows.weights.items()}
    found = rows.gradients(inputs, one_hot(labels, 10, torch.float64), weights)
    assert rows.layered == layered
    for row, (x, y) in enumerate(zip(inputs, labels, strict=True)):
        if weights is not None:
            model.load_state_dict({n: w[row] for n, w in weights.items()}, strict=False)
        loss = nn.functional.cross_entropy(quiet(model)(x), y)
        for value, there in zip(
            found, torch.autograd.grad(loss, list(model.parameters())), strict=True
        ):
            torch.testing.assert_close(value[row], there, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["lenet", "strided", "layer norm"])
def test_gradients_can_be_differentiated(name):
    model, rows, inputs, labels, _ = example(name)
    targets = one_hot(labels, 10, torch.float64)
    inputs.requires_grad_()
    square = sum(g.square().sum() for g in rows.gradients(inputs, targets))
    (found,) = torch.autograd.grad(square, inputs)
    for row, (x, y) in enumerate(zip(inputs.detach(), labels, strict=True)):
        at = x.requires_grad_()
        loss = nn.functional.cross_entropy(quiet(model)(at), y)
        grads = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
        (there,) = torch.autograd.grad(sum(g.square().sum() for g in grads), at)
        torch.testing.assert_close(found[row], there, rtol=1e-8, atol=1e-11)


def test_a_parameter_that_is_not_used_has_no_gradient():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.idle = nn.Linear(4, 3), nn.Linear(2, 2)

        def forward(self, x):
            return self.head(x) + self.head(x.flip(1))  # and one that is used twice

    model = Idle()
    rows = Rows(model, model.state_dict(), [n for n, _ in model.named_parameters()])
    x, y = torch.rand(1, 5, 4), torch.randint(3, (1, 5))
    found = rows.gradients(x, one_hot(y, 3, x.dtype))
    loss = cross_entropy(model(x[0]), one_hot(y[0], 3, x.dtype))
    there = torch.autograd.grad(loss, list(model.head.parameters()))
    assert not found[2].any()
    assert not found[3].any()
    torch.testing.assert_close(found[0][0], there[0])
    torch.testing.assert_close(found[1][0], there[1])


PROTOCOLS = {
    "gradient": {"upload": "gradient", "batch_size": 8},
    "one step": {"batch_size": 8},
    "batches": {"batch_size": 3},
    "epochs": {"batch_size": 3, "epochs": 3},
    "momentum": {"batch_size": 3, "epochs": 2, "momentum": 0.9},
    "fedprox": {"batch_size": 2, "epochs": 2, "proximal_mu": 0.5, "momentum": 0.3},
    "smoothing": {"batch_size": 3, "epochs": 2, "label_smoothing": 0.2},
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_simulated_upload_is_what_the_client_uploads(protocol):
    local = LocalTraining(lr=0.3, **PROTOCOLS[protocol])
    with global_stream(0, "client"):
        model = lenet((3, 8, 8), 10)
        inputs, labels = torch.rand(7, 3, 8, 8), torch.randint(10, (7,))
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    same = [
        torch.arange(7)[rows] for rows in batches(7, local)
    ]  # in the order that the attacker supposes
    state, _ = train(
        model, sent, inputs, labels, local, generator=generator(0), batches=lambda *_: same
    )
    upload = state if local.upload == "gradient" else subtract(state, sent)
    rows = Rows(model, sent, list(sent))
    found = simulated(rows, inputs.unsqueeze(0), one_hot(labels, 10, inputs.dtype)[None], local)
    for name, value in zip(sent, found, strict=True):
        scale = float(upload[name].abs().max()) + 1e-3  # weights of 0.5 are rounded to 3e-8
        torch.testing.assert_close(value[0], upload[name], rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_there_are_as_many_batches_of_the_same_sizes_as_a_client_has(protocol):
    local = LocalTraining(lr=0.3, **PROTOCOLS[protocol])
    sizes = [len(range(7)[rows]) for rows in batches(7, local)]
    assert sizes == [len(batch) for batch in shuffled(7, local, generator(0))]
