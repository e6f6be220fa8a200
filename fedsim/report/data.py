"""What a report shows of one run, as the two tables hold it."""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow.compute as pc
from numpy.typing import NDArray

from fedsim.core.errors import ConfigError
from fedsim.core.tables import frame
from fedsim.core.units import scale_of
from fedsim.report.facts import facts_of
from fedsim.report.intervals import Gap, gap_of
from fedsim.report.select import records, select
from fedsim.run.ledger import AUDIT, attacks_of, titled
from fedsim.run.notes import note_of
from fedsim.run.outcomes import NOT_SAFE, Answers, answers_of, in_part, num_uploads, silent
from fedsim.run.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd
from fedsim.report.curves import Curve, curve_of, graded_rows


class RunData:
    """What a report shows of one run.

    Attributes:
        name: Of its folder; `label` is what it is called beside others.
        ledger: The rows of attacks, with their titles.
        audits: The rows of audits, whose ε is no share of anything and has no blind guess.

    Raises:
        ConfigError: The run has no finished round.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.name = self.label = folder.path.absolute().name
        self.folder = folder
        whole = folder.ledger()
        self.audits = whole.filter(pc.equal(whole["family"], AUDIT))
        self.ledger = titled(attacks_of(whole))
        self.metrics = folder.metrics()
        if whole.num_rows + self.metrics.num_rows == 0:
            raise ConfigError(f"{folder.path}: must have a finished round, got none")

    @cached_property
    def curves(self) -> list[Curve]:
        """Every attack that was graded, the most skilful first."""
        curves = []
        for place, title in enumerate(self.attacks):
            curve = curve_of(self.ledger.filter(pc.equal(self.ledger["title"], title)), place)
            curves += [curve] if curve else []
        return sorted(curves, key=lambda curve: (-curve.skill, curve.order))

    @cached_property
    def attacks(self) -> list[str]:
        """The titles of all attacks in the ledger, as the config orders them."""
        listed = [part.name for part in self.folder.config.attack]
        place = lambda name: listed.index(name) if name in listed else len(listed)
        rows = (
            self.ledger.group_by(["attack", "adaptive", "title"], use_threads=False)
            .aggregate([])
            .to_pylist()
        )
        rows.sort(key=lambda row: (place(row["attack"]), row["attack"], row["adaptive"]))
        return [row["title"] for row in rows]

    @cached_property
    def answers(self) -> dict[str, Answers]:
        """What became of every attack in the ledger, by title, as the config orders them."""
        by_title = {each.title: each for each in answers_of(self.ledger)}
        return {title: by_title[title] for title in self.attacks if title in by_title}

    @cached_property
    def silent(self) -> dict[str, list[Answers]]:
        """The attacks of each family of which none gave an answer."""
        return silent(self.answers.values())

    @property
    def unanswered(self) -> list[Answers]:
        """The attacks that gave no answer at all, so that they have no curve."""
        return [each for each in self.answers.values() if not each.answered]

    @property
    def why_ungraded(self) -> str:
        """Why no attack could be graded."""
        if not self.answers:
            return "Nothing could be graded: no attack was run."
        if not any(each.answered for each in self.answers.values()):
            return f"Nothing could be graded: no attack gave an answer. {NOT_SAFE}"
        return "Nothing could be graded: the ground truth is missing."

    @property
    def band(self) -> str:
        """What the bands of its curves are, in words."""
        return "from the 10th to the 90th percentile of clients"

    def interval(self, curve: Curve) -> tuple[float, float] | None:  # noqa: ARG002
        """Return the interval of an attack's value over seeds; None of a single run."""
        return None

    @property
    def families(self) -> list[str]:
        """The families that were graded, the most skilful first."""
        return list(dict.fromkeys(curve.family for curve in self.curves))

    def leaders(self, family: str | None = None) -> list[Curve]:
        """Return attacks, the most skilful first; baselines only where there is nothing else."""
        curves = [c for c in self.curves if family in {None, c.family}]
        return [curve for curve in curves if not curve.baseline] or curves

    @cached_property
    def clients(self) -> list[str]:
        """Every client that was attacked, numbers in their own order."""
        return sorted(self.rounds, key=lambda name: (not name.isdigit(), name.zfill(20)))

    @cached_property
    def rounds(self) -> dict[str, list[int]]:
        """The rounds in which each client was attacked, in order."""
        pairs = frame(self.ledger.select(["round", "client"])).dropna().drop_duplicates()
        groups = pairs.sort_values(by="round", kind="stable").groupby("client", sort=False)
        return {str(client): group.tolist() for client, group in groups["round"]}

    @cached_property
    def accuracy(self) -> tuple[NDArray, NDArray]:
        """Rounds, and the model's test accuracy in them."""
        rows = self.metrics.filter(pc.equal(self.metrics["metric"], "accuracy"))
        return rows["round"].to_numpy(), rows["value"].to_numpy()

    @cached_property
    def in_part(self) -> list[str]:
        """Which attacks were run on a part of the recorded uploads alone, a sentence each."""
        return list(in_part(self.ledger, num_uploads(self.folder.path)))

    @cached_property
    def perplexity(self) -> float | None:
        """The model's last perplexity on the test set; None of no language model."""
        rows = self.metrics.filter(pc.equal(self.metrics["metric"], "perplexity"))
        return rows["value"][-1].as_py() if len(rows) else None

    @cached_property
    def failures(self) -> list[dict]:
        """Metrics rows of clients that failed, and of attacks that failed or refused."""
        rows = records(select(frame(self.metrics), split=["client", "attack"]))
        failed = lambda row: (note := note_of(row)) is not None and note.kind != "note"
        return [row for row in rows if row["metric"] == "failed" or failed(row)]

    def gap(self, curve: Curve, metric: str) -> Gap | None:
        """Return how far each update of one attack is above blind by any of its metrics."""
        rows = self.ledger.filter(pc.equal(self.ledger["title"], curve.title))
        rows = graded_rows(rows.filter(pc.equal(rows["metric"], metric)))
        return gap_of(rows, scale_of(metric))

    @cached_property
    def not_finite(self) -> dict[str, int]:
        """How many values (or blind guesses) of each attack are NaN or infinite, by title."""
        finite = lambda name: pc.fill_null(pc.is_finite(self.ledger[name]), fill_value=True)
        odd = self.ledger.filter(pc.invert(pc.and_(finite("value"), finite("blind"))))
        return {
            row["title"]: row["title_count"]
            for row in odd.group_by("title", use_threads=False)
            .aggregate([("title", "count")])
            .to_pylist()
        }

    @property
    def num_refusals(self) -> int:
        """How many of the failures are attacks that refused an update."""
        return sum(each.refused for each in self.answers.values())

    @property
    def facts(self) -> dict[str, str]:
        """The setting, in words."""
        return facts_of(self.folder.config)

    def attacks_of(self, family: str) -> list[str]:
        """Return the titles of a family's attacks, as the config orders them."""
        titles = set(select(frame(self.ledger), family=family)["title"])
        return [title for title in self.attacks if title in titles]

    def values(self, curve: Curve, metric: str) -> "pd.DataFrame":
        """Return the graded rows (client, round, value) of one attack and metric."""
        rows = select(frame(self.ledger), title=curve.title, metric=metric)
        return rows.loc[:, ["client", "round", "value"]].dropna()

    def attempts(self, title: str) -> "pd.DataFrame":
        """Return every client and round that one attack was run on, with its outcome."""
        rows = select(frame(self.ledger), title=title)
        return rows.loc[:, ["client", "round", "outcome"]].dropna().drop_duplicates()
