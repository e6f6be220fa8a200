"""What is audited: a client's own code, run many times on each of two neighbouring data sets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from clients.train import load, train
from defenses import DEFENSES, Defense, build, defend, links
from defenses.defense import Gradient
from fedsim.config import Part
from fedsim.core.catalog import find_entry, options_of
from fedsim.core.errors import ConfigError, FedsimError, RunStopped, one_line
from fedsim.core.params import subtract
from fedsim.core.rng import generator, global_stream
from fedsim.core.sgd import mean_gradient, shuffled
from fedsim.core.types import LocalTraining, Params

NOISE = ("noise", "std", "scale")  # options that say how much noise a defense adds
TOGETHER = 2**23  # entries of the uploads that are drawn at the same time

User = Callable[[nn.Module, Tensor, Tensor, Generator], Any]
"""(model, inputs, labels, generator) → the update, name → tensor or one flat tensor."""


class Batch(NamedTuple):
    """One client's data in a round.

    Attributes:
        inputs: Shape (n, *shape).
        labels: Shape (n,).
        there: Whether each record is; one that is not takes part in sampling and is then left out,
            so that nothing but its gradient depends on it. Shape (n,).
    """

    inputs: Tensor
    labels: Tensor
    there: Tensor


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Two neighbouring data sets of one client, and the weights it is sent.

    Attributes:
        model: Work space.
        states: The weights sent in each round.
        batches: The client's data in each round: without the canary (or with its other value), and
            with it.
    """

    model: nn.Module
    states: Sequence[Params]
    batches: tuple[Sequence[Batch], Sequence[Batch]]


def _in_a_sentence(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let what a client's code raises, which may be anybody's, be one sentence."""

    @wraps(method)
    def said(*given: Any) -> Any:
        try:
            return method(*given)
        except FedsimError:
            raise
        except Exception as error:
            name = type(error).__name__
            raise RunStopped(f"audited client: must run, got {name}: {one_line(error)}") from error

    return said


@dataclass(frozen=True, eq=False)
class Mechanism:
    """A client's training and defenses: neighbours in, uploads out.

    Attributes:
        local: The protocol.
        defense: The chain, noise and all.
        quiet: The same without noise, to know what to look for; None where noise cannot be turned
            off.
        user: Somebody's own function in place of both.
        takes_any: Whether a gradient inside training may be of any model and of no record at all.
        vectorised: Whether all links are fedsim's own, so that many uploads may be drawn at once.
    """

    local: LocalTraining
    defense: Defense
    quiet: Defense | None = None
    user: User | None = None
    takes_any: bool = True
    vectorised: bool = False

    def uploads(
        self, neighbours: Neighbours, having: int, count: int, *names: object
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield uploads of independent runs: the round's place, and several runs' uploads.

        Args:
            neighbours: The data sets.
            having: Which of them: 1 with the canary.
            count: How many runs.
            *names: Of the randomness; other names, other coins.

        Yields:
            Round and a block of uploads, shape (runs, d); all rounds of a block of runs before the
            next block.
        """
        size = sum(value.numel() for value in trained_of(neighbours.model).values())
        batches = neighbours.batches[having]
        if self._at_once(neighbours, batches):
            block = max(1, TOGETHER // size)
            for start in range(0, count, block):
                runs = min(block, count - start)
                for place, batch in enumerate(batches):
                    coins = generator(0, "audit", *names, start, place)
                    yield place, self._block(neighbours, place, batch, runs, coins)
            return
        for run in range(count):
            state: dict[str, Tensor] = {}
            for place, (sent, batch) in enumerate(zip(neighbours.states, batches, strict=True)):
                told = (*names, run, place)
                upload, state = self._once(neighbours.model, sent, batch, state, told)
                yield place, upload[None]

    def expected(self, neighbours: Neighbours, having: int) -> list[Tensor]:
        """Return each round's upload without noise, nor a draw of records.

        Undefended, where noise cannot be turned off.
        """
        state: dict[str, Tensor] = {}
        found = []
        size = len(neighbours.batches[having][0].labels)
        local = replace(self.local, batch_size=size)  # every record, where some would be drawn
        if self.user is not None:
            local = LocalTraining(1.0, size, 1, "gradient")
        quiet = Mechanism(local, self.quiet or Defense("none"), takes_any=self.takes_any)
        both = zip(neighbours.states, neighbours.batches[having], strict=True)
        for place, (sent, batch) in enumerate(both):
            upload, state = quiet._once(neighbours.model, sent, batch, state, ("quiet", place))
            found.append(upload)
        return found

    @property
    def _hook(self) -> Gradient:
        """The gradient of a batch; of no record, only a defense that takes it is asked."""
        own = self.defense.gradient
        if own is None:
            return _gradient
        if self.takes_any:
            return own
        return lambda *told: own(*told) if len(told[3]) else _gradient(*told)

    def _at_once(self, neighbours: Neighbours, batches: Sequence[Batch]) -> bool:
        """Return whether runs differ in nothing but the noise that a gradient is given."""
        model, first = neighbours.model, batches[0].inputs
        if not self.vectorised or self.user is not None or self.local.upload != "gradient":
            return False
        if any(self.local.batch_size < len(batch.labels) for batch in batches):
            return False
        if self.defense.init(trained_of(model)):
            return False
        load(model, neighbours.states[0])
        model.train()
        with global_stream(0, "audit", "at once"), torch.no_grad():
            return torch.equal(model(first), model(first))  # no dropout, or the like

    @_in_a_sentence
    def _block(
        self, neighbours: Neighbours, place: int, batch: Batch, runs: int, coins: Generator
    ) -> Tensor:
        """Return uploads that differ in their noise, which is drawn for all of them at once."""
        model = neighbours.model
        inputs, labels = batch.inputs[batch.there], batch.labels[batch.there]
        load(model, neighbours.states[place])
        model.train()
        trained = trained_of(model)
        told = (model, trained, inputs, labels, self.local, coins)
        hook = self._hook
        plain = _gradient(*told) if hook is _gradient else None

        def one(_: Tensor) -> Tensor:
            found = hook(*told) if plain is None else plain
            update = {n: v.detach() for n, v in zip(trained, found, strict=True)}
            return _flat(self.defense.apply(update, {}, coins)[0])

        try:
            drawn = torch.func.vmap(one, randomness="different")(torch.zeros(runs))
        except RuntimeError:  # a link after noise looks at its values: one run at a time
            drawn = torch.stack([one(torch.zeros(())) for _ in range(runs)])
        return drawn.expand(runs, -1)

    @_in_a_sentence
    def _once(
        self,
        model: nn.Module,
        sent: Params,
        batch: Batch,
        state: dict[str, Tensor],
        names: Sequence[object],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Do what a client does in one round, by its own code."""
        coins = generator(0, "audit", *names, "train")
        if self.user is not None:
            return self._told(self.user, model, sent, batch, coins), state
        defense, upload = self.defense, self.local.upload
        trained_names = list(trained_of(model))
        draw = defense.batches or (_all if upload == "gradient" else shuffled)

        def steps(count: int, local: LocalTraining, stream: Generator) -> list[Tensor]:
            return [one[batch.there[one]] for one in draw(count, local, stream)]

        with global_stream(0, "audit", *names, "dropout"):
            trained, _ = train(
                model, sent, batch.inputs, batch.labels, self.local, generator=coins,
                gradient=self._hook, batches=steps,
            )  # fmt: skip
        done = defend(
            defense, trained, sent, trained_names, state,
            generator=generator(0, "audit", *names, "defense"), upload=upload,
        )  # fmt: skip
        update = done.update
        if upload == "weights":  # as the server recovers it
            update = subtract({name: done.upload[name] for name in trained_names}, sent)
        return _flat(update), done.state

    def _told(
        self, user: User, model: nn.Module, sent: Params, batch: Batch, coins: Generator
    ) -> Tensor:
        load(model, sent)
        model.train()
        try:
            found = user(model, batch.inputs[batch.there], batch.labels[batch.there], coins)
            flat = _flat(found) if isinstance(found, Mapping) else torch.as_tensor(found).flatten()
        except Exception as error:  # a user's function may raise anything
            raise RunStopped(
                f"audit.mechanism: must return an update ({one_line(error)})"
            ) from None
        size = sum(value.numel() for value in trained_of(model).values())
        if flat.shape != (size,) or not bool(torch.isfinite(flat).all()):
            raise RunStopped(
                f"audit.mechanism: must return {size} finite numbers, one for each trained "
                f"parameter, got {tuple(flat.shape)}"
            )
        return flat.detach()


def mechanism(parts: Sequence[Part], local: LocalTraining) -> Mechanism:
    """Return a client with the defenses that a config lists.

    Raises:
        ConfigError: A name or an option is unknown.
    """
    own = all(part.name in DEFENSES for part in parts)
    # Those that promise an ε inside training clip whatever comes; others look into the model.
    any_ = all(link.gradient is None or link.promise.formal for link in links(parts))
    return Mechanism(local, build(parts), quieted(parts), takes_any=any_, vectorised=own)


def all_options(part: Part) -> dict[str, Any]:
    """Return a defense's options, defaults included."""
    make = find_entry("defense.name", part.name, DEFENSES, "defenses").make
    return {name: option.default for name, option in options_of(make).items()} | part.options


def quieted(parts: Sequence[Part]) -> Defense | None:
    """Return the chain with every noise at 0; None where a link does not allow it."""
    quiet = []
    for part in parts:
        off = {name: 0.0 for name in NOISE if name in all_options(part)}
        quiet.append(Part(name=part.name, **{**part.options, **off}))
    try:
        return build(quiet)
    except ConfigError:
        return None


@dataclass(frozen=True, eq=False)
class Statistic:
    """The score of a run: how far its uploads lie towards what is expected with the canary.

    Σ_r ⟨u_r − (c₁ + c₀)/2, c₁ − c₀⟩ / (Σ_r ‖c₁ − c₀‖²)^½, where c₀ and c₁ are the uploads without
    noise: the likelihood ratio under noise of equal variance everywhere, whose midpoint is 0.

    Attributes:
        middles, directions: Of each round, shape (d,).
        distances: ‖c₁ − c₀‖ of each round.
    """

    middles: Sequence[Tensor]
    directions: Sequence[Tensor]
    distances: NDArray[np.float64]

    def scores(self, uploads: Iterator[tuple[int, Tensor]], rounds: int) -> NDArray[np.float64]:
        """Return the score of every run."""
        length = float(np.sqrt((self.distances**2).sum()))
        sums, found = 0.0, []
        for place, block in uploads:
            apart = (block - self.middles[place]).double() @ self.directions[place].double()
            sums = sums + apart / length
            if place == rounds - 1:
                found.append(sums)
                sums = 0.0
        return torch.cat(found).numpy()


def statistic(mechanism: Mechanism, neighbours: Neighbours) -> Statistic:
    """Return the score that tells two neighbours apart best, from what the mechanism is told to be.

    Raises:
        RunStopped: They do not differ.
    """
    without, having = (mechanism.expected(neighbours, which) for which in (0, 1))
    directions = [one - other for one, other in zip(having, without, strict=True)]
    middles = [(one + other) / 2 for one, other in zip(having, without, strict=True)]
    distances = np.array([float(value.double().norm()) for value in directions])
    if not distances.any():
        raise RunStopped("canary: must move the update, got two neighbours with the same upload")
    return Statistic(middles, directions, distances)


def trained_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def _all(count: int, local: LocalTraining, stream: Generator) -> list[Tensor]:  # noqa: ARG001
    """Return one batch of all there is: that of an uploaded gradient."""
    return [torch.arange(count)]


def _gradient(
    model: nn.Module,
    parameters: Params,
    inputs: Tensor,
    labels: Tensor,
    local: LocalTraining,
    coins: Generator,
) -> Sequence[Tensor]:
    """Return the mean gradient; zeros of no record."""
    if not len(labels):
        return [torch.zeros_like(value) for value in parameters.values()]
    return mean_gradient(model, parameters, inputs, labels, local, coins)


def _flat(update: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in update.values()])
