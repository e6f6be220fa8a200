"""The round loop of a run: train, record, aggregate, attack, commit. The same in every engine."""

import gc
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from flwr.app import ConfigRecord
from flwr.serverapp import Grid
from torch import Tensor

import strategies
from fedsim import config as configs
from fedsim import models
from fedsim.core.errors import (
    BadRecording,
    ConfigError,
    RunStopped,
    is_disk_full,
    one_line,
)
from fedsim.core.machine import pass_over, seldom_collected
from fedsim.core.params import cast_like
from fedsim.core.rows import Measure
from fedsim.core.types import Params
from fedsim.core.wire import BASE, FEDSIM, from_record, to_record
from fedsim.federation.attack_pool import Attack, Collect, attackers
from fedsim.federation.progress import Round, costs, evaluate, one_by_one, summary
from fedsim.federation.training_grid import OnClient, TrainingGrid
from fedsim.run.checkpoint import Checkpoint
from fedsim.run.epsilon_and_fidelity import epsilon_and_fidelity
from fedsim.run.prepare import Plan
from fedsim.run.public_base import check_base, write_base
from fedsim.run.run_folder import RunFolder
from strategies import Fence, Recording, Tape, state
from strategies.around import name_of

OnRound = Callable[[Round], None]
"""Called after every commit."""


def federate(
    plan: Plan,
    grid: Grid,
    folder: RunFolder,
    *,
    client_of: Callable[[int], str],
    client_states: Callable[[], Mapping[str, Params]] = dict,
    alone: Callable[[], Mapping[str, int]] = dict,
    start: Checkpoint | None = None,
    on_round: OnRound = lambda _: None,
    on_client: OnClient = lambda *_: None,
) -> None:
    """Run all rounds after `start`: train, record, aggregate, attack, evaluate, commit.

    Args:
        plan: What `prepare` built.
        grid: Reaches the clients.
        folder: Where the run is kept.
        client_of: Node id → client.
        client_states: What each client remembers, if the engine can tell; for resuming.
        alone: Why clients of the latest round did not train together where the config asks for it,
            with how many.
        start: The last finished round; None for a new run.
        on_round: Called after every commit, with round 0 for the untrained model.
        on_client: Called with every client's reply.

    Raises:
        RunStopped: No round can be finished any more; the finished ones stay. Of a new run that has
            none but the untrained model's, nothing stays.
    """
    recording = _recording(plan, folder, client_of)
    loop = _Loop(
        plan=plan,
        grid=TrainingGrid(
            grid,
            client_of=client_of,
            settings=configs.to_json(plan.config),
            proximal_mu=plan.local.proximal_mu,
            on_client=on_client,
        ),
        folder=folder,
        fence=Fence(recording, upload=plan.local.upload),
        recording=recording,
        client_states=client_states,
        alone=alone,
        built=state.objects(plan.strategy),
        rounds_of=Counter() if start is None else _rounds_of(folder),
        base=models.digest_of_base(plan.model),
    )
    try:
        if start is None:
            first = _begin(plan, folder, on_round)
        else:
            check_base(folder.path, plan.model)
            first = _restored(plan, start)
        with attackers(plan, folder) as attack, seldom_collected():
            _rounds(loop, first, attack, on_round)
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise RunStopped(f"{folder.path}: the disk is full; finished rounds are kept") from None
    except Exception:
        if start is None:  # once what stands in its way is mended, the same command begins anew
            folder.discard_untrained()
        raise
    finally:
        if folder.path.exists():
            _write_tables(folder)


@dataclass(frozen=True, kw_only=True)
class _Loop:
    """What all rounds share.

    Attributes:
        built: What of the strategy's memory cannot be kept, as it was built.
        rounds_of: Client → rounds so far in which its upload may have left it.
        base: Hash of the model's frozen parameters; empty where it has none.
    """

    plan: Plan
    grid: TrainingGrid
    folder: RunFolder
    fence: Fence
    recording: Recording
    client_states: Callable[[], Mapping[str, Params]]
    alone: Callable[[], Mapping[str, int]]
    built: Mapping[str, str]
    rounds_of: Counter[str]
    base: str


@dataclass(frozen=True)
class _Trained:
    """A round that is trained and waits for its attacks, before it is committed."""

    checkpoint: Checkpoint
    attacked: Collect
    measures: list[Measure]
    failures: Sequence[tuple[str, str]]
    seconds: float


def _recording(plan: Plan, folder: RunFolder, client_of: Callable[[int], str]) -> Recording:
    """Return the strategy, secured if the config asks for it, with the recorder around it."""
    record = plan.config.record
    tape = Tape(folder.path, every=record.every, clients=record.clients, append=True)
    protocol = plan.config.federation.secure_aggregation
    strategy = strategies.secured(plan.strategy, protocol, plan.config.seed)
    return Recording(strategy, tape, client_of=client_of, upload=plan.local.upload)


def _rounds(loop: _Loop, checkpoint: Checkpoint, attack: Attack, on_round: OnRound) -> None:
    """Train every round that is left; commit each in its order, when its attacks are done."""
    waiting: deque[_Trained] = deque()

    def commit(*, but: int = 0) -> None:
        """Commit the rounds that wait, the oldest first, except the newest `but`."""
        while len(waiting) > but:
            on_round(_commit(loop.folder, waiting.popleft()))

    first = checkpoint.round + 1
    for round_ in range(first, loop.plan.config.federation.rounds + 1):
        try:
            trained = _round(loop, round_, checkpoint.params, attack)
        except RunStopped:
            commit()
            raise
        checkpoint = trained.checkpoint
        waiting.append(trained)
        commit(but=loop.plan.config.engine.attackers)
        gc.collect()  # Flower's RecordDict refers to itself, and to the uploads in it
        if round_ == first:  # what it has imported and prepared stays
            pass_over()
    commit()


def _round(loop: _Loop, round_: int, params: Params, attack: Attack) -> _Trained:
    """Train one round, start its attacks, and measure it.

    Raises:
        RunStopped: There is no aggregate.
    """
    begun, recording = time.perf_counter(), loop.recording
    params = _train_round(loop, round_, params)
    spent = time.perf_counter() - begun
    attacked = attack(round_)
    measures = evaluate(loop.plan, round_, params) + costs(round_, recording, spent)
    measures += one_by_one(round_, loop.alone())
    loop.rounds_of.update(_uploaded(recording))
    measures += epsilon_and_fidelity(loop.plan, loop.folder, round_, loop.rounds_of)
    memory = state.capture(loop.plan.strategy, loop.built)
    checkpoint = Checkpoint(round_, params, memory, loop.client_states())
    failures = tuple(recording.failures)
    return _Trained(checkpoint, attacked, measures, failures, time.perf_counter() - begun)


def _commit(folder: RunFolder, trained: _Trained) -> Round:
    """Wait for a round's attacks, and commit it."""
    round_, attacked = trained.checkpoint.round, trained.attacked()
    seconds = Measure(round_, "server", "attack_seconds", attacked.seconds)
    measures = [*attacked.measures, *trained.measures, seconds]
    folder.commit(trained.checkpoint, attacked.leaks, measures, attacked.guesses)
    total = trained.seconds + attacked.seconds
    done = summary(round_, measures, attacked.leaks, trained.failures, total)
    return replace(done, attack_seconds=attacked.seconds)


def _uploaded(recording: Recording) -> set[str]:
    """Return whose upload may have left them: one that failed, came late or was refused counts."""
    return {*recording.members, *(client for client, _ in recording.failures)}


def _rounds_of(folder: RunFolder) -> Counter[str]:
    """Return in how many finished rounds each client's upload may have left it."""
    # Under secure aggregation the norm is a cohort's.
    member = "summed" if folder.config.federation.secure_aggregation else "update_norm"
    rows = folder.metrics().to_pylist()
    uploads = {(row["round"], row["client"]) for row in rows if row["metric"] in (member, "failed")}
    return Counter(client for _, client in uploads)


def _restored(plan: Plan, start: Checkpoint) -> Checkpoint:
    """Give the strategy its memory back."""
    tensors, description = start.strategy
    try:
        state.restore(plan.strategy, dict(tensors), dict(description))
    except ConfigError:
        raise
    except Exception as error:  # what a strategy is given decides what it raises
        reason = one_line(error)
        raise BadRecording(f"state of the strategy: must be its own, got {reason}") from None
    return start


def _begin(plan: Plan, folder: RunFolder, on_round: OnRound) -> Checkpoint:
    """Commit the untrained model as round 0."""
    begun = time.perf_counter()
    params = {name: value.clone() for name, value in plan.model.state_dict().items()}
    measures = evaluate(plan, 0, params)
    write_base(folder.path, plan.model)
    checkpoint = Checkpoint(0, params, state.capture(plan.strategy))
    folder.commit(checkpoint, [], measures, {})
    on_round(summary(0, measures, [], [], time.perf_counter() - begun))
    return checkpoint


def _train_round(loop: _Loop, round_: int, params: Params) -> dict[str, Tensor]:
    """Send, train, record and aggregate; return the next global state.

    Raises:
        RunStopped: There is no aggregate, or none that is a finite model.
    """
    config = loop.plan.config
    instructions = ConfigRecord({FEDSIM: loop.grid.settings})
    if loop.base:
        instructions[BASE] = loop.base
    loop.grid.begin(round_)
    with strategies.sampling(config.seed, round_):
        messages = loop.fence.configure_train(round_, to_record(params), instructions, loop.grid)
    replies = loop.grid.send_and_receive(messages, timeout=config.federation.timeout)
    arrays, _ = loop.fence.aggregate_train(round_, replies)
    loop.recording.tape.trust(round_)
    if arrays is None:
        raise RunStopped(_no_aggregate(round_, loop.recording))
    return cast_like(from_record(arrays), params)


def _no_aggregate(round_: int, recording: Recording) -> str:
    if recording.norms:
        name = name_of(recording)
        return f"round {round_}: {name} gave no aggregate of {len(recording.norms)} uploads"
    client, reason = (
        recording.failures[0] if recording.failures else ("none", "no client was asked")
    )
    return (
        f"round {round_}: a client must succeed, got {len(recording.failures)} failures; "
        f"client {client}: {reason}"
    )


def _write_tables(folder: RunFolder) -> None:
    try:
        folder.write_tables()
    except OSError:  # a full disk: the rounds' own tables stay readable
        logging.getLogger(__name__).warning("%s: no room for the tables", folder.path)
