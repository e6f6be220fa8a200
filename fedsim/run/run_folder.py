"""The run folder: what a run leaves behind, and where it goes on after it was killed.

config.toml                     everything resolved
base.safetensors                the parameters that never train, if the model has any
tokeniser.json                  of a run on texts: what made token ids of them
rounds/ truth/                  the tape and the ground truth, a folder per round
guesses/0001.safetensors        what each attack answered for each client
leakage.parquet metrics.parquet the two tables, whole once the run has ended
state/0001/                     a finished round: its table rows, and what resuming needs
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import pyarrow as pa
from torch import Tensor

from fedsim.config import Config
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.files import TensorFile
from fedsim.core.rows import Leak, Measure
from fedsim.core.seals import digits_in
from fedsim.core.tables import write_table
from fedsim.data.tokeniser import FILE as TOKENISER
from fedsim.data.tokeniser import Tokeniser
from fedsim.data.tokeniser import write as write_tokeniser
from fedsim.run import committed, marks, trust
from fedsim.run.checkpoint import PARAMS, Checkpoint, client_file, read_checkpoint, write_checkpoint
from fedsim.run.guesses import add_guesses, read_guesses, write_guesses
from fedsim.run.kept_config import read_config, write_config
from fedsim.run.ledger import LEAKAGE, LEDGER, MEASURES, METRICS, leakage_table, metrics_table
from fedsim.run.links import ENTRIES, refuse_links
from fedsim.run.public_base import BASE
from fedsim.run.rows import without, without_attacks
from fedsim.run.tables import WRITTEN, Tables
from strategies.tape import numbered, recorded_rounds

REPORT = "report.html"


class RunFolder:
    """One run on disk.

    Args:
        path: An existing run folder.

    Raises:
        BadRecording: There is no run in `path`, or a link in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / "config.toml").exists() and not (path / "rounds").exists():
            raise BadRecording(f"{path}: must be a run folder, got no config.toml or rounds/ in it")
        refuse_links(path, ENTRIES)

    @classmethod
    def create(cls, path: Path, config: Config, tokeniser: Tokeniser | None = None) -> "RunFolder":
        """Make a new run folder, with the tokeniser of a run on texts.

        Raises:
            ConfigError: There is something in `path` already.
        """
        if path.exists() and not path.is_dir():
            raise ConfigError(f"--out: must be a folder, got the file {path}")
        if path.exists() and any(not file.name.startswith(".") for file in path.iterdir()):
            raise ConfigError(
                f"--out: must be a new folder, got {path}; --resume goes on with the run in it"
            )
        write_config(path, config)
        if tokeniser is not None:
            write_tokeniser(tokeniser, path / TOKENISER)
        return cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from writing into the folder inside the block.

        Raises:
            RunStopped: Another process is at it.
        """
        with marks.locked(self.path):
            yield

    @cached_property
    def config(self) -> Config:
        """The run's config.

        Raises:
            BadRecording: It is missing or was not written by fedsim.
        """
        return read_config(self.path)

    def check_trusted(
        self,
        allow: Iterable[str] = (),
        *,
        given: Iterable[str] = (),
        config: Config | None = None,
    ) -> None:
        """Refuse a config that names code or paths which this user has not allowed.

        Args:
            allow: What the user allows.
            given: What the user named now, such as an attack.
            config: The part of it that is used; all of it by default.

        Raises:
            BadRecording: It does.
        """
        trust.check(self.path / "config.toml", config or self.config, allow, given=given)

    @property
    def truth(self) -> Path:
        """The folder of the clients' ground truth; of another app's, where its user says it is.

        Raises:
            BadRecording: The config was not written by fedsim.
        """
        foreign = self.config.foreign if (self.path / "config.toml").exists() else None
        return Path(foreign.truth) if foreign and foreign.truth else self.path / "truth"

    def check_truth(self, allow: Iterable[str] = ()) -> None:
        """Refuse a folder of ground truth outside the run that this user has not allowed.

        Raises:
            BadRecording: The config names one.
        """
        foreign = self.config.foreign if (self.path / "config.toml").exists() else None
        if foreign and foreign.truth:
            alone = foreign.model_copy(update={"auxiliary": None, "auxiliary_root": None})
            self.check_trusted(allow, config=Config(foreign=alone))

    @property
    def finished_rounds(self) -> list[int]:
        """The rounds that are complete, with their attacks, in order."""
        return numbered(self.path / "state")

    def check_files(self) -> None:
        """Compare the files of all rounds with the lists that were written with them.

        Raises:
            BadRecording: A file is lost, added or changed.
        """
        committed.check(self.path)
        for name, schema in ((LEDGER, LEAKAGE), (MEASURES, METRICS)):
            self._tables.check(name, schema)

    def check_bytes(self) -> None:
        """Do as `check_files`, and read every byte of these files and of answers.

        Raises:
            BadRecording: A file is lost, added, changed or damaged.
        """
        self.check_files()
        committed.check_bytes(self.path)

    def commit(
        self,
        checkpoint: Checkpoint,
        leaks: Iterable[Leak],
        measures: Iterable[Measure],
        guesses: Mapping[str, Tensor],
    ) -> None:
        """Finish a round: from here on a killed run goes on after it.

        Raises:
            OSError: The disk is full; the round before stays the last finished one.
        """
        round_ = checkpoint.round
        if guesses:
            write_guesses(self._guesses(round_), round_, guesses)
        folder = self.state_of(round_)
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        write_table(part / LEDGER, leakage_table(leaks))
        write_table(part / MEASURES, metrics_table(measures))
        write_checkpoint(part, checkpoint, self.config.engine.arithmetic)
        before = self._client_states if checkpoint.clients else {}
        committed.write(self.path, round_, part)
        part.rename(folder)
        renewed = [before[client] for client in checkpoint.clients if client in before]
        committed.forget(self.path, round_ - 1, renewed)
        before |= {client: client_file(folder, client) for client in checkpoint.clients}

    def restore(self) -> Checkpoint | None:
        """Return the last finished round, or None before the first; unfinished ones are deleted.

        Raises:
            BadRecording: A file of the checkpoint is missing or damaged, or this is another app's.
        """
        if self.config.foreign:
            raise BadRecording(
                f"{self.path}: must be fedsim's own run, got another app's recording"
            )
        finished = self.finished_rounds
        ahead = 1 + self.config.engine.attackers  # rounds that are begun and not finished
        if not finished and len(recorded_rounds(self.path)) > ahead:  # not a run that was killed
            raise BadRecording(f"{self.path}: must hold state/ to go on from, got rounds alone")
        if finished:
            self.check_files()
        committed.clear(self.path, finished)
        committed.check_bytes(self.path)
        if not finished:
            return None
        newest, arithmetic = committed.client_states(self.path), self.config.engine.arithmetic
        return read_checkpoint(self.state_of(finished[-1]), finished[-1], newest, arithmetic)

    def discard_untrained(self) -> None:
        """Delete a run of which no round is finished, so that the same command can begin it again.

        Files that no run writes stay, and the folder with them.
        """
        if any(self.finished_rounds):  # round 0 is the untrained model
            return
        for name in ("state", "rounds", "truth", "guesses", "track"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        marked = (marks.LOCK, marks.FAILED)
        for name in (LEDGER, MEASURES, WRITTEN, REPORT, *marked, BASE, "config.toml"):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # there is something else in it
            self.path.rmdir()

    def final_params(self) -> dict[str, Tensor]:
        """Return the global state after the last finished round.

        Raises:
            BadRecording: No round is finished.
        """
        if not self.finished_rounds:
            raise BadRecording(f"{self.path}: must have a finished round, got none")
        return dict(TensorFile(self.state_of(self.finished_rounds[-1]) / PARAMS))

    def write_tables(self) -> None:
        """Write the two tables over all finished rounds, keeping later attacks' rows."""
        tables = self._tables
        tables.write(tables.merged(LEDGER, LEAKAGE), tables.merged(MEASURES, METRICS))

    def ledger(self) -> pa.Table:
        """Return the leakage ledger; of a running or killed run, its finished rounds."""
        return self._tables.read(LEDGER, LEAKAGE)

    def metrics(self) -> pa.Table:
        """Return the metrics table; of a running or killed run, its finished rounds."""
        return self._tables.read(MEASURES, METRICS)

    def replace_attacks(
        self, names: set[str], leaks: Iterable[Leak], measures: Iterable[Measure] = ()
    ) -> pa.Table:
        """Put new rows in the place of those of the attacks `names`, and return the new rows."""
        new, metrics = leakage_table(leaks), metrics_table(measures)
        others = without_attacks(self.ledger(), names)
        # What was measured again beside the attacks is not to be there twice.
        measured = without(
            without_attacks(self.metrics(), names), "metric", set(metrics["metric"].to_pylist())
        )
        self._tables.write(pa.concat_tables([others, new]), pa.concat_tables([measured, metrics]))
        return new

    def write_guesses(self, round_: int, guesses: Mapping[str, Tensor]) -> None:
        """Add answers to those of a round, by `attack/client`; what is renewed takes its shares."""
        add_guesses(self._guesses(round_), round_, guesses)

    def guesses(self, round_: int) -> Mapping[str, Tensor]:
        """Return every attack's answers in one round, by `attack/client`, and their shares.

        Raises:
            BadRecording: The file is missing, damaged, or another round's.
        """
        return read_guesses(self._guesses(round_), round_)

    @cached_property
    def _client_states(self) -> dict[str, Path]:
        """The newest file of each client that remembers something; kept current by `commit`."""
        return committed.client_states(self.path)

    @property
    def _tables(self) -> Tables:
        return Tables(
            self.path, self.finished_rounds, lambda: self.config.attack, self._config_digits
        )

    def _config_digits(self) -> str:
        """Return the checksum of the run's config; empty of another app's recording."""
        path = self.path / committed.CONFIG
        return "" if not path.exists() or self.config.foreign else digits_in(path)

    def state_of(self, round_: int) -> Path:
        """Return the folder of a finished round."""
        return self.path / "state" / committed.name_of(round_)

    def _guesses(self, round_: int) -> Path:
        return self.path / "guesses" / f"{committed.name_of(round_)}.safetensors"
