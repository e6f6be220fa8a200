"""The same things as the command line, as functions for a notebook."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

import strategies
from fedsim.config import Config, Engine, Part, Rule
from fedsim.core.boundary import PASSING, explained
from fedsim.core.devices import resolved
from fedsim.core.errors import BadRecording, ConfigError, FedsimError
from fedsim.core.rng import threads
from fedsim.core.rows import Leak, Measure
from fedsim.core.wire import ARRAYS, METRICS, NUM_EXAMPLES, to_record
from fedsim.federation import engines
from fedsim.federation.engines import Started
from fedsim.federation.foreign import App, is_foreign, tell
from fedsim.federation.grid import Job, SimulationGrid
from fedsim.federation.progress import Round
from fedsim.federation.rounds import federate
from fedsim.federation.training_grid import OnClient
from fedsim.run.attack_round import attack_round
from fedsim.run.device import attacking_on, on_cpu
from fedsim.run.glance import glance, line_of
from fedsim.run.ledger import AUDIT
from fedsim.run.marks import failing
from fedsim.run.outcomes import Answers, answers_of, means_of
from fedsim.run.prepare import Plan, prepare, with_versions
from fedsim.run.public_base import load_base
from fedsim.run.run_folder import REPORT, RunFolder
from fedsim.track.installed import check_installed
from fedsim.track.tracked import tracked
from strategies.tape import recorded_rounds

if TYPE_CHECKING:
    from fedsim.check.gate import Gate


@dataclass(frozen=True, init=False, repr=False)
class Run:
    """A finished, running or killed run on disk; in a notebook it draws itself.

    Args:
        path: Its folder.

    Example:
        `Run("runs/first").ledger().to_pandas()`
    """

    path: Path

    def __init__(self, path: Path | str) -> None:
        object.__setattr__(self, "path", Path(path))

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {line_of(glance(self.path))})"

    def _repr_html_(self) -> str:
        from fedsim.report.notebook import notebook_html

        return notebook_html(glance(self.path))

    def ledger(self) -> pa.Table:
        """Return the leakage ledger of the finished rounds."""
        return RunFolder(self.path).ledger()

    def metrics(self) -> pa.Table:
        """Return utility, costs and failures of the finished rounds."""
        return RunFolder(self.path).metrics()

    def config(self) -> Config:
        """Return the run's resolved config."""
        return RunFolder(self.path).config

    @property
    def report(self) -> Path:
        """The self-contained HTML report."""
        return self.path / REPORT


def run(
    config: Config | None = None,
    out: Path | str | None = None,
    *,
    on_round: Callable[[Round], None] = lambda _: None,
    on_plan: Callable[[Plan], None] = lambda _: None,
    on_client: OnClient = lambda *_: None,
) -> Run:
    """Train a federation, attack it in every round, and write the run folder and its report.

    Args:
        config: What to run; the defaults train on scikit-learn's digits, offline.
        out: A new folder; by default one under `runs/`.
        on_round: Called after every round.
        on_plan: Called before anything is written.
        on_client: Called with every client's reply: the round, how many clients have replied in
            it, and how many were asked.

    Raises:
        ConfigError: The config is wrong; nothing has been written.
        RunStopped: The run ended early; `resume` may go on. In the first round nothing is left.
    """
    config = config or Config()
    check_installed(config.track)
    plan = prepare(with_versions(config))
    if plan.config.check:
        from fedsim.check.names import check_names

        names = {attack.family: [attack.name] for attack in plan.attacks}
        check_names("check.fail_if", plan.config.check.rules, names)
    on_plan(plan)
    path = Path(out) if out else new_folder(plan.config)
    _rehearse(plan)
    with _started(plan.config.engine) as engine:
        folder = RunFolder.create(path, plan.config, plan.federated.tokeniser)
        return _go(plan, folder, engine, on_round, on_client)


def resume(
    out: Path | str,
    *,
    allow: Iterable[str] = (),
    on_round: Callable[[Round], None] = lambda _: None,
    on_plan: Callable[[Plan], None] = lambda _: None,
    on_client: OnClient = lambda *_: None,
) -> Run:
    """Go on with a run after its last finished round, to the same bits as without the stop.

    Args:
        out: Its folder.
        allow: Modules, paths and addresses that its config may use, if you did not write it.
        on_round: Called after every round.
        on_plan: Called before anything is written.
        on_client: Called with every client's reply: the round, how many clients have replied in
            it, and how many were asked.

    Raises:
        BadRecording: There is no run, its files are damaged, or its config names what is not
            allowed.
        RunStopped: The run ended early again.
    """
    folder = RunFolder(Path(out))
    if is_foreign(folder.path):
        raise BadRecording(
            f"--out: must be a run of fedsim's own to go on with, got {folder.path} of another app"
        )
    folder.check_trusted(allow)
    check_installed(folder.config.track)
    plan = prepare(folder.config)
    on_plan(plan)
    with _started(plan.config.engine) as engine:
        return _go(plan, folder, engine, on_round, on_client)


def attack(
    recording: Path | str,
    attacks: Sequence[Part],
    *,
    app: App | None = None,
    allow: Iterable[str] = (),
    device: str = "cpu",
    on_round: Callable[[int, int], None] = lambda *_: None,
) -> pa.Table:
    """Attack a recording without training, and put the rows into its ledger.

    Args:
        recording: A run folder, or the tape of somebody else's Flower app.
        attacks: Names and options; their earlier rows are replaced.
        app: What is said of somebody else's app; what was said before is kept beside its tape.
        allow: Modules, paths and addresses that its config may use, if you did not write it.
        device: Where attacks run the model, as `engine.device`; wherever its clients trained.
        on_round: Called with rounds done and in all.

    Returns:
        The new rows. Of another app's recording a report is drawn too.

    Raises:
        BadRecording: A file is missing or damaged, or its config names what is not allowed.
        ConfigError: An attack's name or option is wrong, something of an app is not told, or the
            machine lacks the device.
    """
    device, folder = resolved(device, "--device"), RunFolder(Path(recording))
    folder.check_files()
    foreign = is_foreign(folder.path)
    if foreign:
        with folder.locked():
            folder, plan = tell(folder.path, app or App(), attacks, allow=allow)
    elif app is not None and not app.is_empty:
        raise ConfigError(
            f"--model: must go with another app's recording, got {folder.path} of fedsim's own"
        )
    else:
        config = on_cpu(folder.config).model_copy(update={"attack": tuple(attacks)})
        folder.check_trusted(allow, given=[part.name for part in attacks], config=config)
        plan = prepare(config)
    load_base(folder.path, plan.model)
    plan = attacking_on(plan, device)
    rounds = recorded_rounds(folder.path)
    if folder.finished_rounds:  # the round in which a run was killed is not whole
        rounds = [number for number in rounds if number <= folder.finished_rounds[-1]]
    if not rounds:
        raise BadRecording(f"{folder.path}: must hold recorded rounds, got none")
    leaks: list[Leak] = []
    failures: list[Measure] = []
    with folder.locked(), threads(plan.config.engine.threads):
        for done, round_ in enumerate(rounds, start=1):
            rows, failed, guesses = attack_round(plan, folder, round_)
            leaks += rows
            failures += failed
            folder.write_guesses(round_, guesses)
            on_round(done, len(rounds))
        names = {part.name for part in attacks}
        table = folder.replace_attacks(names, leaks, failures)
        if foreign:
            _draw([folder], folder.path / REPORT)
        return table


def report(
    runs: Iterable[Path | str],
    out: Path | str | None = None,
    *,
    client: str | None = None,
    figures: Path | str | None = None,
    width: float | None = None,
    allow: Iterable[str] = (),
) -> Path:
    """Draw one run, or compare several, into a self-contained HTML file.

    Args:
        runs: Run folders.
        out: Where to; by default `report.html` in the first.
        client: Whose label counts to draw, of one run; by default the most exposed client's.
        figures: Folder for each figure as SVG, PDF and CSV; none by default.
        width: Of these figures, in inches; by default both columns of a two-column page.
        allow: Folders of ground truth that a config may name, if you did not write it.

    Raises:
        BadRecording: A folder is no run, a file in it is damaged, or its ground truth is not
            allowed.
        ConfigError: A run has no finished round, or there is no such client in it.
    """
    folders = [RunFolder(Path(path)) for path in runs]
    for folder in folders:
        folder.check_files()
        folder.check_truth(allow)
    target = Path(out) if out else folders[0].path / REPORT
    _draw(folders, target, client=client, figures=figures, width=width)
    return target


def check(
    run: Path | str,
    rules: Sequence[Rule] = (),
    *,
    confidence: float | None = None,
    margin: str | None = None,
) -> "Gate":
    """Hold a run against rules that say what must not be, as `fedsim check`.

    Args:
        run: A run folder, or a folder of `fedsim audit` or `fedsim game`.
        rules: Beside those of the run's config.
        confidence: Of margins of error; the config's if None.
        margin: `ignore`, `lenient` or `strict`, as `check.margin`; the config's if None.

    Returns:
        A verdict per rule. One that the run cannot decide is open, which is no pass.

    Raises:
        ConfigError: There is no rule, a rule is about something that does not exist, or the folder
            holds no results.
        BadRecording: A file is damaged.
    """
    from fedsim.check import gate

    given = {"confidence": confidence, "margin": margin}
    changes = {key: value for key, value in given.items() if value is not None}
    return gate.check(Path(run), rules, changes)


def means(ledger: pa.Table) -> list[dict[str, Any]]:
    """Return the mean of each attack's metrics, over clients and rounds; audits have none.

    Value, blind guess and time are means over the rows that are graded, and over all rows where
    none is. `graded` counts these rows, `of` all; `failed` and `refused` count the others that have
    no answer. A row is one update, or one round where it is pooled over clients.
    """
    return means_of(ledger)


def answers(ledger: pa.Table) -> list[Answers]:
    """Return for each attack how many updates it answered, failed on and refused, and why."""
    return answers_of(ledger)


def last_audit(ledger: pa.Table) -> list[dict[str, Any]]:
    """Return what each method of an audit found by the last audited round, beside the claim."""
    rows = [row for row in ledger.to_pylist() if row["family"] == AUDIT]
    last = max((row["round"] for row in rows), default=0)
    return [
        {key: row[key] for key in ("round", "attack", "metric", "value")}
        | {"theory": row["ceiling"]}
        for row in rows
        if row["round"] == last
    ]


def new_folder(config: Config) -> Path:
    """Return a folder under `runs/` that does not exist yet, named after the run."""
    parts = (config.data.name, config.model.name, config.federation.strategy)
    name = "-".join(part.replace(":", ".").replace("/", ".") for part in parts)
    candidates = (Path("runs") / (name + (f"-{i}" if i > 1 else "")) for i in range(1, 10**6))
    return next(path for path in candidates if not path.exists())


def newest_unfinished() -> Path:
    """Return the folder under `runs/` that was started last and has rounds left.

    Raises:
        ConfigError: There is none.
    """
    unfinished = []
    for path in Path("runs").glob("*/config.toml"):
        try:
            folder = RunFolder(path.parent)
            with folder.locked():
                done = max(folder.finished_rounds, default=-1)
                if not folder.config.foreign and done < folder.config.federation.rounds:
                    unfinished.append((path.stat().st_mtime, path.parent))
        except FedsimError:  # damaged, or still running
            continue
    if not unfinished:
        raise ConfigError(
            "--resume: must find an unfinished run under runs/, got none; name it with --out"
        )
    return max(unfinished)[1]


def _go(
    plan: Plan,
    folder: RunFolder,
    engine: Started,
    on_round: Callable[[Round], None],
    on_client: OnClient,
) -> Run:
    config = plan.config
    with folder.locked(), failing(folder.path), tracked(config.track, folder) as track:

        def show(done: Round) -> None:
            track(done.number)
            on_round(done)

        start = folder.restore()
        grid = SimulationGrid(
            config.federation.clients,
            engine.execute,
            folder.truth.absolute(),
            start.clients if start else None,
        )
        federate(
            plan,
            grid,
            folder,
            client_of=grid.client_of,
            client_states=grid.client_states,
            alone=engine.alone,
            start=start,
            on_round=show,
            on_client=on_client,
        )
        _draw([folder], folder.path / REPORT)
    return Run(folder.path)


def _draw(folders: Sequence[RunFolder], target: Path, **options: Any) -> None:
    """Write a report; what draws it is imported when there is something to draw."""
    from fedsim.report.run import write_report

    write_report(folders, target, **options)


@contextmanager
def _started(engine: Engine) -> Iterator[Started]:
    """Start the engine, before anything is written, with Flower's own log kept quiet."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    with threads(engine.threads), engines.start(engine) as started:
        yield started


def _rehearse(plan: Plan) -> None:
    """Let the strategy aggregate a round of zeros, so that what can only fail fails now.

    Raises:
        ConfigError: It cannot aggregate that many uploads with its options.
    """
    federation = plan.config.federation
    strategy = strategies.build(federation, lr=plan.config.local.lr, buffers=())
    zeros = to_record({"zeros": torch.zeros(2)})

    def answer(jobs: Iterable[Job], timeout: float | None) -> Iterator[tuple[Message, Context]]:  # noqa: ARG001
        for message, context in jobs:
            metrics = MetricRecord({NUM_EXAMPLES: 1})
            content = RecordDict({ARRAYS: ArrayRecord(dict(zeros)), METRICS: metrics})
            yield Message(content, reply_to=message), context

    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    grid = SimulationGrid(federation.clients, answer, Path())
    reason = "none"
    try:
        with strategies.sampling(plan.config.seed, 0):
            messages = strategy.configure_train(1, zeros, ConfigRecord(), grid)
        if strategy.aggregate_train(1, grid.send_and_receive(messages))[0] is not None:
            return
    except PASSING:
        raise
    except BaseException as error:  # foreign code may want to end the process
        reason = explained(error)
    raise ConfigError(
        f"federation.strategy: '{federation.strategy}' must aggregate {federation.sampled} uploads "
        f"with options {federation.options}, got {reason}"
    )
