"""A language model of a few lines, random texts for it, and what clients upload."""

import copy

import torch
from torch import Generator, nn
from torch.nn import functional

PAD, BOS, EOS = 0, 1, 2


class Small(nn.Module):
    """Token and position tables, a causal mean, a perceptron, and a head without bias."""

    def __init__(self, vocabulary=256, width=64, length=16, seed=0):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.mix, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        stream = Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in (self.tokens.weight, self.positions.weight, self.head.weight):
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=stream))
            eye = torch.eye(width) / 2
            self.mix.weight.copy_(eye + 0.02 * torch.randn(width, width, generator=stream))
            self.mix.bias.zero_()

    def features(self, ids):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        before = x.cumsum(1) / torch.arange(1, ids.shape[1] + 1).unsqueeze(1)
        return self.norm(x + functional.gelu(self.mix(before)))

    def forward(self, ids):
        return self.head(self.features(ids)).transpose(1, 2)


def texts(count, *, vocabulary=256, length=16, seed=0):
    """Return inputs and targets of random texts, in which some tokens are more frequent."""
    stream = Generator().manual_seed(seed)
    rates = torch.rand(vocabulary - 3, generator=stream).pow(3)
    inputs = torch.zeros(count, length, dtype=torch.int64)
    targets = torch.full((count, length), -100)
    for row in range(count):
        size = int(torch.randint(2, length, (), generator=stream))
        ids = 3 + torch.multinomial(rates, size, replacement=True, generator=stream)
        inputs[row, : size + 1] = torch.cat([torch.tensor([BOS]), ids])
        targets[row, : size + 1] = torch.cat([ids, torch.tensor([EOS])])
    return inputs, targets


def loss(model, inputs, targets):
    """Return the mean over targets."""
    return functional.cross_entropy(model(inputs), targets)


def gradient(model, inputs, targets):
    """Return the gradient by name."""
    names, values = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss(model, inputs, targets), values), strict=True))


def trained(model, inputs, targets, step, *, steps=5, batch=2):
    """Return the update after some local steps.

    `step` takes a parameter, its gradient and what it kept of earlier steps, and gives the last two
    anew: the parameter and what it keeps. PyTorch's own optimisers take seconds to import.
    """
    client = copy.deepcopy(model)
    kept = {name: None for name, _ in client.named_parameters()}
    for place in range(steps):
        rows = torch.arange(place * batch, (place + 1) * batch) % len(inputs)
        gradients = gradient(client, inputs[rows], targets[rows])
        with torch.no_grad():
            for name, value in client.named_parameters():
                after, kept[name] = step(value, gradients[name], kept[name])
                value.copy_(after)
    sent = dict(model.named_parameters())
    return {name: (v - sent[name]).detach() for name, v in client.named_parameters()}


def sgd(value, gradient, kept, *, lr=0.1, momentum=0.0, decay=0.0):
    """PyTorch's SGD."""
    gradient = gradient + decay * value
    velocity = gradient if kept is None else momentum * kept + gradient
    return value - lr * velocity, velocity


def adam(value, gradient, kept, *, lr=1e-3, decay=0.0):
    """Loshchilov & Hutter's AdamW."""
    first, second, step = kept or (torch.zeros_like(value), torch.zeros_like(value), 0)
    first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
    step += 1
    size = (second / (1 - 0.999**step)).sqrt() + 1e-8
    after = value * (1 - lr * decay) - lr * first / (1 - 0.9**step) / size
    return after, (first, second, step)
