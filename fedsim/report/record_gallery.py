"""The report's gallery of records: what an attack recovered of tables beside the client's own."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from adversary.grading.reconstructions import is_image
from adversary.grading.records import Compared, compared, confidence, records_of
from fedsim.core.ground_truth import Truth
from fedsim.report.guesses import examples_of, uncertainty
from fedsim.report.visible import visible
from fedsim.run.originals import Originals
from fedsim.run.run_folder import RunFolder
from fedsim.run.truth import truth_of

SHOWN_RECORDS, SHOWN_COLUMNS = 4, 60
READ_ROUNDS, READ_CLIENTS = 12, 50  # of each round, evenly from the best recovered to the worst
BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)  # of confidence


@dataclass(frozen=True)
class Cell:
    """One cell: the original, what was recovered, the style class that marks it, how sure it is."""

    original: str
    recovered: str
    mark: str
    sure: str


@dataclass(frozen=True, kw_only=True)
class RecoveredRecord:
    """One record.

    Attributes:
        title: Client, and how many cells agree.
        caption: The most cells in which an auxiliary record and the blind one agree with it.
        cells: By column.
    """

    title: str
    caption: str
    cells: Sequence[Cell]


@dataclass(frozen=True, kw_only=True)
class Records:
    """What a gallery shows of one attack's records.

    Attributes:
        columns: Their names.
        records: From the best recovered to the worst of the last attacked round.
        calibration: Confidence from and to, number of cells and share of right ones.
        sentence: What is to be said of them.
    """

    columns: Sequence[str]
    records: Sequence[RecoveredRecord]
    calibration: Sequence[tuple[str, int, str]]
    sentence: str


Answered = tuple[str, Tensor, Tensor | None, Truth]  # client, answer, its uncertainty, truth


def recovered_records(
    folder: RunFolder, attack: str, rows: Mapping[int, Sequence[str]], originals: Originals | None
) -> Records | None:
    """Return what an attack recovered of records; None where it cannot be compared.

    Args:
        folder: The run.
        attack: The attack's title.
        rows: The clients that it answered for, by round.
        originals: The clients' own examples.

    Raises:
        BadRecording: An answer is none to this data.
    """
    schema = None if originals is None else originals.federated.dataset.schema
    if originals is None or schema is None or is_image(originals.federated.dataset.input_shape):
        return None
    rounds = sorted(rows)[-READ_ROUNDS:]
    answers = {r: list(_answers(folder, attack, r, rows[r], originals)) for r in rounds}
    if not answers[rounds[-1]]:
        return None
    shown = _shown(answers[rounds[-1]])
    columns = [visible(column.name) for column in schema.columns[:SHOWN_COLUMNS]]
    sentence, total = "", len(schema.columns)
    if len(columns) < total:
        sentence = f"The first {len(columns)} of {total} columns are shown."
    calibration = _calibration([it for each in answers.values() for it in each])
    return Records(columns=columns, records=shown, calibration=calibration, sentence=sentence)


def _answers(
    folder: RunFolder, attack: str, round_: int, clients: Sequence[str], originals: Originals
) -> Iterator[Answered]:
    """Yield the answers of a round for clients whose records are at hand."""
    shape = originals.federated.dataset.input_shape
    for client in clients[:: -(-len(clients) // READ_CLIENTS)]:
        truth = originals.of(truth_of(folder, round_, client), round_=round_, client=client)
        if truth is not None and records_of(truth) is not None:
            guess = examples_of(folder, attack, round_, client, shape)
            yield client, guess, uncertainty(folder, attack, round_, client), truth


def _shown(answers: Sequence[Answered]) -> list[RecoveredRecord]:
    """Return some records from the best to the worst recovered, evenly spread."""
    owners = [(it, place) for it in answers for place in range(len(compared(it[1], it[3]).right))]
    counts = torch.cat([compared(it[1], it[3]).right.sum(dim=1) for it in answers])
    order = counts.argsort(descending=True, stable=True).tolist()
    places = np.linspace(0, len(order) - 1, min(SHOWN_RECORDS, len(order))).round().astype(int)
    return [_record(*owners[order[place]]) for place in places.tolist()]


def _record(answered: Answered, place: int) -> RecoveredRecord:
    client, guess, unsure, truth = answered
    records, inputs, lineup = records_of(truth), truth.inputs, truth.lineup
    assert records is not None
    assert inputs is not None
    assert lineup is not None
    it = compared(guess, truth)
    blind = compared(lineup.blank.unsqueeze(0)[:0], truth).right[place]
    columns = records.schema.columns[:SHOWN_COLUMNS]
    original, answer = inputs[place : place + 1].flatten(1), it.answers[place : place + 1]
    cells = [
        Cell(
            visible(column.texts(original)[0]),
            visible(column.texts(answer)[0]),
            "hit" if bool(it.right[place, at]) else "miss",
            _sure(it, unsure, place, column.features[0]),
        )
        for at, column in enumerate(columns)
    ]
    total, nearest = it.right.shape[1], float(it.nearest[place])
    caption = f"blind record {int(blind.sum())}"
    if not math.isnan(nearest):
        caption += f", nearest auxiliary record {int(nearest)}"
    right = int(it.right[place].sum())
    return RecoveredRecord(
        title=f"client {visible(client)}: {right} of {total} cells", caption=caption, cells=cells
    )


def _sure(it: Compared, unsure: Tensor | None, place: int, feature: int) -> str:
    """Return how sure an answered cell is, in words; empty where the attack does not say."""
    answer = int(it.places[place])
    if unsure is None or answer >= len(unsure):
        return ""
    return f"{100 * max(0.0, 1 - float(unsure[answer].flatten()[feature])):.0f} %"


def _calibration(answers: Sequence[Answered]) -> list[tuple[str, int, str]]:
    """Return how many cells are right by how sure the attack is of them."""
    pairs = [confidence(g, u, t) for _, g, u, t in answers if u is not None]
    if not pairs:
        return []
    sure, right = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    edges = torch.tensor(BINS, dtype=sure.dtype)
    bins = torch.bucketize(sure.clamp(0, 1), edges[1:-1], right=True)
    table = []
    for place, (low, high) in enumerate(pairwise(BINS)):
        inside = right[bins == place]
        share = f"{100 * float(inside.double().mean()):.1f} %" if len(inside) else "–"
        table.append((f"{100 * low:.0f} to {100 * high:.0f} %", len(inside), share))
    return table
