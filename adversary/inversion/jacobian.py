"""What the whole gradient map of a model determines of one input: the spectrum of its Jacobian.

J = d(gradient)/d(input), at one input with its label known, for every trained parameter. JᵀJ is a
sum over parameters. For linear layers, convolutions and norms (`layer_tangents`) tangents of 64
directions are one batch. Of a linear layer the tangents of x and dz are kept where they are fewer
numbers than those of dz xᵀ. Of many weights that places share the gradient is seen through a random
projection on both sides. Of other parameters the columns of J are kept, or, of too many, JᵀJv is
one product with J and one back (`products`). Which directions are hidden is decided by J, without
squares and projections (`hidden`).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from adversary.inversion.gram import Signals, View, gram, rows_of
from adversary.inversion.hidden import kernel, sizes, underived
from adversary.inversion.layer_tangents import Moved, frozen, layers_of, parameters_of, tangents
from adversary.inversion.products import Products
from fedsim.core.doubled import doubled

CHUNK, STEPS = 64, 16  # directions at a time, and how many layers' products take as long
# Of the largest eigenvalue of JᵀJ: what is below is not told from 0.
EDGES = {torch.float64: 1e-12, torch.float32: 1e-9}
WEAK = 1e-6  # of it: what is below is looked at again
FAINT = 1e-4  # of the edge: the squared size of what is not 0, but too weak to be measured
ENTRIES = 2**25  # of products that are held at a time


@dataclass(frozen=True, eq=False, kw_only=True)
class Spectrum:
    """The singular values of J, or of J on a random subspace.

    Attributes:
        singular: Descending, shape (probed,); 0 where it is hidden, or not told from 0. Not
            measured below the edge.
        unknowns: Numbers of the input.
        weights: How many weights J has rows for: all that are trained.
        sketched: Whether some were seen through a random projection: singular values are then
            right to some tens of per cent.
        edge: Below that share of the largest, a singular value is not measured.
        hidden: The probed directions that change no gradient, as orthonormal rows; None if they
            are not told from weak ones.
        underived: Why J does not say so; None without a reason.
        mse: Per set of noise levels, the mean squared error of the best estimate of the input.
        seconds: It took.
    """

    singular: Float[Tensor, " probed"]
    unknowns: int
    weights: int
    sketched: bool
    edge: float
    hidden: Float[Tensor, "lost n"] | None
    underived: str | None
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
        on_chunk: Called with steps done, from 0, and in all: chunks of directions, and layers.

    Raises:
        ValueError: The model has no trained parameter.
        RuntimeError: A layer has no second derivative.
    """
    start, size = time.perf_counter(), at.numel()
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    if not names:
        raise ValueError("model: must have a trained parameter, got none")
    products = Products(model, names, at[None], torch.tensor([label]))
    scale = sizes(products, generator)
    basis = _basis(size, directions, at.dtype, generator)
    levels = list(noise) if len(basis) == size else []
    sums = _Sums(len(basis), [dict.fromkeys(names, 1.0), scale, *levels])
    sketched = _add_all(products, basis, sums, generator, on_chunk)
    edge = EDGES[at.dtype]
    values = torch.linalg.eigvalsh(sums.totals[0]).flip(0)
    values = values.clamp(min=FAINT * edge * float(values[0])).sqrt()
    hidden = _hidden(sums.totals[1], products, scale, basis)
    lost = int((values <= edge**0.5 * values[0]).sum()) if hidden is None else len(hidden)
    values[len(values) - lost :] = 0
    reason = None
    if hidden is not None:
        reason = underived(_in_float64(products), scale, hidden.double(), generator)
    return Spectrum(
        singular=values,
        unknowns=size,
        weights=sum(dual.numel() for dual in products.duals),
        sketched=sketched,
        edge=edge**0.5,
        hidden=hidden,
        underived=reason,
        mse=tuple(_error(gram) for gram in sums.totals[2:]),
        seconds=time.perf_counter() - start,
    )


def _basis(size: int, directions: int | None, dtype: torch.dtype, generator: Generator) -> Tensor:
    """Return all directions of the input, or so many random orthonormal ones, as rows."""
    if directions is None or directions >= size:
        return torch.eye(size, dtype=dtype)
    drawn = torch.randn(size, directions, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(drawn)[0].T.to(dtype)


class _Sums:
    """JᵀD⁻²J along the directions, for several D: one number for each parameter's rows."""

    def __init__(self, probed: int, levels: Sequence[Mapping[str, float]]) -> None:
        self.levels = levels
        self.totals = [torch.zeros(probed, probed, dtype=torch.float64) for _ in levels]

    def add(self, name: str, gram: Tensor) -> None:
        """Add one parameter's part of JᵀJ."""
        for total, level in zip(self.totals, self.levels, strict=True):
            total.add_(gram, alpha=level[name] ** -2)


def _add_all(
    products: Products,
    basis: Tensor,
    sums: _Sums,
    generator: Generator,
    on_chunk: Callable[[int, int], None],
) -> bool:
    """Add every parameter's part; return whether any is seen through a projection."""
    model, at, label = products.model, products.x.detach()[0], int(products.labels)
    exact = _in_float64(products)  # in float32 rounding looks like a layer of another kind
    names = layers_of(exact.model, exact.x.detach()[0], label, generator)
    layers = {name: model.get_submodule(name) for name in names}

    def moved_along(chunk: Tensor) -> Moved:
        with frozen(model):
            return tangents(model, layers, at, label, chunk.view(-1, *at.shape))

    views: dict[str, View] = {}
    if layers:
        points, _ = moved_along(basis[:1])
        places = {name: it.x[0].numel() // it.x.shape[-1] for name, it in points.items()}
        rows = rows_of(layers, places, at.numel(), len(basis))
        views = {
            name: View(module, parameters_of(model, module), rows[name], places[name], generator)
            for name, module in layers.items()
        }
    covered = {name for view in views.values() for name in view.names}
    others = [name for name in products.names if name not in covered]
    chunks = -(-len(basis) // CHUNK)
    layered = STEPS * chunks + len(views) if views else 0
    total = layered + (STEPS // 4 * chunks if others else 0)
    on_chunk(0, total)
    if views:
        _add_layers(moved_along, views, basis, sums, lambda done: on_chunk(done, total))
    if others:
        rest = Products(model, others, products.x, products.labels)
        on_share = lambda share: on_chunk(layered + int(share * (total - layered)), total)
        _add_others(rest, basis, sums, on_share)
    return any(view.left is not None for view in views.values())


def _add_layers(
    moved_along: Callable[[Tensor], Moved],
    views: Mapping[str, View],
    basis: Tensor,
    sums: _Sums,
    on_step: Callable[[int], None],
) -> None:
    """Add the part of layers whose tangents are computed in batches."""
    columns: dict[str, Signals] = {}
    points: dict[str, Signals] = {}
    for done, chunk in enumerate(basis.split(CHUNK)):
        points, moved = moved_along(chunk)
        for name, view in views.items():
            part = view.reduced(points[name], moved[name])
            if name not in columns:  # at once, so that what lies between is used again
                columns[name] = _room(part, len(basis))
            columns[name].x[done * CHUNK : (done + 1) * CHUNK] = part.x
            columns[name].dz[done * CHUNK : (done + 1) * CHUNK] = part.dz
        on_step(STEPS * (done + 1))
    chunks = STEPS * -(-len(basis) // CHUNK)
    for done, (name, view) in enumerate(views.items(), start=chunks + 1):
        for parameter, part in view.grams(points[name], columns.pop(name)):
            sums.add(parameter, part)
        on_step(done)


def _room(part: Signals, count: int) -> Signals:
    """Return unset columns of a part's shape."""
    x, dz = (of.new_empty(count, *of.shape[1:]) for of in (part.x, part.dz))
    return Signals(x, dz)


def _add_others(
    products: Products, basis: Tensor, sums: _Sums, on_share: Callable[[float], None]
) -> None:
    """Add the part of any parameters: J's columns, or a product and one back for each D."""
    entries = sum(dual.numel() for dual in products.duals)
    if entries * len(basis) <= ENTRIES:
        _add_columns(products, basis, sums, on_share)
        return
    together = max(1, min(CHUNK, ENTRIES // (entries * len(sums.levels))))
    parts = [torch.zeros_like(total) for total in sums.totals]
    for place, chunk in enumerate(basis.split(together)):
        moved = products.push(chunk.view(-1, *products.x.shape))
        scaled = [
            torch.cat([value * level[name] ** -2 for level in sums.levels])
            for name, value in zip(products.names, moved, strict=True)
        ]
        rows = products.pull(scaled).view(len(parts), len(chunk), -1) @ basis.T
        for part, row in zip(parts, rows, strict=True):
            part[place * together : place * together + len(chunk)] = row
        on_share(min((place + 1) * together / len(basis), 1.0))
    for total, part in zip(sums.totals, parts, strict=True):
        total.add_((part + part.T) / 2)


def _add_columns(
    products: Products, basis: Tensor, sums: _Sums, on_share: Callable[[float], None]
) -> None:
    """Add the part of a few numbers, whose columns of J are kept: a quarter of the products."""
    columns = []
    for chunk in basis.split(CHUNK):
        columns.append([it.flatten(1) for it in products.push(chunk.view(-1, *products.x.shape))])
        on_share(min(len(columns) * CHUNK / len(basis), 1.0))
    for name, *parts in zip(products.names, *columns, strict=True):
        sums.add(name, gram(torch.cat(parts)))


def _hidden(
    gram: Tensor, products: Products, scale: Mapping[str, float], basis: Tensor
) -> Tensor | None:
    """Return the hidden directions, orthonormal rows; None where they are not told from weak ones.

    Args:
        gram: JᵀD⁻²J along the basis, D the sizes of parameters.
        products: With J.
        scale: The sizes.
        basis: Orthonormal rows.
    """
    edge = EDGES[basis.dtype]
    squares, vectors = torch.linalg.eigh(gram)
    if squares[0] > edge * squares[-1]:
        return basis[:0]
    if basis.dtype != torch.float64:
        return None
    return kernel(products, scale, vectors[:, squares <= WEAK * squares[-1]].T @ basis)


def _in_float64(products: Products) -> Products:
    """Return J in the precision in which differences of gradients tell its faults."""
    if products.x.dtype == torch.float64:
        return products
    model, x = doubled(products.model), products.x.detach().double()
    return Products(model, products.names, x, products.labels)


def _error(gram: Tensor) -> float:
    """Return tr((G + 12·I)⁻¹)/n."""
    return float((1 / (torch.linalg.eigvalsh(gram).clamp(min=0) + 12)).mean())
