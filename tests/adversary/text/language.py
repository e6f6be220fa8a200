"""A small language model and random texts, of which every invariant of spans must hold."""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from adversary.text.spans import components

PAD, BOS = 0, 1


class Conv1D(nn.Module):
    """Transformers' linear map, whose weight is (in, out); one for queries, keys and values."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(into, out) * 0.02)
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Block(nn.Module):
    def __init__(self, width: int, *, causal: bool, fused: bool) -> None:
        super().__init__()
        self.causal, self.fused = causal, fused
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        if fused:
            self.attention = Conv1D(width, 3 * width)
        else:
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        z = self.before(x)
        parts = self.attention(z).chunk(3, -1) if self.fused else self._apart(z)
        heads = [it.unflatten(2, (2, -1)).transpose(1, 2) for it in parts]
        mixed = functional.scaled_dot_product_attention(*heads, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.between(x))))

    def _apart(self, z: Tensor) -> tuple[Tensor, ...]:
        return self.query(z), self.key(z), self.value(z)


class Language(nn.Module):
    """Token ids (n, length) → logits (n, vocabulary, length)."""

    def __init__(self, *, vocabulary=64, width=32, length=8, causal=True, fused=False, placed=True):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width) if placed else None
        self.blocks = nn.Sequential(*(Block(width, causal=causal, fused=fused) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.1)
                if getattr(module, "bias", None) is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        if self.places is not None:
            x = x + self.places(torch.arange(ids.shape[1]))
        return self.head(self.norm(self.blocks(x))).transpose(1, 2)


def language(seed: int, *, double: bool = False, **options) -> Language:
    """Return a model with random weights, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Language(**options).eval()
    return model.double() if double else model


def texts(seed: int, count: int, *, vocabulary: int = 64, length: int = 8) -> Tensor:
    """Return random texts that begin with BOS, padded on the right, shape (count, length)."""
    stream = Generator().manual_seed(seed)
    ids = torch.randint(3, vocabulary, (count, length), generator=stream)
    ids[:, 0] = BOS
    sizes = torch.randint(2, length + 1, (count, 1), generator=stream)
    return ids.masked_fill(torch.arange(length) >= sizes, PAD)


def targets(ids: Tensor) -> Tensor:
    """Return the next token of each; after the last EOS (2), −100 at pads."""
    following = torch.cat([ids[:, 1:], torch.zeros_like(ids[:, :1])], dim=1)
    return following.masked_fill(following == PAD, 2).masked_fill(ids == PAD, -100)


def gradient(model: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """Return the gradient of the mean loss over all targets."""
    names = [name for name, it in model.named_parameters() if it.requires_grad]
    weights = [it for it in model.parameters() if it.requires_grad]
    loss = functional.cross_entropy(model(ids), targets(ids))
    return dict(zip(names, torch.autograd.grad(loss, weights), strict=True))


def pairs_of(ids: Tensor) -> set[tuple[int, int]]:
    """Return the (token, position) pairs of some texts."""
    return {(int(ids[n, i]), int(i)) for n, i in (ids != PAD).nonzero()}


def as_tuples(ids: Tensor) -> list[tuple[int, ...]]:
    """Return texts without padding."""
    return [tuple(row[row != PAD].tolist()) for row in ids]


def prefixes_of(ids: Tensor) -> set[tuple[int, ...]]:
    """Return the distinct prefixes of some texts."""
    return {text[: k + 1] for text in as_tuples(ids) for k in range(len(text))}


def closure(pairs):
    """Return all (token, position) pairs whose vectors lie in the span of those of some pairs."""
    return {
        (token, position)
        for tokens, positions in components(pairs)
        for token in tokens
        for position in positions
    }
