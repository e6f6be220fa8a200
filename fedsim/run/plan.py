"""The plan of a run: everything built and checked before anything is written, and its attacks."""

import importlib.metadata
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

import strategies
from adversary.attack import Attack
from adversary.games.game import Rules
from adversary.grading import leakage
from adversary.grading.families import FAMILIES
from adversary.grading.truth import joined, read_coins
from adversary.secrets import SECRETS, secret_of
from clients import carried
from defenses import Defense
from defenses import build as build_defenses
from fedsim import data, explain, models
from fedsim.config import Config
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.files import TensorFile
from fedsim.core.params import mismatch
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Candidates, Leak, LocalTraining, Measure, Truth
from fedsim.run import overlap
from fedsim.run.audit_claims import check_audit
from fedsim.run.originals import with_inputs
from fedsim.run.run_folder import RunFolder
from fedsim.run.secret_columns import encoding, marks
from fedsim.run.truth import truth_of
from strategies.masking import Protocol
from strategies.tape import recorded_clients, recorded_rounds, views


@dataclass(frozen=True)
class Plan:
    """Everything a run needs, built and checked before anything is written.

    Attributes:
        candidates: Rows of the training set that the adversary asks about, −1 for a test row.
        marks: Family of secrets → a mark per training row.
    """

    config: Config
    federated: data.Federated
    model: nn.Module
    strategy: strategies.Strategy
    defense: Defense
    auxiliary: Auxiliary
    attacks: Sequence[Attack]
    candidates: Tensor | None = None
    marks: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def local(self) -> LocalTraining:
        """How clients train, as the strategy will tell them."""
        return self.config.local_training(float(getattr(self.strategy, "proximal_mu", 0.0)))


def with_versions(config: Config) -> Config:
    """Return the config with the versions of what runs it."""
    names = ("fedsim", "flwr", "torch", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names}
    return config.model_copy(update={"versions": {"python": platform.python_version(), **versions}})


def prepare(config: Config) -> Plan:
    """Build data, model, strategy, defenses and attacks.

    Raises:
        ConfigError: A name, an option or the data are not what they must be.
    """
    federated = data.federate(config)
    check_sums(config, max(len(rows) for rows in federated.clients))
    overlap.check(federated, config)
    dataset = federated.dataset
    model = models.build(config, dataset.input_shape, dataset.num_classes)
    whole = [name for name, value in model.state_dict().items() if not value.is_floating_point()]
    if config.federation.secure_aggregation and whole:
        raise ConfigError(
            "federation.secure_aggregation: must go with a model without counters, such as batch "
            f"normalisation's, which no clip bounds, got {whole[0]}"
        )
    buffers = set(model.state_dict()) - set(models.trainable(model))
    defense = build_defenses(config.defense)
    sizes = [len(rows) for rows in federated.clients]
    try:
        defense.check(model, config.local_training(), sizes)
    except ValueError as error:
        raise ConfigError(f"defense.{error}") from None
    check_audit(config, defense, model, sizes)
    held_out = federated.auxiliary
    rows, candidates = None, None
    if config.auxiliary.candidates and "candidates" in leakage.needs(config.attack):
        rows, candidates = draw_candidates(config, federated)
    asked = {attack.family for attack in leakage.listed(config.attack)} & {"attribute", *SECRETS}
    marked = {family: marks(config.game, dataset, users=family == "user") for family in asked}
    game = config.game
    auxiliary = Auxiliary(
        model=model,
        num_classes=dataset.num_classes,
        inputs=dataset.inputs[held_out] if len(held_out) else None,
        labels=dataset.labels[held_out] if len(held_out) else None,
        defense=defense if config.defense and config.auxiliary.knows_defense else None,
        input_shape=dataset.input_shape,
        candidates=candidates,
        marks={family: of[held_out] for family, of in marked.items()} if marked else None,
        encoding=encoding(game, dataset) if "attribute" in marked else None,
        rules=Rules(1, game.shares, game.count, game.own, game.users) if marked else None,
    )
    attacks = leakage.build(config.attack, auxiliary)
    for attack in attacks:
        if config.federation.secure_aggregation and attack.clients is not None:
            raise ConfigError(
                f"attack.{attack.name}.clients: must be left out with secure aggregation, which "
                f"shows no client, got {list(attack.clients)}"
            )
        if unknown := {*(attack.clients or ())} - set(map(str, range(len(sizes)))):
            raise ConfigError(
                f"attack.{attack.name}.clients: must be client numbers below {len(sizes)}, "
                f"got '{min(unknown)}'"
            )
    strategy = strategies.build(config, buffers)
    return Plan(config, federated, model, strategy, defense, auxiliary, attacks, rows, marked)


def check_sums(config: Config, largest: int) -> None:
    """Refuse secure aggregation whose numbers cannot hold the clients' weights.

    Args:
        config: Of the run.
        largest: Number of examples of the client that has most.

    Raises:
        ConfigError: They cannot.
    """
    asked, count = config.federation.secure_aggregation, config.federation.sampled
    if asked is None:
        return
    if largest > asked.max_examples:
        raise ConfigError(
            "federation.secure_aggregation.max_examples: must be at least the largest client's "
            f"{largest}, got {asked.max_examples}"
        )
    Protocol(round=0, members=tuple(map(str, range(count))), **asked.model_dump())


def draw_candidates(config: Config, federated: data.Federated) -> tuple[Tensor, Candidates]:
    """Return the rows and records that membership is asked of: clients' and test rows, half each.

    Fewer where there are not as many rows.
    """
    dataset, count = federated.dataset, config.auxiliary.candidates
    private, stream = torch.cat(federated.clients), generator(config.seed, "candidates")
    theirs = private[torch.randperm(len(private), generator=stream)[: count // 2]]
    order = torch.randperm(len(dataset.test_labels), generator=stream)
    tests = order[: count - count // 2]
    return torch.cat([theirs, torch.full_like(tests, -1)]), Candidates(
        torch.cat([dataset.inputs[theirs], dataset.test_inputs[tests]]),
        torch.cat([dataset.labels[theirs], dataset.test_labels[tests]]),
    )


def attack_round(
    plan: Plan, folder: RunFolder, round_: int
) -> tuple[list[Leak], list[Measure], dict[str, Tensor]]:
    """Attack every client recorded in a round, and grade the guesses where there is truth.

    Only attacks that are due, on clients that they are for; there are no rows of others, nor of
    clients that upload canaries for an audit, in which there is no data to find.

    Returns:
        Ledger rows, failures of attacks, and the answers by `attack/client`.

    Raises:
        BadRecording: The round's files are damaged or foreign.
    """
    leaks: list[Leak] = []
    measures: list[Measure] = []
    guesses: dict[str, Tensor] = {}
    attacks = [attack for attack in plan.attacks if attack.is_due(round_)]
    truths = truths_of(plan, folder, round_) if attacks else {}
    so_far = truths
    if any(attack.over_rounds for attack in attacks):
        so_far = truths_of(plan, folder, round_, so_far=True)
    answered: dict[str, list[tuple[leakage.Answer, Truth | None]]] = {}
    for place, view in enumerate(views(folder.path, round_, plan.local) if attacks else ()):
        if place == 0:
            if reason := mismatch(view.latest.sent, plan.model.state_dict()):
                raise BadRecording(
                    f"{folder.path}: must be of the config's model, round {round_}: {reason}"
                )
            measures += leakage.validity(view, attacks, plan.auxiliary)
            if any(attack.family == "reconstruction" for attack in attacks):
                shape = plan.federated.dataset.input_shape
                measures += explain.hindered(plan.model, view.latest, shape)
        client = view.latest.update.client
        if carries(plan, folder, client, [round_]) == carried.UPDATE:
            continue
        for answer in leakage.attack_view(view, attacks, plan.auxiliary, plan.config.seed):
            truth = (so_far if answer.attack.over_rounds else truths)[client]
            if pictures := answer.attack.family == "reconstruction":
                truth = with_inputs(
                    truth, plan.federated, seed=plan.config.seed, round_=round_, client=client
                )
            rows, failures = leakage.grade(answer, truth)
            leaks += rows
            measures += failures
            if FAMILIES[answer.attack.family].pool is not None:
                answered.setdefault(answer.attack.name, []).append((answer, truth))
            if answer.guess is not None:
                kept = answer.guess.float() if pictures else answer.guess
                guesses[f"{answer.attack.name}/{client}"] = kept
    for both in answered.values():
        leaks += leakage.pool(*zip(*both, strict=True))
    return leaks, measures, guesses


def carries(
    plan: Plan, folder: RunFolder, client: str, rounds: Iterable[int]
) -> carried.Relation | None:
    """Return what canaries a client carried in any of some rounds; None where it told no coins.

    Between real machines one may not consent, and trains as always.
    """
    asked = carried.relation_of(plan.config.audit, plan.defense, client)
    if asked is None:
        return None
    told = (read_coins(folder.truth, number, client) for number in rounds)
    return asked if any(coins is not None for coins in told) else None


def truths_of(
    plan: Plan, folder: RunFolder, round_: int, *, so_far: bool = False
) -> dict[str, Truth | None]:
    """Return what every client recorded in a round used, with the answer for every candidate.

    In that round, or in all recorded rounds until then; nothing of a client that keeps its truth.
    """
    clients, rounds = recorded_clients(folder.path, round_), [round_]
    if so_far:
        rounds = [number for number in recorded_rounds(folder.path) if number <= round_]
    read: dict[str, Truth | None] = {}
    for client in clients:
        used = [truth_of(folder, number, client) for number in rounds]
        there = [truth for truth in used if truth is not None]
        read[client] = None if used[-1] is None else joined(there)
    found = {c: with_secrets(plan, with_members(plan, truth)) for c, truth in read.items()}
    members = [t.members for t in found.values() if t is not None and t.members is not None]
    users = torch.stack(members).sum(dim=0) if members else None
    return {c: None if t is None else replace(t, users=users) for c, t in found.items()}


def with_members(plan: Plan, truth: Truth | None) -> Truth | None:
    """Return a client's truth with the answer for every candidate, where there are any."""
    asked = plan.auxiliary.candidates
    if truth is None or plan.candidates is None or asked is None or not len(truth.indices):
        return truth
    members = torch.isin(plan.candidates, truth.indices)
    return replace(truth, members=members, classes=asked.labels)


def with_secrets(plan: Plan, truth: Truth | None) -> Truth | None:
    """Return a client's truth with the class of each secret that is asked for."""
    if truth is None or not len(truth.indices):
        return truth
    told = {family: secret_of(family, of[truth.indices], plan.auxiliary.rules)
            for family, of in plan.marks.items() if family in SECRETS}  # fmt: skip
    if "attribute" in plan.marks and plan.candidates is not None:
        theirs = plan.candidates >= 0
        having = theirs & (plan.marks["attribute"][plan.candidates.clamp(min=0)] == 1)
        truth = replace(truth, attributes=having)
    return replace(truth, secrets={family: s for family, s in told.items() if s is not None})


def price(
    plan: Plan, folder: RunFolder, round_: int, rounds_of: Mapping[str, int]
) -> list[Measure]:
    """Return what the clients' defenses cost and promise after a round.

    How far each upload is from the undefended one stands in the client's truth, where there is
    any; ε follows from the protocol, and is worked out in the rounds that are
    evaluated, and in the last.

    Args:
        plan: Of the run.
        folder: Where the run is kept.
        round_: The round.
        rounds_of: Client → rounds it took part in so far, this one included; every client that
            took part in any.
    """
    if not plan.config.defense:
        return []
    measures = []
    for path in sorted((folder.truth / f"{round_:04d}").glob("*.safetensors")):
        told = TensorFile(path).metadata
        measures += [
            Measure(round_, "defense", name, float(told[name]), path.stem)
            for name in ("update_cosine", "update_snr_db", "upload_bytes")
            if name in told
        ]
    promise = plan.defense.promise
    federation = plan.config.federation
    if not federation.is_evaluated(round_) and round_ != federation.rounds:
        return measures
    if promise.epsilon is not None and models.remembering_layer(plan.model) is None:
        for client, rounds in rounds_of.items():
            size = len(plan.federated.clients[int(client)])
            if carries(plan, folder, client, recorded_rounds(folder.path)):
                size += carried.num_records(plan.config.audit, plan.defense, client)
            epsilon = promise.epsilon(plan.local, size, rounds)
            measures.append(Measure(round_, "defense", "epsilon", epsilon, client))
    return measures
