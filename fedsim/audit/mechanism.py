"""What is audited: a client's own code, run many times on each of two neighbouring data sets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from clients.train import load, train
from defenses import DEFENSES, Defense, build, defend, links
from defenses.defense import Batches, Gradient
from fedsim.audit.batches import Batch, Neighbours, trained_of
from fedsim.audit.draws import mean_of_draws
from fedsim.audit.quiet import quieted
from fedsim.audit.user_code import User, flattened, in_a_sentence, user_upload
from fedsim.config import Part
from fedsim.core.params import subtract
from fedsim.core.rng import generator, global_stream
from fedsim.core.sgd import mean_gradient, shuffled
from fedsim.core.types import LocalTraining, Params

TOGETHER = 2**23  # entries of the uploads that are drawn at the same time

State = dict[str, Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class Mechanism:
    """A client's training and defenses: neighbours in, uploads out.

    Attributes:
        local: The protocol.
        defense: The chain, noise and all.
        quiet: The same without noise, to know what to look for; None if noise cannot be turned
            off.
        noised: The same up to its last link with noise: what noise is added to. `quiet` without
            such a link; None if noise cannot be turned off.
        user: Somebody's own function in place of both.
        takes_any: Whether a gradient inside training may be of any model and of no record at all.
        density: Whether the last thing a defense does is to add noise with a density.
        vectorised: Whether all links are fedsim's own, so that many uploads may be drawn at once.
    """

    local: LocalTraining
    defense: Defense
    quiet: Defense | None = None
    noised: Defense | None = None
    user: User | None = None
    takes_any: bool = True
    density: bool = False
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
        batches = neighbours.batches[having]
        if self.at_once(neighbours, batches):
            yield from self._blocks(neighbours, batches, count, *names)
            return
        for run in range(count):
            for place, upload in enumerate(self._run(neighbours, having, *names, run)):
                yield place, upload[None]

    def expected(self, neighbours: Neighbours, having: int) -> list[Tensor]:
        """Return each round's upload without noise, nor a draw of records.

        A mean over draws, where links are random. Undefended, if noise cannot be turned off.
        """
        quiet = self.without_noise(self.quiet, neighbours)
        return mean_of_draws(lambda draw: list(quiet._run(neighbours, having, "quiet", draw)))

    def before_noise(self, neighbours: Neighbours, having: int) -> list[Tensor]:
        """Return what noise is added to in each round, as `expected` returns uploads."""
        quiet = self.without_noise(self.noised, neighbours)
        return mean_of_draws(lambda draw: list(quiet._run(neighbours, having, "quiet", draw)))

    def without_noise(self, defense: Defense | None, neighbours: Neighbours) -> "Mechanism":
        """Return the client with `quiet` or `noised`, that takes every record in one batch."""
        size = len(neighbours.batches[0][0].labels)
        local = replace(self.local, batch_size=size)
        if self.user is not None:
            local = LocalTraining(self.local.lr, size, 1, "gradient")
        none = Defense(name="none")
        return Mechanism(local=local, defense=defense or none, takes_any=self.takes_any)

    def _run(self, neighbours: Neighbours, having: int, *names: object) -> Iterator[Tensor]:
        """Yield the uploads of all rounds of one run."""
        state: State = {}
        rounds = zip(neighbours.states, neighbours.batches[having], strict=True)
        for place, (sent, batch) in enumerate(rounds):
            upload, state = self.once(neighbours.model, sent, batch, state, (*names, place))
            yield upload

    @property
    def _hook(self) -> Gradient:
        """The gradient of a batch; only a defense that takes it is given a batch of no record."""
        hook = self.defense.gradient
        if hook is None:
            return _gradient
        if self.takes_any:
            return hook
        return lambda *args: hook(*args) if len(args[3]) else _gradient(*args)

    def at_once(self, neighbours: Neighbours, batches: Sequence[Batch]) -> bool:
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

    def _blocks(
        self, neighbours: Neighbours, batches: Sequence[Batch], count: int, *names: object
    ) -> Iterator[tuple[int, Tensor]]:
        size = sum(value.numel() for value in trained_of(neighbours.model).values())
        block = max(1, TOGETHER // size)
        for start in range(0, count, block):
            runs = min(block, count - start)
            for place, batch in enumerate(batches):
                coins = generator(0, "audit", *names, start, place)
                yield place, self._block(neighbours, place, batch, runs, coins)

    @in_a_sentence
    def _block(
        self, neighbours: Neighbours, place: int, batch: Batch, runs: int, coins: Generator
    ) -> Tensor:
        """Return uploads that differ in their noise, which is drawn for all of them at once."""
        model = neighbours.model
        inputs, labels = batch.inputs[batch.present], batch.labels[batch.present]
        load(model, neighbours.states[place])
        model.train()
        trained, hook = trained_of(model), self._hook
        args = (model, trained, inputs, labels, self.local, coins)
        plain = _gradient(*args) if hook is _gradient else None

        def upload(_: Tensor) -> Tensor:
            gradient = hook(*args) if plain is None else plain
            update = {n: v.detach() for n, v in zip(trained, gradient, strict=True)}
            return flattened(self.defense.apply(update, {}, coins)[0])

        try:
            uploads = torch.func.vmap(upload, randomness="different")(torch.zeros(runs))
        except RuntimeError:  # a link after noise looks at its values: one run at a time
            uploads = torch.stack([upload(torch.zeros(())) for _ in range(runs)])
        return uploads.expand(runs, -1)

    @in_a_sentence
    def once(
        self,
        model: nn.Module,
        sent: Params,
        batch: Batch,
        state: State,
        names: Sequence[object],
    ) -> tuple[Tensor, State]:
        """Do what a client does in one round, by its own code."""
        coins = generator(0, "audit", *names, "train")
        if self.user is not None:
            return user_upload(self.user, model, sent, batch, coins), state
        upload, trained_names = self.local.upload, list(trained_of(model))
        with global_stream(0, "audit", *names, "dropout"):
            trained, _ = train(
                model,
                sent,
                batch.inputs,
                batch.labels,
                self.local,
                generator=coins,
                gradient=self._hook,
                batches=self._steps(batch),
            )
        stream = generator(0, "audit", *names, "defense")
        defended = defend(
            self.defense, trained, sent, trained_names, state, generator=stream, upload=upload
        )
        update = defended.update
        if upload == "weights":  # as the server recovers it
            update = subtract({name: defended.upload[name] for name in trained_names}, sent)
        return flattened(update), defended.state

    def _steps(self, batch: Batch) -> Batches:
        """Return the draw of batches, from which absent records are taken out."""
        draw = self.defense.batches or (_all if self.local.upload == "gradient" else shuffled)

        def steps(count: int, local: LocalTraining, stream: Generator) -> list[Tensor]:
            return [rows[batch.present[rows]] for rows in draw(count, local, stream)]

        return steps


def mechanism(parts: Sequence[Part], local: LocalTraining) -> Mechanism:
    """Return a client with the defenses that a config lists.

    Raises:
        ConfigError: A name or an option is unknown.
    """
    quiet, until = quieted(parts), _until_noise(parts)
    return Mechanism(
        local=local,
        defense=build(parts),
        quiet=quiet,
        noised=quiet if len(until) == len(parts) else quieted(until),
        # Those that promise an ε inside training clip whatever comes; others look into the model.
        takes_any=all(link.gradient is None or link.promise.formal for link in links(parts)),
        density=ends_in_noise(parts),
        vectorised=all(part.name in DEFENSES for part in parts),
    )


def ends_in_noise(parts: Sequence[Part]) -> bool:
    """Return whether the last link adds noise that has a density, by what it states."""
    return bool(parts) and _adds_noise(links(parts)[-1])


def _until_noise(parts: Sequence[Part]) -> Sequence[Part]:
    """Return the chain up to its last link that adds noise; all of it without one."""
    noisy = [place for place, link in enumerate(links(parts)) if _adds_noise(link)]
    return parts[: noisy[-1] + 1] if noisy else parts


def _adds_noise(link: Defense) -> bool:
    stated = (link.promise.mechanism or "").lower()
    continuous = ("gaussian" in stated or "laplace" in stated) and "discrete" not in stated
    return link.noise > 0 or (link.promise.formal and continuous)


def _all(count: int, local: LocalTraining, stream: Generator) -> list[Tensor]:  # noqa: ARG001
    """Return one batch of all records: that of an uploaded gradient."""
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
