"""What an audit is made of: a mechanism, its claim, two neighbouring data sets, and a canary."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from adversary.auditing import canaries as crafted
from adversary.auditing.canaries import Canary, stand_in
from adversary.auditing.rates import check_trials
from adversary.auditing.sensitivity import Question
from adversary.games.records import Encoding, Pool
from clients.train import load
from defenses import links
from defenses.promise import Promise, Relation, gaussian_epsilon
from fedsim import data, models
from fedsim.audit.mechanism import (
    Batch,
    Mechanism,
    Neighbours,
    all_options,
    mechanism,
    trained_of,
)
from fedsim.config import Config, Part
from fedsim.core.catalog import find
from fedsim.core.errors import ConfigError, nearest
from fedsim.core.files import TensorFile
from fedsim.core.params import random_direction
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining, Params
from fedsim.run.training import trained_states
from strategies.tape import recorded_rounds

LONG = 16.0  # times the clip: a gradient that a mechanism must cut
FAR = 1000.0  # length of a gradient for a mechanism whose clip is not told
RECORDS = ("average", "natural", "in-domain", "free", "canife")
CHOSEN = ("gradient", "opposite")  # canaries whose gradient is chosen itself


@dataclass(frozen=True)
class Claim:
    """What a mechanism claims of the audited neighbours, for all rounds.

    Attributes:
        epsilon: At `delta`; None where nothing is claimed.
        mu: Of one round, where the claim is that of a Gaussian mechanism.
        beside: What it claims of other neighbours, in words, which is no measure of this audit.
    """

    epsilon: float | None
    delta: float
    relation: Relation | None = None
    mu: float | None = None
    beside: str = ""


@dataclass(frozen=True, eq=False)
class Setup:
    """What one setting is audited with."""

    config: Config
    dataset: data.Dataset
    pool: Pool
    others: Pool
    model: nn.Module
    states: Sequence[Params]
    mechanism: Mechanism
    clip: float
    relation: Relation
    encoding: Encoding | None
    claim: Claim

    @property
    def question(self) -> Question:
        """What is asked of a record."""
        smoothing = self.mechanism.local.label_smoothing
        return Question(self.model, self.states[0], self.clip, self.encoding, smoothing)


def prepare(config: Config, run: Path | None = None) -> Setup:
    """Load the data, get a model, and find out what is claimed of whom.

    Raises:
        ConfigError: A name, an option or the data are not what they must be.
        BadRecording: The recording is damaged.
    """
    asked = config.audit
    federated = _data(config)
    dataset, mine, known = federated.dataset, federated.clients[0], federated.auxiliary
    model = models.build(config.model, dataset.input_shape, dataset.num_classes, seed=config.seed)
    local = config.local_training()
    if local.upload == "gradient":
        local = replace(local, batch_size=asked.batch_size)
    user = None if asked.mechanism is None else find("audit.mechanism", asked.mechanism, {})
    if user is not None and config.defense:
        raise ConfigError("audit.mechanism: must stand in place of defenses, got both")
    made = mechanism(config.defense, local)
    made = made if user is None else replace(made, user=user, vectorised=False)
    _check_whole(config, model, made)
    try:
        made.defense.check(model, local, [asked.batch_size])
        confidence, delta = asked.confidence, asked.delta or made.defense.promise.delta or 1e-5
        if asked.threshold == "split":
            check_trials(asked.trials // 2, delta=delta, confidence=confidence)
        check_trials(asked.trials, delta=delta, confidence=confidence)
    except ValueError as error:
        section = "audit" if str(error).startswith("trials") else "defense"
        raise ConfigError(f"{section}.{error}") from None
    zeros = torch.zeros(len(dataset.labels), dtype=torch.int64)
    stream = generator(config.seed, "audit candidates")
    mine = mine[torch.randperm(len(mine), generator=stream)[: asked.candidates]]
    pool, others = (
        Pool(dataset.inputs[rows], dataset.labels[rows], zeros[rows]) for rows in (mine, known)
    )
    if asked.batch_size > len(others.labels):
        raise ConfigError(
            f"audit.batch_size: must be at most the {len(others.labels)} auxiliary records, got "
            f"{asked.batch_size}"
        )
    encoding = None if asked.column is None else _encoding(config, dataset)
    relation = _relation(made.defense.promise, encoding)
    if run is None:
        states = _trained(config, model, federated)
    else:
        states = [dict(TensorFile(path)) for path in sent_weights(run, asked.rounds)]
    clip = _clip(config.defense, local, asked.batch_size)
    claim = _claim(config, made, relation)
    for name in canary_names(config, dataset, made):
        if name not in (*RECORDS, *CHOSEN):
            hint = nearest(name, (*RECORDS, *CHOSEN))
            raise ConfigError(f"audit.canary: must be a known name, got '{name}'; {hint}")
        if name == "opposite" and asked.rounds < 2:
            raise ConfigError("audit.canary: 'opposite' must have rounds ≥ 2, got rounds = 1")
        if name in CHOSEN and not made.takes_any:
            raise ConfigError(
                f"audit.canary: '{name}' must go with defenses that take any gradient, "
                f"got {made.defense.name}"
            )
        if name == "canife" and encoding is not None:
            raise ConfigError("audit.canary: 'canife' must ask about a record, got audit.column")
    return Setup(
        config, dataset, pool, others, model, states, made, clip, relation, encoding, claim
    )  # fmt: skip


def _check_whole(config: Config, model: nn.Module, made: Mechanism) -> None:
    """Refuse what no audit of these neighbours can be about.

    Raises:
        ConfigError: The model's buffers follow the data, or a batch is larger than all there is.
    """
    if found := models.remembering_layer(model):
        raise ConfigError(
            f"model: must have no running statistics, which are uploaded as they are, got {found}"
        )
    asked, local = config.audit, made.local
    if made.defense.batches is not None and local.batch_size > asked.batch_size:
        raise ConfigError(
            f"audit.batch_size: must be at least local.batch_size = {local.batch_size}: it is all "
            f"of the client's records, got {asked.batch_size}"
        )
    if asked.claim is not None and asked.mechanism is None:
        raise ConfigError(
            "audit.claim: must stand beside audit.mechanism; defenses state their own, "
            f"got {asked.claim:g}"
        )


def _data(config: Config) -> data.Federated:
    one = config.federation.model_copy(update={"clients": 1})
    known = config.auxiliary.model_copy(update={"share": config.auxiliary.share or 0.1})
    spread = config.data.model_copy(update={"partition": "iid", "users": None})
    changes = {"federation": one, "auxiliary": known, "data": spread}
    return data.federate(config.model_copy(update=changes))


def _trained(config: Config, model: nn.Module, federated: data.Federated) -> Sequence[Params]:
    dataset, rows = federated.dataset, federated.clients[0]
    pool = Pool(dataset.inputs[rows], dataset.labels[rows], torch.zeros_like(rows))
    game = config.game.model_copy(
        update={"steps": config.audit.steps, "rounds": (config.audit.rounds,)}
    )
    return trained_states(config.model_copy(update={"game": game}), model, pool)


def sent_weights(run: Path, rounds: int) -> list[Path]:
    """Return the files of the weights that the last recorded rounds were sent.

    Raises:
        ConfigError: There are not as many rounds.
    """
    there = recorded_rounds(run)
    if len(there) < rounds:
        raise ConfigError(
            f"audit.rounds: must be at most the {len(there)} rounds of {run}, got {rounds}"
        )
    return [run / "rounds" / f"{number:04d}" / "sent.safetensors" for number in there[-rounds:]]


def _encoding(config: Config, dataset: data.Dataset) -> Encoding:
    asked, name = config.audit, str(config.audit.column)
    if name not in dataset.attributes:
        hint = nearest(name, dataset.attributes) if dataset.attributes else "there is none"
        raise ConfigError(f"audit.column: must be a categorical input, got '{name}'; {hint}")
    one = dataset.attributes[name]
    values = asked.values or one.values[:2]
    for value in values:
        if value not in one.values:
            hint = nearest(value, one.values)
            raise ConfigError(f"audit.values: must be values of {name}, got '{value}'; {hint}")
    absent, present = (one.codes[one.values.index(value)] for value in values)
    return Encoding(torch.tensor(one.columns), absent, present)


def _relation(promise: Promise, encoding: Encoding | None) -> Relation:
    if encoding is not None:
        return Relation.REPLACE_ATTRIBUTE
    # A record that is not there keeps its place in the sampling: it is zeroed as well as removed.
    for relation in (Relation.ZERO_EXAMPLE, Relation.REPLACE_CLIENT):
        if promise.relation is relation:
            return relation
    return Relation.ADD_OR_REMOVE_EXAMPLE


def _clip(parts: Sequence[Part], local: LocalTraining, batch: int) -> float:
    """Return what one record's gradient is clipped to, as the config says; infinite for nothing."""
    alone = local.upload == "gradient" and batch == 1
    for part, link in zip(parts, links(parts), strict=True):
        options = all_options(part)
        if "clip" in options:
            return float(options["clip"])
        bound = link.bound(math.inf)
        if alone and math.isfinite(bound):
            return bound
    return math.inf


def _claim(config: Config, made: Mechanism, relation: Relation) -> Claim:
    asked = config.audit
    if made.user is not None:
        return Claim(asked.claim, asked.delta or 1e-5, relation)
    promise = made.defense.promise.about(relation)
    beside = ""
    own, told = made.defense.promise, (made.local, asked.batch_size, asked.rounds)
    if own.epsilon is not None and own is not promise:
        beside = f"{own.relation}: ε = {own.epsilon(*told):.3g}"
    if promise is None or promise.epsilon is None:
        return Claim(None, asked.delta or 1e-5, beside=beside)
    delta = asked.delta or promise.delta
    mu = promise.mu(*told) if promise.mu else None
    if mu is None and delta != promise.delta:
        raise ConfigError(
            f"audit.delta: must be the defense's δ = {promise.delta:g}, at which alone its ε is "
            f"known, got {delta:g}"
        )
    epsilon = promise.epsilon(*told) if mu is None else gaussian_epsilon(mu, delta)
    once = promise.mu(*told[:2], 1) if promise.mu else None
    return Claim(epsilon, delta, promise.relation, once, beside)


def canary_names(config: Config, dataset: data.Dataset, made: Mechanism) -> Sequence[str]:
    """Return the canaries that are asked for; without any, those that go with the question."""
    asked = config.audit
    if asked.canary:
        return asked.canary
    domain = ("in-domain",) if dataset.attributes and dataset.inputs.ndim == 2 else ()
    found = (*domain, "free") if asked.column else ("canife",)
    chosen = ("gradient", *(("opposite",) if asked.rounds > 1 else ()))
    return ("average", "natural", *found, *(chosen if made.takes_any else ()))


def craft(setup: Setup, name: str) -> Canary:
    """Return the record that a canary's name stands for.

    Raises:
        ConfigError: There is none in these data.
    """
    question, pool, classes = setup.question, setup.pool, setup.dataset.num_classes
    setup.model.eval()  # what training draws at random is no part of a record
    try:
        if name == "natural":
            return crafted.natural(question, pool.inputs, pool.labels)
        if name == "average":
            return crafted.average(question, pool.inputs, pool.labels)
        if name == "in-domain":
            columns = crafted.coordinates_of(setup.dataset, setup.config.audit.column)
            return crafted.in_domain(question, pool.inputs, pool.labels, columns, classes)
        if name == "free":
            return crafted.free(question, pool.inputs, pool.labels, classes)
        stream = generator(setup.config.seed, "audit", "canife")
        return crafted.canife(question, pool.inputs, pool.labels, classes, stream)
    except ValueError as error:
        raise ConfigError(f"audit.{error}") from None


def neighbours(setup: Setup, name: str, canary: Canary | None) -> Neighbours:
    """Return the two data sets that a canary makes: itself first, then the other records."""
    asked = setup.config.audit
    size, shape = asked.batch_size, setup.dataset.input_shape
    there = torch.ones(size, dtype=torch.bool)
    gone = there.clone()
    gone[0] = False
    if canary is None:
        return _chosen(setup, name, there, gone)
    stream = generator(setup.config.seed, "audit", "others")
    rows = torch.randperm(len(setup.others.labels), generator=stream)[: size - 1]
    labels = torch.cat([torch.tensor([canary.label]), setup.others.labels[rows]])

    def batch(first: Tensor, which: Tensor) -> Batch:
        inputs = torch.cat([first.view(1, *shape), setup.others.inputs[rows]])
        return Batch(inputs, labels, which)

    if setup.encoding is None:
        both = batch(canary.inputs, gone), batch(canary.inputs, there)
    else:
        both = tuple(
            batch(setup.encoding.put(canary.inputs[None], torch.tensor([value])), there)
            for value in (0, 1)
        )
    return Neighbours(
        setup.model, setup.states, ([both[0]] * asked.rounds, [both[1]] * asked.rounds)
    )


def _chosen(setup: Setup, name: str, there: Tensor, gone: Tensor) -> Neighbours:
    """Return neighbours whose only gradient is the auditor's own, the others' being zero.

    `opposite` turns its sign round in every second round: what is the same in two rounds, such as
    noise that is used again, then cancels.
    """
    asked = setup.config.audit
    load(setup.model, setup.states[0])
    like = {n: v.detach() for n, v in trained_of(setup.model).items()}
    direction = random_direction(like, generator(setup.config.seed, "audit", "direction"))
    model = stand_in(setup.model, direction, _strength(setup))
    inputs = torch.zeros(asked.batch_size, *setup.dataset.input_shape)
    inputs.view(asked.batch_size, -1)[0, 0] = -1.0
    labels = torch.zeros(asked.batch_size, dtype=torch.int64)
    without, having = [], []
    for place in range(asked.rounds):
        sign = -1.0 if name == "opposite" and place % 2 else 1.0
        having.append(Batch(sign * inputs, labels, there))
        replaced = setup.relation.replaces
        opposite = Batch(-sign * inputs, labels, there)
        without.append(opposite if replaced else Batch(sign * inputs, labels, gone))
    return Neighbours(model, [setup.states[0]] * asked.rounds, (without, having))


def opposites(setup: Setup) -> Neighbours | None:
    """Return neighbours whose gradients are opposite and longer than any that is let through.

    None where nothing is claimed, the defenses do not take any gradient, or noise cannot be turned
    off.
    """
    made = setup.mechanism
    if (
        setup.claim.epsilon is None
        or made.quiet is None
        or made.user is not None
        or not made.takes_any
    ):
        return None
    there = torch.ones(setup.config.audit.batch_size, dtype=torch.bool)
    return _chosen(replace(setup, relation=Relation.REPLACE_EXAMPLE), "gradient", there, there)


def _strength(setup: Setup) -> float:
    """Return how long the chosen gradient is: well beyond what must be clipped."""
    if setup.mechanism.user is not None:
        return FAR
    local, bounds = setup.mechanism.local, [setup.clip]
    for link in links(setup.config.defense):
        bounds.append(link.bound(math.inf) / (local.lr if local.upload == "weights" else 1.0))
    finite = [bound for bound in bounds if math.isfinite(bound)]
    return LONG * setup.config.audit.batch_size * max(finite, default=1 / LONG)
