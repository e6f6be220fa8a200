"""What the whole gradient map of a model determines of one input: the spectrum of its Jacobian.

J = d(gradient)/d(input), at one input with its label known, for the weights and biases of all
convolutions and linear layers. Its columns come from reverse mode alone: a layer's gradient is
dW = dz xᵀ (summed over places), so that the tangents of x and dz of every layer are enough, and
JᵀJ is the sum of one Gram matrix per layer. A linear layer's needs no column of its gradient; of a
convolution with many weights the gradient is seen through a random projection on both sides.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional

from adversary.inversion.gram import Signals, View
from fedsim.core.attention import plain_attention

CHUNK = 64  # directions at a time
# Of the largest eigenvalue of JᵀJ: what is below is not told from 0.
EDGES = {torch.float64: 1e-12, torch.float32: 1e-9}
EXACT = 12  # columns per input number up to which the gradient of all convolutions is kept


@dataclass(frozen=True, eq=False, kw_only=True)
class Spectrum:
    """The singular values of J, or of J on a random subspace.

    Attributes:
        singular: Descending, shape (probed,); 0 where it is not told from 0.
        unknowns: Numbers of the input.
        weights: How many weights J has rows for; the model may have others.
        sketched: Whether some were seen through a random projection: the rank is then at least
            what is said, and singular values are right to some tens of per cent.
        edge: Below that share of the largest, a singular value is not told from 0.
        mse: Per set of noise levels, the mean squared error of the best estimate of the input.
        seconds: It took.
    """

    singular: Float[Tensor, " probed"]
    unknowns: int
    weights: int
    sketched: bool
    edge: float
    mse: tuple[float, ...]
    seconds: float

    @property
    def probed(self) -> int:
        """How many directions were looked at; all, or random ones."""
        return len(self.singular)

    @property
    def rank(self) -> int:
        """How many of them change the gradient."""
        return int((self.singular > 0).sum())

    @property
    def sharp(self) -> bool:
        """Whether a direction below the edge may be called hidden, and not only weak."""
        return self.edge < 1e-5

    @property
    def condition(self) -> float:
        """The largest singular value over the smallest that is not 0."""
        nonzero = self.singular[self.singular > 0]
        return float(nonzero[0] / nonzero[-1]) if len(nonzero) else float("inf")


def spectrum(
    model: nn.Module,
    at: Tensor,
    label: int,
    *,
    generator: Generator,
    noise: Sequence[Mapping[str, float]] = (),
    directions: int | None = None,
    on_chunk: Callable[[int, int], None] = lambda *_: None,
) -> Spectrum:
    """Return the singular values of J, with the errors that noise on the gradient makes.

    The error is that of the linear least-squares estimate under a prior with the variance of
    uniform pixels, 1/12: (1/n)·tr((JᵀD⁻²J + 12·I)⁻¹), D the noise. It holds for small errors.

    Args:
        model: In float64 or float32, in the mode in which it is looked at; left as it is.
        at: The input, shape (*input_shape), of the same type.
        label: Its class.
        generator: Draws the projections and, where time does not allow all, the directions.
        noise: Standard deviation of the noise on each parameter's gradient, once or several times.
        directions: Look at that many, drawn at random; at all without.
        on_chunk: Called with directions done and in all.

    Raises:
        ValueError: The model has no convolution or linear layer to look at.
    """
    start, size = time.perf_counter(), at.numel()
    layers = _layers(model, at)
    if not layers:
        raise ValueError("model: must have a convolution or a linear layer with weights, got none")
    rows = _rows(layers, size)
    views = {name: View(module, rows[name], generator) for name, module in layers.items()}
    basis = _basis(size, directions, at.dtype, generator)
    columns: dict[str, Signals] = {}
    points: dict[str, Signals] = {}
    for done, chunk in enumerate(basis.split(CHUNK)):
        with _frozen(model):
            points, tangents = _tangents(model, layers, at, label, chunk.view(-1, *at.shape))
        for name, view in views.items():
            part = view.reduced(points[name], tangents[name])
            if name not in columns:  # at once, so that what lies between is used again
                columns[name] = _room(part, len(basis))
            columns[name].x[done * CHUNK : (done + 1) * CHUNK] = part.x
            columns[name].dz[done * CHUNK : (done + 1) * CHUNK] = part.dz
        on_chunk(min((done + 1) * CHUNK, len(basis)), len(basis))
    return _solved(views, points, columns, size, noise, start)


def _basis(size: int, directions: int | None, dtype: torch.dtype, generator: Generator) -> Tensor:
    """Return all directions of the input, or so many random orthonormal ones, as rows."""
    if directions is None or directions >= size:
        return torch.eye(size, dtype=dtype)
    drawn = torch.randn(size, directions, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(drawn)[0].T.to(dtype)


def _room(part: Signals, count: int) -> Signals:
    """Return unset columns of a part's shape."""
    x, dz = (of.new_empty(count, *of.shape[1:]) for of in (part.x, part.dz))
    return Signals(x, dz)


def _solved(
    views: Mapping[str, View],
    points: Mapping[str, Signals],
    columns: dict[str, Signals],
    size: int,
    noise: Sequence[Mapping[str, float]],
    start: float,
) -> Spectrum:
    probed = len(next(iter(columns.values())).x)
    total = torch.zeros(probed, probed, dtype=torch.float64)
    weighted = [torch.zeros_like(total) for _ in noise] if probed == size else []
    edge = 0.0
    for name, view in views.items():
        tangents = columns.pop(name)
        edge = EDGES[tangents.x.dtype]
        for parameter, gram in view.grams(name, points[name], tangents):
            total += gram
            for precision, levels in zip(weighted, noise, strict=False):
                precision.add_(gram, alpha=levels[parameter] ** -2)
    values = torch.linalg.eigvalsh(total).flip(0)
    values = torch.where(values > edge * values[0], values, 0.0)
    mse = tuple(_error(gram) for gram in weighted)
    weights = sum(p.numel() for view in views.values() for p in view.module.parameters())
    sketched = any(view.left is not None for view in views.values())
    return Spectrum(
        singular=values.sqrt(),
        unknowns=size,
        weights=weights,
        sketched=sketched,
        edge=edge**0.5,
        mse=mse,
        seconds=time.perf_counter() - start,
    )


def _error(gram: Tensor) -> float:
    """Return tr((G + 12·I)⁻¹)/n."""
    return float((1 / (torch.linalg.eigvalsh(gram).clamp(min=0) + 12)).mean())


def _layers(model: nn.Module, at: Tensor) -> dict[str, nn.Module]:
    """Return the layers whose weights' gradients are looked at: those called once, by name."""
    calls: dict[str, int] = {}
    handles = []
    candidates = {
        name: module
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and _plain(module)))
        and module.weight.requires_grad
    }
    for name, module in candidates.items():
        count = lambda *_, name=name: calls.update({name: calls.get(name, 0) + 1})
        handles.append(module.register_forward_hook(count))
    try:
        with torch.no_grad():
            model(at.unsqueeze(0))
    finally:
        for handle in handles:
            handle.remove()
    return {name: module for name, module in candidates.items() if calls.get(name) == 1}


def _rows(layers: Mapping[str, nn.Module], size: int) -> dict[str, int]:
    """Return how many numbers of each convolution's gradient are kept.

    All of them, or most of the first layers: what pooling hides from the later ones, only these
    can tell.
    """
    convs = {n: m.weight.numel() for n, m in layers.items() if isinstance(m, nn.Conv2d)}
    if sum(convs.values()) <= EXACT * size:
        return {name: convs.get(name, 0) for name in layers}
    third = EXACT * size // 3
    shares = {name: max(third // 2**i, third // len(convs), 1) for i, name in enumerate(convs)}
    return {name: shares.get(name, 0) for name in layers}


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter ask for its gradient: ten times faster."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_()


def _plain(module: nn.Conv2d) -> bool:
    zeros = module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return zeros and module.groups == 1


def _tangents(
    model: nn.Module, layers: Mapping[str, nn.Module], at: Tensor, label: int, chunk: Tensor
) -> tuple[dict[str, Signals], dict[str, Signals]]:
    """Return x and dz of every layer, and their derivatives along a chunk of directions.

    The derivative of f along v is that of ⟨∂⟨f, u⟩/∂x, v⟩ by u, for every copy of the input.
    """
    count = len(chunk)
    copies = at.expand(count, *at.shape).clone().requires_grad_()
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    handles = []
    for name, module in layers.items():

        def keep(_: nn.Module, given: tuple, out: Tensor, name: str = name) -> Tensor:
            inputs[name], outputs[name] = given[0], out
            return out.clone()  # an activation in place must not change what is kept

        handles.append(module.register_forward_hook(keep))
    try:
        with plain_attention():
            logits = model(copies)
    finally:
        for handle in handles:
            handle.remove()
    loss = functional.cross_entropy(logits, torch.full((count,), label), reduction="sum")
    names = list(layers)
    slopes = torch.autograd.grad(loss, [outputs[name] for name in names], create_graph=True)
    signals = [inputs[name] for name in names] + list(slopes)
    dummies = [torch.zeros_like(value, requires_grad=True) for value in signals]
    sum_ = torch.stack([(a * b).sum() for a, b in zip(signals, dummies, strict=True)]).sum()
    (pulled,) = torch.autograd.grad(sum_, copies, create_graph=True)
    moved = torch.autograd.grad(
        (pulled * chunk).sum(), dummies, allow_unused=True, materialize_grads=True
    )
    n = len(names)
    points = {
        name: Signals(signals[i][:1].detach(), slopes[i][:1].detach())
        for i, name in enumerate(names)
    }
    return points, {name: Signals(moved[i], moved[n + i]) for i, name in enumerate(names)}
