"""What an architecture gives away, without any data: in numbers and in words."""

import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from adversary.attacks.allotments import planned
from adversary.inversion.identifiability import metric
from adversary.inversion.obstacles import obstacles
from fedsim import models
from fedsim.config import Config
from fedsim.core.attention import plain_attention
from fedsim.core.boundary import PASSING, raised
from fedsim.core.devices import named, resolved, run_on, with_doubles
from fedsim.core.form import Form
from fedsim.core.rng import generator, global_stream, threads
from fedsim.core.types import Auxiliary, LocalTraining
from fedsim.explain.explanation import Explanation, Shape
from fedsim.explain.labels import readers_of
from fedsim.explain.layers import others_of, systems_of
from fedsim.explain.looks import look_around
from fedsim.explain.unseen import unseen
from fedsim.explain.verdict import judge, open_layer_of

T = TypeVar("T")


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
        config: Its model, seed and `engine` are used.
        shape: Shape of one input.
        num_classes: Number of labels.
        local: How clients train.
        num_examples: Number of a client's examples.
        noise: Standard deviation of noise on every entry of the gradient.
        directions: Number of input directions to look at; 0 for the closed forms alone. None for
            all, or for some drawn at random if all would take minutes.
        on_chunk: Called with the number of steps done, and of all.

    Raises:
        ConfigError: There is no such model, it cannot take such inputs, or the machine lacks the
            device.
    """
    device = with_doubles(named(resolved(config.engine.device)))
    with (
        threads(config.engine.threads),
        global_stream(config.seed, "explain"),
        plain_attention(),
    ):
        model = models.build(config.model, Form(shape, num_classes), seed=config.seed)
        return run_on(
            device,
            _explained,
            *(model, config, shape, num_classes, local),
            num_examples=num_examples,
            noise=noise,
            directions=directions,
            on_chunk=on_chunk,
        )


def _explained(
    model: nn.Module,
    config: Config,
    shape: Shape,
    num_classes: int,
    local: LocalTraining,
    *,
    num_examples: int,
    noise: float,
    directions: int | None,
    on_chunk: Callable[[int, int], None],
) -> Explanation:
    """Explain a model, where it is; arguments as for `explain`."""
    at = torch.rand(shape, generator=generator(config.seed, "explain", "input"))
    start = time.perf_counter()
    systems, stop, chained = systems_of(model, at)
    closed = time.perf_counter() - start
    hard, _ = _attempted(lambda: obstacles(model, shape, local, num_examples, at))
    looks, failure = None, None
    if directions != 0:
        looks, failure = _attempted(
            lambda: look_around(
                model,
                at,
                config.seed,
                local,
                num_classes=num_classes,
                noise=noise,
                directions=directions,
                on_chunk=on_chunk,
            )
        )
    plan, refused = _attempted(lambda: _plan(model, shape, num_classes, local, num_examples))
    labels, odd = _attempted(lambda: readers_of(model, shape, num_classes, local))
    named, alone = _attempted(lambda: list(unseen(model, at, num_classes)))
    spectrum = looks and looks.best
    return Explanation(
        name=config.model.name,
        shape=shape,
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        systems=systems,
        others=others_of(model, systems),
        metric=metric(systems) if chained and any(it.kind == "conv" for it in systems) else None,
        stop=stop,
        spectrum=spectrum,
        psnr=looks and looks.psnr,
        obstacles=hard or [],
        verdict=judge(
            systems,
            spectrum,
            stop=stop,
            open_layer=open_layer_of(model) if chained else None,
            chained=chained,
            unseen=named or ([f"training, which fails on one example ({alone})"] if alone else []),
            failure=failure,
            first_rank=looks and looks.first_rank,
        ),
        plan=plan or f"cannot look at the model ({refused})",
        labels=labels or [f"labels: not looked at, because training fails ({odd})"],
        seconds=closed,
    )


def _plan(
    model: nn.Module, shape: Shape, num_classes: int, local: LocalTraining, num_examples: int
) -> str:
    """Return which reconstructions would be tried on a client's update."""
    one_batch = local.upload == "gradient"
    count = min(num_examples, local.batch_size) if one_batch else num_examples
    return planned(Auxiliary(model, num_classes, input_shape=shape), local, count)


def _attempted(compute: Callable[[], T]) -> tuple[T | None, str | None]:
    """Return what a user's model makes possible, or why it does not."""
    try:
        return compute(), None
    except PASSING:
        raise
    except Exception as error:  # it may take no single example, or have no second derivative
        return None, raised(error)
