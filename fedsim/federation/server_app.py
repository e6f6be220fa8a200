"""The Flower ServerApp: the round loop. The same in every engine."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from torch import Tensor
from torch.nn import functional

import strategies
from clients.train import load
from fedsim import config as configs
from fedsim.core.errors import ConfigError, FedsimError, RunStopped, is_disk_full, one_line
from fedsim.core.params import cast_like
from fedsim.core.types import Leak, Measure, Params
from fedsim.core.wire import FEDSIM, from_record, to_record
from fedsim.federation.attack_pool import Collect, attackers
from fedsim.report.run import write_report
from fedsim.run.prepare import Plan, prepare, with_versions
from fedsim.run.price import price
from fedsim.run.run_folder import REPORT, Checkpoint, RunFolder
from strategies import OrderedGrid, Recording, Tape, state

app = ServerApp()


@dataclass(frozen=True)
class Round:
    """What there is to tell of a finished round; means are over its clients.

    Attributes:
        leakage: Attack → (mean value, mean blind value) of its family's first metric.
        failures: Client and reason.
    """

    number: int
    accuracy: float | None
    leakage: Mapping[str, tuple[float, float]]
    failures: Sequence[tuple[str, str]]
    seconds: float


def federate(
    plan: Plan,
    grid: Grid,
    folder: RunFolder,
    *,
    client_of: Callable[[int], str],
    client_states: Callable[[], Mapping[str, Params]] = dict,
    start: Checkpoint | None = None,
    on_round: Callable[[Round], None] = lambda _: None,
) -> None:
    """Run all rounds after `start`: train, record, aggregate, attack, evaluate, commit.

    Args:
        plan: What `prepare` built.
        grid: Reaches the clients.
        folder: Where the run is kept.
        client_of: Node id → client.
        client_states: What each client remembers, where the engine can tell; for resuming.
        start: The last finished round; None for a new run.
        on_round: Called after every commit, with round 0 for the untrained model.

    Raises:
        RunStopped: No round can be finished any more; the finished ones stay.
    """
    record = plan.config.record
    tape = Tape(folder.path, every=record.every, clients=record.clients, append=True)
    strategy = strategies.secured(plan.strategy, plan.config)
    recording = Recording(strategy, tape, client_of=client_of, upload=plan.local.upload)
    taken = Counter[str]() if start is None else _taken(folder)
    waiting: deque[_Trained] = deque()

    def finish(*, but: int = 0) -> None:
        """Commit the rounds that wait, the oldest first, but for so many."""
        while len(waiting) > but:
            trained = waiting.popleft()
            found = trained.attacked()
            measures = found.measures + trained.measures
            measures.append(Measure(trained.round, "server", "attack_seconds", found.seconds))
            folder.commit(trained.checkpoint, found.leaks, measures, found.guesses)
            seconds = trained.seconds + found.seconds
            on_round(_told(trained.round, measures, found.leaks, trained.failures, seconds))

    try:
        if start is None:
            start = _begin(plan, folder, on_round)
        else:
            state.restore(plan.strategy, dict(start.strategy[0]), dict(start.strategy[1]))
        params = start.params
        with attackers(plan, folder) as attack:
            for round_ in range(start.round + 1, plan.config.federation.rounds + 1):
                begun = time.perf_counter()
                try:
                    params = _train_round(plan, recording, grid, round_, params)
                except RunStopped:
                    finish()
                    raise
                spent = time.perf_counter() - begun
                attacked = attack(round_)
                measures = _evaluate(plan, round_, params) + _costs(round_, recording, spent)
                taken.update(recording.members)
                measures += price(plan, folder, round_, taken)
                memory = state.capture(plan.strategy)
                checkpoint = Checkpoint(round_, params, memory, client_states())
                seconds, failures = time.perf_counter() - begun, tuple(recording.failures)
                waiting.append(_Trained(checkpoint, attacked, measures, failures, seconds))
                finish(but=plan.config.engine.attackers)
            finish()
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise RunStopped(f"{folder.path}: the disk is full; finished rounds are kept") from None
    finally:
        _write_tables(folder)


@dataclass(frozen=True)
class _Trained:
    """A round that is trained and waits for its attacks, before it is committed."""

    checkpoint: Checkpoint
    attacked: Collect
    measures: list[Measure]
    failures: Sequence[tuple[str, str]]
    seconds: float

    @property
    def round(self) -> int:
        """Its number."""
        return self.checkpoint.round


def _taken(folder: RunFolder) -> Counter[str]:
    """Return how many finished rounds each client took part in."""
    rows = folder.metrics().to_pylist()
    # Under secure aggregation the norm is a cohort's.
    told = "summed" if folder.config.federation.secure_aggregation else "update_norm"
    return Counter(row["client"] for row in rows if row["metric"] == told)


def _begin(plan: Plan, folder: RunFolder, on_round: Callable[[Round], None]) -> Checkpoint:
    """Commit the untrained model as round 0."""
    begun = time.perf_counter()
    params = {name: value.clone() for name, value in plan.model.state_dict().items()}
    measures = _evaluate(plan, 0, params)
    folder.commit(Checkpoint(0, params, state.capture(plan.strategy)), [], measures, {})
    on_round(_told(0, measures, [], [], time.perf_counter() - begun))
    return Checkpoint(0, params)


def _train_round(
    plan: Plan, recording: Recording, grid: Grid, round_: int, params: Params
) -> dict[str, Tensor]:
    """Send, train, record and aggregate; return the next global state.

    Raises:
        RunStopped: There is no aggregate.
    """
    instructions = ConfigRecord({FEDSIM: configs.to_json(plan.config)})
    with strategies.sampling(plan.config.seed, round_):
        messages = recording.configure_train(round_, to_record(params), instructions, grid)
    replies = grid.send_and_receive(messages, timeout=plan.config.federation.timeout)
    arrays, _ = _stop_on_error(round_, recording, replies)
    if arrays is None:
        raise RunStopped(_no_aggregate(round_, recording))
    return cast_like(from_record(arrays), params)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run under Flower: settings from the run config, nodes put in the order of clients.

    Raises:
        ConfigError: The settings are wrong, or a run with stateful defenses is to be resumed:
            what clients remember is with Flower's nodes.
        RunStopped: The run ended early.
    """
    asked = context.run_config
    out = Path(str(asked.get("out", "")))
    if not out.is_absolute():
        raise ConfigError(f"out: must be an absolute path, got '{out}'")
    if asked.get("resume"):
        folder = RunFolder(out)
        plan = prepare(folder.config)
        if plan.defense.init(plan.model.state_dict()):
            raise ConfigError("resume: must be a run without stateful defenses under flwr run")
    else:
        path = Path(str(asked["config"])) if asked.get("config") else None
        settings = [text for text in str(asked.get("set", "")).split(";") if text.strip()]
        plan = prepare(with_versions(configs.read(path, settings)))
        folder = RunFolder.create(out, plan.config)
    torch.set_num_threads(plan.config.engine.threads)
    logger = logging.getLogger("flwr")
    ordered = OrderedGrid(grid, plan.config.federation.clients)
    with folder.locked():
        federate(
            plan, ordered, folder, client_of=ordered.client_of, start=folder.restore(),
            on_round=lambda told: logger.info("%s", told),
        )  # fmt: skip
        write_report([folder], folder.path / REPORT)


def _stop_on_error(
    round_: int, recording: Recording, replies: Iterable[Message]
) -> tuple[ArrayRecord | None, object]:
    """Aggregate; an error of the strategy itself ends the run in one sentence."""
    try:
        return recording.aggregate_train(round_, replies)
    except (FedsimError, OSError):
        raise
    except Exception as error:
        name = type(recording.strategy).__name__
        reason = one_line(error)
        raise RunStopped(f"round {round_}: {name} cannot aggregate ({reason})") from error


def _no_aggregate(round_: int, recording: Recording) -> str:
    if recording.norms:
        name = type(recording.strategy).__name__
        return f"round {round_}: {name} gave no aggregate of {len(recording.norms)} uploads"
    client, reason = recording.failures[0] if recording.failures else ("none", "nobody was asked")
    return (
        f"round {round_}: a client must succeed, got {len(recording.failures)} failures; "
        f"client {client}: {reason}"
    )


def _evaluate(plan: Plan, round_: int, params: Params) -> list[Measure]:
    """Measure the global model on the test set, in rounds that are due."""
    if not plan.config.federation.is_evaluated(round_):
        return []
    dataset, model = plan.federated.dataset, plan.model
    load(model, params)
    model.eval()
    right, loss = 0, 0.0
    with torch.no_grad():
        batches = zip(dataset.test_inputs.split(500), dataset.test_labels.split(500), strict=True)
        for inputs, labels in batches:
            logits = model(inputs)
            right += int((logits.argmax(dim=1) == labels).sum())
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
    count = len(dataset.test_labels)
    return [
        Measure(round_, "test", "accuracy", right / count),
        Measure(round_, "test", "loss", loss / count),
    ]


def _costs(round_: int, recording: Recording, train_seconds: float) -> list[Measure]:
    norms = recording.norms.items()
    return [
        *(Measure(round_, "client", "update_norm", value, client) for client, value in norms),
        *(
            Measure(round_, "client", "summed", 1.0, client)
            for client in recording.members
            if client not in recording.norms
        ),
        *(
            Measure(round_, "client", "failed", 1.0, client, reason)
            for client, reason in recording.failures
        ),
        Measure(round_, "server", "train_seconds", train_seconds),
    ]


def _told(
    round_: int,
    measures: Sequence[Measure],
    leaks: Sequence[Leak],
    failures: Sequence[tuple[str, str]],
    seconds: float,
) -> Round:
    """Sum a round up for the eyes."""
    accuracy = next((m.value for m in measures if m.metric == "accuracy"), None)
    known: dict[str, list[Leak]] = {}
    for leak in leaks:
        rows = known.setdefault(leak.attack, [])
        if leak.value is not None and (not rows or _alike(rows[0], leak)):
            rows.append(leak)
    means = {
        attack: (
            sum(row.value or 0.0 for row in rows) / len(rows),
            sum(row.blind or 0.0 for row in rows) / len(rows),
        )
        for attack, rows in known.items()
        if rows
    }
    return Round(round_, accuracy, means, tuple(failures), seconds)


def _alike(left: Leak, right: Leak) -> bool:
    """Return whether a mean may be taken of both: of one metric, and both pooled or neither."""
    return left.metric == right.metric and (left.client is None) == (right.client is None)


def _write_tables(folder: RunFolder) -> None:
    try:
        folder.write_tables()
    except OSError:  # a full disk: the rounds' own tables stay readable
        logging.getLogger(__name__).warning("%s: no room for the tables", folder.path)
