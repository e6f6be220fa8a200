"""What a token model gives away of a batch of texts, and what is in the way.

I. Petrov et al., "DAGER", NeurIPS 2024: a layer's gradient spans what the layer takes. Texts are
exact while their distinct prefixes are fewer than a layer's width less one, and while as many
singular values of its gradient are above float32 rounding. The texts here are random: real ones
share prefixes, and so have fewer.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from adversary.inversion.chain import drops_out
from adversary.inversion.obstacles import Obstacle, optimizer_obstacles
from adversary.text.layers import Layers, layers_of
from adversary.text.sites import Site
from adversary.text.spans import above_rounding, span_of
from adversary.workspace import workspace
from fedsim import models
from fedsim.config import Config
from fedsim.core import sgd
from fedsim.core.devices import named, resolved, run_on, with_doubles
from fedsim.core.errors import NotApplicable
from fedsim.core.form import Form
from fedsim.core.params import norm
from fedsim.core.rng import generator, global_stream, threads
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Params, Update, View
from fedsim.core.vocabulary import BOS, Vocabulary

SPECIAL = 3  # ids that are no tokens: pad, begin, end


@dataclass(frozen=True, kw_only=True)
class TextExplanation:
    """What one token model gives away of texts.

    Attributes:
        name: In the config.
        length: Tokens of a text.
        vocabulary: Number of token ids.
        parameters: Number of trained parameters.
        layer: The first module that takes the best conditioned span's vectors; None without one.
        limit: The most distinct prefixes that a span of it can tell apart.
        prefixes: Of the random texts that were looked at.
        singular: How many singular values of its gradient are above float32 rounding.
        obstacles: What makes an attack on texts fail.
        verdict: What is recoverable, in words.
    """

    name: str
    length: int
    vocabulary: int
    parameters: int
    layer: str | None
    limit: int
    prefixes: int
    singular: int
    obstacles: tuple[Obstacle, ...]
    verdict: str

    def summary(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return asdict(self)


def explain_texts(
    config: Config, length: int, vocabulary: int, local: LocalTraining, *, num_examples: int = 1
) -> TextExplanation:
    """Return what a config's language model gives away of random texts.

    Args:
        config: Its model, seed and `engine` are used.
        length: Tokens of a text.
        vocabulary: Number of token ids.
        local: How clients train.
        num_examples: Texts of a client.

    Raises:
        ConfigError: There is no such model, it takes no tokens, or the machine lacks the device.
        NotApplicable: It has no layer that sees earlier tokens alone.
    """
    form = Form((length,), vocabulary, torch.int64, vocabulary, per_token=True)
    device = with_doubles(named(resolved(config.engine.device)))
    with threads(config.engine.threads), global_stream(config.seed, "explain"):
        model = models.build(config.model, form, seed=config.seed)
        return run_on(device, _explained, model, config, form, local, num_examples)


def _explained(
    model: nn.Module, config: Config, form: Form, local: LocalTraining, num_examples: int
) -> TextExplanation:
    """Explain a model, where it is."""
    update, prefixes = _gradient(model, form, num_examples, config.seed)
    layers = _layers(model, form, update, local)
    held = [site for site in layers.causal if site.within(update)]
    best = max(held, key=lambda site: _conditioned(site, update, prefixes), default=None)
    singular = 0 if best is None else above_rounding(span_of(best.rows(update)))
    limit = 0 if best is None else min(best.width, *best.rows(update).shape) - 2
    hard = tuple(_obstacles(model, update, local, num_examples))
    return TextExplanation(
        name=config.model.name,
        length=form.shape[0],
        vocabulary=form.num_classes,
        parameters=sum(it.numel() for it in model.parameters() if it.requires_grad),
        layer=None if best is None else best.module,
        limit=limit,
        prefixes=prefixes,
        singular=singular,
        obstacles=hard,
        verdict=_verdict(prefixes, limit, singular, hindered=bool(hard)),
    )


def _gradient(model: nn.Module, form: Form, count: int, seed: int) -> tuple[dict[str, Tensor], int]:
    """Return the gradient of random texts, and the number of their distinct prefixes."""
    stream = generator(seed, "explain", "texts")
    assert form.vocabulary is not None
    ids = torch.randint(SPECIAL, form.vocabulary, (count, form.shape[0]), generator=stream)
    ids[:, 0] = BOS
    following = torch.randint(SPECIAL, form.vocabulary, (count, 1), generator=stream)
    targets = torch.cat([ids[:, 1:], following], dim=1)
    weights = {name: it for name, it in model.named_parameters() if it.requires_grad}
    slopes = sgd.gradients(functional.cross_entropy(model.eval()(ids), targets), weights)
    rows = ids.tolist()
    prefixes = {tuple(row[: k + 1]) for row in rows for k in range(len(row))}
    return dict(zip(weights, slopes, strict=True)), len(prefixes)


def _layers(model: nn.Module, form: Form, update: Params, local: LocalTraining) -> Layers:
    assert form.vocabulary is not None
    words = Vocabulary(tuple(b"" for _ in range(form.vocabulary)))
    sent = {name: value.detach() for name, value in model.state_dict().items()}
    view = View([Observation(sent, Update(1, "trial", update, 1), local)])
    auxiliary = Auxiliary(
        model, form.num_classes, input_shape=form.shape, vocabulary=words, per_token=True
    )
    layers = workspace(view, auxiliary).part(layers_of)
    if not layers.causal:
        raise NotApplicable(
            "model: must see earlier tokens alone, got none of its layers that does"
        )
    return layers


def _conditioned(site: Site, update: Params, prefixes: int) -> float:
    """Return the singular value that must be above rounding, relative to the first."""
    singular = span_of(site.rows(update)).singular
    place = min(prefixes, len(singular)) - 1
    return float(singular[place] / singular[0]) if float(singular[0]) > 0 else 0.0


def _obstacles(
    model: nn.Module, update: Params, local: LocalTraining, num_examples: int
) -> list[Obstacle]:
    obstacles = list(optimizer_obstacles(local))
    drops = [name for name, it in model.named_modules() if drops_out(it)]
    if drops:
        obstacles.append(
            Obstacle(
                "dropout in training",
                f"{len(drops)} layers, first {drops[0]}",
                "what layers take is of a network that the server does not see",
            )
        )
    steps = local.epochs * -(-num_examples // local.batch_size)
    if local.upload == "weights" and steps > 1 and _moves_embeddings(model):
        obstacles.append(
            Obstacle(
                "several local steps",
                f"{steps} steps of lr {local.lr:g}",
                "embeddings move between steps, so that a span holds its vectors up to the rate",
            )
        )
    if local.upload == "weights":
        state = {name: it.detach() for name, it in model.named_parameters() if name in update}
        rounding = float(norm(state)) * torch.finfo(torch.float32).eps / 12**0.5
        part = rounding / max(local.lr * float(norm(update)), 1e-300)
        obstacles.append(
            Obstacle(
                "rounded weights",
                f"{part:.0e} of the update",
                "float32 weights hide the weak directions of a span: pursuit reads the strong ones",
            )
        )
    return obstacles


def _moves_embeddings(model: nn.Module) -> bool:
    tables = [it for it in model.modules() if isinstance(it, nn.Embedding)]
    return any(it.weight.requires_grad for it in tables)


def _verdict(prefixes: int, limit: int, singular: int, *, hindered: bool) -> str:
    if prefixes > limit:
        return f"{prefixes} prefixes are more than {limit}: texts are not exact by spans alone"
    if singular < prefixes:
        return f"{singular} of {prefixes} directions are above rounding: texts are not exact"
    if hindered:
        return "tokens and positions by pursuit; exact texts not predicted"
    return "whole texts are recoverable exactly"
