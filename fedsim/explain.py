"""What an architecture gives away, without any data: in numbers and in words."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log10, prod
from typing import Any

import torch
from torch import Tensor, nn

from adversary.inversion.activations import ACTIVATIONS
from adversary.inversion.chain import chain
from adversary.inversion.identifiability import System, metric, system, systems
from adversary.inversion.jacobian import Spectrum, spectrum
from adversary.inversion.obstacles import Obstacle, obstacles
from adversary.inversion.precision import errors, gradients, levels
from fedsim import models
from fedsim.config import Config
from fedsim.core.errors import ConfigError, one_line
from fedsim.core.rng import generator, global_stream, threads
from fedsim.core.types import LocalTraining, Measure, Observation, Params

Shape = tuple[int, ...]
MOST_INPUTS = 4096  # of which every direction is looked at, in models of
MOST_WEIGHTS = 30_000_000  # parameters at most; of others by default
FEW = 256  # random directions
LARGE = 1_000_000  # parameters, from which on J is computed in float32


@dataclass(frozen=True, eq=False)
class Explanation:
    """What one architecture gives away.

    Attributes:
        name: As asked.
        shape: Of one input.
        parameters: How many are trained.
        systems: One per convolution and linear layer, from the input on.
        metric: c(M) of a chain that has convolutions; None without.
        stop: Why a recursion cannot walk back through the model; None where it can.
        spectrum: Of J; None where it was not asked for.
        psnr: What one upload of one example allows at best, in dB; None where not worked out.
        obstacles: To reconstruction, under the protocol.
        kind: "layer by layer", "jointly", "hidden" or "open".
        verdict: In words.
        reasons: For it.
        seconds: Of the closed forms.
    """

    name: str
    shape: Shape
    parameters: int
    systems: Sequence[System]
    metric: float | None
    stop: str | None
    spectrum: Spectrum | None
    psnr: float | None
    obstacles: Sequence[Obstacle]
    kind: str = ""
    verdict: str = ""
    reasons: Sequence[str] = ()
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        seen = self.spectrum
        return {
            "model": self.name,
            "input": list(self.shape),
            "parameters": self.parameters,
            "verdict": self.verdict,
            "kind": self.kind,
            "reasons": list(self.reasons),
            "c": self.metric,
            "stops_at": self.stop,
            "layers": [
                {**vars(it), "deficiency": it.deficiency} for it in self.systems
            ],
            "jacobian": None if seen is None else {
                "rank": seen.rank, "probed": seen.probed, "unknowns": seen.unknowns,
                "largest": float(seen.singular[0]),
                "smallest": float(seen.singular[max(seen.rank, 1) - 1]),
                "condition": seen.condition, "sketched": seen.sketched, "weights": seen.weights,
                "seconds": seen.seconds,
            },
            "psnr": self.psnr,
            "obstacles": [vars(it) for it in self.obstacles],
            "seconds": self.seconds,
        }  # fmt: skip


def explain(
    config: Config,
    shape: Shape,
    num_classes: int,
    local: LocalTraining,
    *,
    num_examples: int = 1,
    noise: float = 0.0,
    directions: int | None = None,
    on_chunk: Callable[[int, int], None] = lambda *_: None,
) -> Explanation:
    """Return what the config's model gives away of one input of uniform random pixels.

    Args:
        config: Its model and seed are used.
        shape: Of one input.
        num_classes: Number of labels.
        local: How clients train.
        num_examples: A client's.
        noise: Standard deviation of noise on every entry of the gradient.
        directions: Of the input, to look at; 0 for the closed forms alone. All without, or some
            drawn at random where that would take minutes.
        on_chunk: Called with directions done and in all.

    Raises:
        ConfigError: There is no such model, or it cannot take such inputs.
    """
    with threads(config.engine.threads), global_stream(config.seed, "explain"):
        model = models.build(config, shape, num_classes)
        at = torch.rand(shape, generator=generator(config.seed, "explain", "input"))
        start = time.perf_counter()
        found, stop, chained = _systems(model, at)
        convs = any(it.kind == "conv" for it in found)
        closed = time.perf_counter() - start
        weights = sum(p.numel() for p in model.parameters() if p.requires_grad)
        hard = obstacles(model, shape, local, num_examples, at)
        seen, psnr = None, None
        if directions != 0:
            seen, psnr = _spectrum(
                model, at, config.seed, local, noise=noise, directions=directions,
                on_chunk=on_chunk,
            )  # fmt: skip
    first = _open_first(model) if chained else None
    kind, verdict, reasons = _words(found, stop, chained, first, seen, prod(shape))
    return Explanation(
        config.model.name, shape, weights, found,
        metric(found) if convs and chained else None,
        stop, seen, psnr, hard, kind, verdict, reasons, closed,
    )  # fmt: skip


def hindrances(
    model: nn.Module, sent: Params, shape: Shape, local: LocalTraining, num_examples: int
) -> list[Obstacle]:
    """Return what stands between an update and its client's examples, at the weights sent.

    Args:
        model: The architecture; left as it is.
        sent: Its weights.
        shape: Of one example.
        local: How clients train.
        num_examples: A client's.
    """
    with global_stream(0, "explain"):
        model = copy.deepcopy(model)
        model.load_state_dict(dict(sent))
        at = torch.rand(shape, generator=generator(0, "explain", "input"))
        return obstacles(model, shape, local, num_examples, at)


def hindered(model: nn.Module, observation: Observation, shape: Shape) -> list[Measure]:
    """Return what stands in the way of reconstruction in a round, as metrics rows."""
    told = observation.update.num_examples or observation.local.batch_size
    found = hindrances(model, observation.sent, shape, observation.local, told)
    number = observation.update.round
    return [Measure(number, "server", "obstacle", 1.0, reason=str(it)) for it in found]


def _systems(model: nn.Module, at: Tensor) -> tuple[list[System], str | None, bool]:
    """Return the systems, why a recursion stops, if it does, and whether the model is a chain."""
    try:
        layers = chain(model, tuple(at.shape))
    except ValueError as error:
        return list(_called(model, at)), one_line(error), False
    lost = [it for it in layers if it.kind == "activation"
            and ACTIVATIONS[type(it.module)].inverse is None]  # fmt: skip
    if not lost:
        return systems(layers), None, True
    return (
        systems(layers),
        f"{lost[-1].name} = {type(lost[-1].module).__name__}: has no inverse",
        True,
    )


def _called(model: nn.Module, at: Tensor) -> Iterator[System]:
    """Return the system of each layer of a model with branches, as it is called."""
    calls: list[tuple[str, nn.Module, Shape, Shape]] = []
    handles = []
    copied = copy.deepcopy(model).eval()
    for name, module in copied.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):

            def note(of: nn.Module, given: tuple, out: Tensor, name: str = name) -> None:
                calls.append((name, of, tuple(given[0].shape[1:]), tuple(out.shape[1:])))

            handles.append(module.register_forward_hook(note))
    with torch.no_grad():
        copied(at.unsqueeze(0))
    for place, (name, module, shape, out) in enumerate(calls):
        try:
            yield system(name, module, shape, out, head=place == len(calls) - 1)
        except ValueError:  # padding that is no number of zeros
            continue


def _spectrum(
    model: nn.Module, at: Tensor, seed: int, local: LocalTraining, *, noise: float,
    directions: int | None, on_chunk: Callable[[int, int], None],
) -> tuple[Spectrum, float | None]:  # fmt: skip
    weights = sum(p.numel() for p in model.parameters())
    if directions is None and (weights > MOST_WEIGHTS or at.numel() > MOST_INPUTS):
        directions = FEW
    still = copy.deepcopy(model).eval()
    double = copy.deepcopy(still).double()
    # float32 takes a fifth of the time, and tells singular values over 4.5 decades instead of 6.
    looked = copy.deepcopy(still) if weights > LARGE else double
    told = errors(still, at, 0, upload=local.upload, lr=local.lr)
    noisy = levels(told, gradients(double, at.double(), 0), noise)
    stream = generator(seed, "explain", "projection")
    parameter = next(looked.parameters())
    try:
        seen = spectrum(
            looked, at.to(parameter.dtype), 0, generator=stream, noise=[noisy],
            directions=directions, on_chunk=on_chunk,
        )  # fmt: skip
    except RuntimeError as error:  # a user's layer without a second derivative
        raise ConfigError(f"model: must be differentiable twice ({one_line(error)})") from None
    return seen, -10 * log10(seen.mse[0]) if seen.mse else None


def _open_first(model: nn.Module) -> str | None:
    """Return the first layer, where the input can be read from its gradient alone."""
    named = [(name, it) for name, it in model.named_modules() if not list(it.children())]
    for name, module in named:
        if isinstance(module, nn.Linear) and module.bias is not None:
            return name
        if not isinstance(module, (nn.Flatten, nn.Identity)):
            return None
    return None


def _words(
    found: Sequence[System], stop: str | None, chained: bool, first: str | None,
    seen: Spectrum | None, size: int,
) -> tuple[str, str, list[str]]:  # fmt: skip
    """Return a kind, a verdict that promises nothing, and its reasons."""
    if first is not None:
        reason = f"the input is the gradient of {first}.weight over that of {first}.bias"
        return "layer by layer", "recoverable layer by layer", [reason]
    lacking = [it for it in found if it.deficiency] if chained else []
    reasons = [f"recursion stops at {stop}"] if stop else []
    reasons += [_lacks(it) for it in lacking]
    if not lacking and stop is None:
        return "layer by layer", "recoverable layer by layer", reasons
    if seen is None:
        return "open", "not layer by layer; jointly not looked at", reasons
    if seen.rank < seen.probed and (seen.sketched or not seen.sharp):
        lost = seen.probed - seen.rank
        reasons.append(
            f"{lost} directions are not seen in a random projection of the gradient"
            if seen.sharp
            else f"{lost} directions change the gradient by less than {seen.edge:.0e} of the "
            "strongest, which float32 does not tell from nothing"
        )
        return "open", f"at least {seen.rank} of {size} directions recoverable jointly", reasons
    if seen.rank < seen.probed:  # a random subspace of more dimensions meets all of J's rank
        return "hidden", f"{size - seen.rank} of {size} directions hidden", reasons
    if seen.probed == size:
        return "jointly", "recoverable jointly", reasons
    reasons.append(f"{seen.probed} random directions all show; looking at {size} takes longer")
    return "open", f"at least {seen.rank} of {size} directions recoverable jointly", reasons


def _lacks(it: System) -> str:
    dead = f", {it.dead} of them under no window" if it.dead else ""
    note = f" ({it.note})" if it.note else ""
    return f"{it.name} alone leaves {it.deficiency} of {it.unknowns} numbers open{dead}{note}"
