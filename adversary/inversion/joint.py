"""The whole gradient map at once: Gauss-Newton with damping, from products with its Jacobian alone.

fedsim's own. Recursion needs every layer's system to be determined. The gradient of all layers
together often determines the input where single layers do not, and squared errors of gradients fall
faster by Gauss-Newton steps than by first-order gradient matching, which diverges on half of the
images where this converges.

K. Levenberg, 1944; D. Marquardt, 1963; the step by conjugate gradients on the normal equations, or
densely where inputs are small.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from adversary.inversion.local_steps import flat, one_hot, simulated
from adversary.inversion.problems import Problem
from fedsim.core import progress
from fedsim.core.attention import plain_attention
from fedsim.core.types import Params

DENSE = 1100  # unknowns up to which the Jacobian is formed, of so many entries,
LARGE = 4096  # and up to which it is from the first step on that gains little
SLOW = 0.5  # of the error is left after such a step
ENTRIES = 2**28
TOGETHER = 64  # of its columns
INNER = 120  # steps of conjugate gradients
FORCING = 1e-3  # residual of the inner system that is enough
GROW, SHRINK = 4.0, 0.25  # of the damping
START = 1e-2  # damping, of the mean curvature
DONE = 1e-26  # squared error that is none, of 1
STALLED = 1e-4  # relative gain of a step that is none
HOPELESS = 1e12  # damping, of the mean curvature, at which no step helps


@dataclass(frozen=True, eq=False)
class Fit:
    """Inputs whose gradient comes near the observed one.

    Attributes:
        inputs: Shape (n, *shape).
        error: ‖u(x) − u‖² / ‖u‖², u the upload.
        steps: Gauss-Newton steps tried.
    """

    inputs: Tensor
    error: float
    steps: int


Residual = Callable[[Float[Tensor, "n *shape"]], Float[Tensor, " entries"]]
"""Inputs → the upload they would cause less the one observed, over the latter's length; can be
differentiated."""


def of_gradient(
    model: nn.Module,
    sent: Params,
    gradient: Params,
    labels: Int[Tensor, " n"],
    smoothing: float = 0.0,
) -> Residual:
    """Return the residual of one gradient of a batch.

    Args:
        model: The architecture, float64; its weights mean nothing.
        sent: The weights, float64.
        gradient: Observed, the mean over the batch, float64.
        labels: Of the inputs.
        smoothing: Label smoothing of the loss.
    """
    names = list(gradient)
    observed = _flat([gradient[name] for name in names])
    length = float(observed.norm()) or 1.0

    def residual(x: Tensor) -> Tensor:
        leaves = {name: sent[name].detach().requires_grad_() for name in names}
        with plain_attention():
            logits = functional_call(model, {**sent, **leaves}, (x,))
        loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        gradients = torch.autograd.grad(
            loss, [leaves[name] for name in names], create_graph=True, materialize_grads=True
        )
        return (_flat(gradients) - observed) / length

    return residual


def of_upload(problem: Problem, labels: Int[Tensor, " n"]) -> Residual:
    """Return the residual of an upload after local training, which is simulated.

    Args:
        problem: What is matched, float64.
        labels: Of the inputs, in the order of their use.
    """
    targets = one_hot(labels, problem.classes, problem.model.dtype)[None]
    length = float(problem.observed.norm()) or 1.0

    def residual(x: Tensor) -> Tensor:
        upload = flat(simulated(problem.model, x[None], targets, problem.local)) / problem.unit
        return (upload - problem.observed)[0] / length

    return residual


def gauss_newton(
    residual: Residual,
    start: Float[Tensor, "n *shape"],
    *,
    steps: int = 40,
    low: float = 0.0,
    high: float = 1.0,
) -> Fit:
    """Minimise ‖r(x)‖² over a batch of inputs.

    Args:
        residual: r, of length 1 where the simulated upload is zero.
        start: Where to start, float64.
        steps: At most so many.
        low: The least value of an input, kept to loosely: steps are clipped one range beyond.
        high: The largest.
    """
    x, damping, most = start.clone(), None, DENSE
    reach = high - low
    at, error = linearised(residual, x)
    for step in range(steps):
        progress.report(step, steps, "Gauss-Newton steps")
        if error <= DONE or not math.isfinite(error):
            return Fit(x, error, step)
        right = -at.pull(at.value)
        curvature = max(at.curvature(), torch.finfo(x.dtype).tiny)
        if not (math.isfinite(curvature) and bool(right.any())):
            return Fit(x, error, step)
        damping = START * curvature if damping is None else damping
        while True:
            move = at.solve(right, damping, most)
            tried = (x + move).clamp(low - reach, high + reach)
            trial, lower = linearised(residual, tried)
            if lower < error:
                gain, solved = 1 - lower / error, at.fits(most)
                x, at, error = tried, trial, lower
                damping *= SHRINK
                if gain < 1 - SLOW:
                    most = LARGE
                if gain < STALLED and (solved or not at.fits(most)):
                    return Fit(x, error, step + 1)
                break
            damping *= GROW
            if damping > HOPELESS * curvature:
                return Fit(x, error, step + 1)
    return Fit(x, error, steps)


def misfit(residual: Residual, inputs: Float[Tensor, "n *shape"]) -> float:
    """Return ‖r(x)‖²."""
    return float(residual(inputs).detach().square().sum())


class Linearised:
    """The residual at a point, and products with its Jacobian there."""

    def __init__(self, residual: Residual, x: Tensor) -> None:
        self.x = x.detach().requires_grad_()
        with torch.enable_grad():
            self.graph = residual(self.x)
            self.dual = torch.zeros_like(self.graph, requires_grad=True)
            (self.pulled,) = torch.autograd.grad(
                self.graph, self.x, self.dual, create_graph=True, materialize_grads=True
            )
        self.value = self.graph.detach()
        self._gram: Tensor | None = None

    def pull(self, u: Tensor) -> Tensor:
        """Return Jᵀ·u."""
        (product,) = torch.autograd.grad(
            self.graph, self.x, u, retain_graph=True, materialize_grads=True
        )
        return product

    def push(self, v: Tensor) -> Tensor:
        """Return J·v, by differentiating Jᵀ·u in u."""
        (product,) = torch.autograd.grad(
            self.pulled, self.dual, v, retain_graph=True, materialize_grads=True
        )
        return product

    def _pushed(self, v: Tensor) -> Tensor:
        """Return J·v of several v at once, (rows, entries)."""
        (products,) = torch.autograd.grad(
            self.pulled,
            self.dual,
            v,
            is_grads_batched=True,
            retain_graph=True,
            materialize_grads=True,
        )
        return products

    def curvature(self) -> float:
        """Return about the mean diagonal of JᵀJ."""
        probe = torch.sign(torch.sin(torch.arange(1.0, self.x.numel() + 1)) + 1e-9)
        probe = probe.to(self.x.dtype).view_as(self.x)
        return float(self.push(probe).square().sum()) / self.x.numel()

    def gram(self) -> Tensor:
        """Return JᵀJ."""
        if self._gram is None:
            columns = self.columns()
            self._gram = columns @ columns.T
        return self._gram

    def columns(self) -> Tensor:
        """Return J's columns, as rows."""
        unit = torch.eye(self.x.numel(), dtype=self.x.dtype)
        parts = [self._pushed(rows.view(-1, *self.x.shape)) for rows in unit.split(TOGETHER)]
        return torch.cat(parts)

    def sketch(self, count: int, generator: Generator) -> Float[Tensor, "count entries"]:
        """Return an orthonormal basis of about the directions in which J is largest.

        N. Halko, P. Martinsson, J. Tropp, SIAM Review 2011, Algorithm 4.3 with one iteration.
        """
        drawn = torch.randn(count, self.x.numel(), dtype=self.x.dtype, generator=generator)
        basis = self._pushed(drawn.view(count, *self.x.shape))
        basis = torch.linalg.qr(basis.T).Q.T
        again = torch.stack([self.pull(it) for it in basis])
        return torch.linalg.qr(self._pushed(again).T).Q.T

    def fits(self, most: int) -> bool:
        """Return whether the Jacobian is formed, of so many unknowns at most."""
        return self.x.numel() <= most and self.x.numel() * self.dual.numel() <= ENTRIES

    def solve(self, right: Tensor, damping: float, most: int) -> Tensor:
        """Return (JᵀJ + damping)⁻¹·right, by conjugate gradients beyond `most` unknowns."""
        if self.fits(most):
            gram = self.gram() + damping * torch.eye(right.numel(), dtype=right.dtype)
            factor = torch.linalg.cholesky_ex(gram)[0]
            return torch.cholesky_solve(right.flatten()[:, None], factor)[:, 0].view_as(right)
        x, r = torch.zeros_like(right), right.clone()
        p, size = r.clone(), float(r.square().sum())
        enough = FORCING**2 * size
        for _ in range(INNER):
            image = self.push(p)
            curved = float(image.square().sum()) + damping * float(p.square().sum())
            alpha = size / curved
            x = x + alpha * p
            r = r - alpha * (self.pull(image) + damping * p)
            new = float(r.square().sum())
            if new <= enough:
                break
            p, size = r + (new / size) * p, new
        return x


def linearised(residual: Residual, x: Tensor) -> tuple[Linearised, float]:
    """Return the residual at a point with its derivative, and ‖r(x)‖²."""
    at = Linearised(residual, x)
    return at, float(at.value.square().sum())


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])
