import pytest
import torch
from torch import nn
from torch.nn import functional

from adversary.games import gradients
from adversary.games.gradients import batch_gradients
from adversary.projection import Reduce
from fedsim.core.rng import generator, global_stream
from tests.builders import same_params

CLASSES, SIDE = 3, 9


class Twice(nn.Module):
    """A layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.head(torch.tanh(self.inner(torch.tanh(self.inner(x)))))


class Tempered(nn.Module):
    """A parameter of no axis."""

    def __init__(self):
        super().__init__()
        self.head, self.temperature = nn.Linear(6, CLASSES), nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        return self.head(x) * self.temperature


class TimeFirst(nn.Module):
    """A layer whose input has records in the second place."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(2, 4), nn.Linear(12, CLASSES)

    def forward(self, x):
        steps = torch.tanh(self.inner(x.view(len(x), 3, 2).transpose(0, 1)))
        return self.head(steps.transpose(0, 1).flatten(1))


class Idle(nn.Module):
    """A layer that is run for nothing, and one that never runs."""

    def __init__(self):
        super().__init__()
        self.head, self.aside, self.never = (nn.Linear(6, CLASSES) for _ in range(3))

    def forward(self, x):
        self.aside(x)
        return self.head(x)


class Detached(nn.Module):
    """A layer that no gradient reaches."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x):
        with torch.no_grad():
            x = self.inner(x)
        return self.head(x)


def tied():
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, CLASSES))
    model[2].weight = model[0].weight
    return model


def frozen():
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.Linear(5, CLASSES))
    model[0].weight.requires_grad_(False)
    model[2].requires_grad_(False)
    return model


def conv(**options):
    first = nn.Conv2d(2, 4, 3, **options)
    size = first(torch.zeros(1, 2, SIDE, SIDE)).numel()
    return nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(size, CLASSES))


def normed(norm):
    return nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(196, CLASSES))


TABLES = {
    "linear": lambda: nn.Linear(6, CLASSES),
    "mlp": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, CLASSES)),
    "no bias": lambda: nn.Sequential(nn.Linear(6, 5, bias=False), nn.ELU(), nn.Linear(5, CLASSES)),
    "in place": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)),
    "dropout": lambda: nn.Sequential(nn.Linear(6, 5), nn.Dropout(), nn.Linear(5, CLASSES)),
    "steps": lambda: nn.Sequential(
        nn.Unflatten(1, (3, 2)), nn.Linear(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(12, CLASSES)
    ),
    "layer norm": lambda: nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, CLASSES)),
    **{"twice": Twice, "time first": TimeFirst, "idle": Idle, "detached": Detached},
    "tempered": Tempered,
    **{"tied": tied, "frozen": frozen},
}
IMAGES = {
    "conv": lambda: conv(stride=2, padding=1),
    "dilated": lambda: conv(stride=(1, 2), padding=(2, 0), dilation=2),
    "no bias": lambda: conv(bias=False),
    "same": lambda: conv(padding="same"),
    "valid": lambda: conv(padding="valid"),
    "reflected": lambda: conv(padding=1, padding_mode="reflect"),
    "groups": lambda: conv(groups=2),
    "group norm": lambda: normed(nn.GroupNorm(2, 4)),
    "batch norm": lambda: normed(nn.BatchNorm2d(4)),
    "instance norm": lambda: normed(nn.InstanceNorm2d(4)),
}
CASES = {name: (make, (6,)) for name, make in TABLES.items()} | {
    f"image {name}": (make, (2, SIDE, SIDE)) for name, make in IMAGES.items()
}
FAST = {
    *("linear", "mlp", "no bias", "in place", "dropout", "steps", "frozen"),
    *("image conv", "image dilated", "image no bias", "image instance norm"),
}


def case(name, *, count=5, batch=4):
    make, shape = CASES[name]
    with global_stream(0, name):
        model = make()
    stream = generator(0, "batches", name)
    inputs = torch.randn(count, batch, *shape, generator=stream)
    return model, inputs, torch.randint(CLASSES, (count, batch), generator=stream)


def by_loop(model, inputs, labels, smoothing=0.0):
    """Take the gradient of every batch by itself; normalisation sees the batch."""
    model.eval()
    for module in model.modules():
        module.train(isinstance(module, nn.BatchNorm2d))
    trained, rows = [p for p in model.parameters() if p.requires_grad], []
    for x, y in zip(inputs, labels, strict=True):
        loss = functional.cross_entropy(model(x), y, label_smoothing=smoothing)
        found = torch.autograd.grad(loss, trained, materialize_grads=True)
        rows.append(torch.cat([part.flatten() for part in found]))
    return torch.stack(rows)


def assert_same(found, expected):
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_all_batches_at_once_equal_a_loop_of_autograd(name, monkeypatch):
    by_batch = gradients._by_batch
    slow = []
    monkeypatch.setattr(gradients, "_by_batch", lambda *a: slow.append(1) or by_batch(*a))
    model, inputs, labels = case(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = batch_gradients(model, model.state_dict(), inputs, labels)
    assert same_params(model.state_dict(), before)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert_same(found, by_loop(model, inputs, labels))
    assert bool(slow) != (name in FAST)


@pytest.mark.parametrize("name", ["mlp", "layer norm"])
@pytest.mark.parametrize(("count", "batch"), [(1, 1), (7, 1), (2, 6)])
def test_of_any_number_and_size_with_a_smooth_loss(name, count, batch):
    model, inputs, labels = case(name, count=count, batch=batch)
    found = batch_gradients(model, model.state_dict(), inputs, labels, smoothing=0.2)
    assert_same(found, by_loop(model, inputs, labels, 0.2))


@pytest.mark.parametrize("limit", ["RECORDS", "PARAMETERS"])
def test_chunks_make_no_difference(limit, monkeypatch):
    model, inputs, labels = case("mlp", count=11)
    size = sum(value.numel() for value in model.parameters())
    monkeypatch.setattr(gradients, limit, {"RECORDS": 12, "PARAMETERS": 3 * size}[limit])
    found = batch_gradients(model, model.state_dict(), inputs, labels)
    assert_same(found, by_loop(model, inputs, labels))


def test_of_another_state_and_in_its_precision():
    model, inputs, labels = case("mlp")
    other = {name: value + 0.3 for name, value in model.state_dict().items()}
    found = batch_gradients(model, other, inputs, labels)
    model.load_state_dict(other)
    assert_same(found, by_loop(model, inputs, labels))
    wide = batch_gradients(model.double(), model.state_dict(), inputs, labels)
    assert_same(wide, found)


def test_a_projection_keeps_small_layers_and_inner_products():
    sizes, cells = [4000, 40, 2000, 10], 2000
    reduce = Reduce(sizes, cells, generator(0, "reduce"))
    assert reduce.cells <= cells
    stream = generator(0, "vectors")
    flat = torch.randn(200, sum(sizes), generator=stream)
    flat[100:] += flat[:100]  # half of the pairs are alike
    told = reduce(flat)
    assert told.shape == (200, reduce.cells)
    ends = torch.tensor(sizes).cumsum(0)
    small = flat.clone()
    small[:, : ends[0]] = small[:, ends[1] : ends[2]] = 0
    assert torch.allclose(reduce(small) @ reduce(small).T, small @ small.T, atol=1e-3)
    left, right = slice(100), slice(100, 200)
    real = (flat[left] * flat[right]).sum(dim=1)
    error = (told[left] * told[right]).sum(dim=1) - real
    # Weinberger et al.: the variance is at most (|x|²|y|² + ⟨x, y⟩²) / cells, of each layer.
    lengths = flat[left].norm(dim=1) * flat[right].norm(dim=1)
    fewest = min(cells * (size**0.5) / sum(s**0.5 for s in sizes) for size in sizes[::2])
    allowed = ((lengths**2 + real**2) / fewest).sqrt()
    assert float((error / allowed).square().mean()) < 1.2
    assert abs(float((error / allowed).mean())) < 3.5 / 10


def test_a_projection_of_gradients_is_the_gradients_projection():
    model, inputs, labels = case("mlp")
    sizes = [value.numel() for value in model.parameters()]
    reduce = Reduce(sizes, 20, generator(0, "reduce"))
    flat = batch_gradients(model, model.state_dict(), inputs, labels)
    found = batch_gradients(model, model.state_dict(), inputs, labels, reduce=reduce)
    assert torch.equal(found, reduce(flat))
    again = Reduce(sizes, 20, generator(0, "reduce"))
    assert torch.equal(again(flat), found)
    assert not torch.equal(Reduce(sizes, 20, generator(1, "reduce"))(flat), found)
