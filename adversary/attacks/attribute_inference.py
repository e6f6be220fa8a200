"""Attribute inference: the sensitive attribute of records that a client is known to hold.

Li et al., "Analyzing Inference Privacy Risks Through Gradients in Machine Learning", CCS 2024, the
game of attributes; knowledge level K1 of `papers/inference.md`: all of a record but the attribute
is known, its label too.

Idea: each value of the attribute would have given the record another gradient; which of the two is
in the upload is asked by a likelihood ratio that knows from rehearsed clients how uploads vary.
The odds are added to those of imputation, which looks at the rest of the record only.

*Server must know*: the weights sent, the protocol, the number of examples, the records without the
attribute, how the attribute is encoded, and auxiliary records with it.
*Exact when*: the upload is the gradient of one record.
*Differs from the paper*: its code is not at hand. Answers are asked for all candidates; only those
that the client used are graded. The candidates' own attribute is overwritten before anything else.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.games import GAMES
from adversary.games.evidence import Evidence, Records
from adversary.games.learn import rehearsed
from adversary.games.learner import Learner
from adversary.games.predictors import Predictor
from adversary.games.records import Pool
from adversary.members.imputation import imputed
from adversary.over_rounds import Terms, added, held_out
from adversary.rehearsal import rehearsed_size
from adversary.steps import keeps_data
from adversary.workspace import Workspace, undefended, workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.params import not_finite
from fedsim.core.secrets import Rules
from fedsim.core.types import Auxiliary, Observation, View


def attribute_inference(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    over_rounds: bool = False,
) -> Float[Tensor, " m"]:
    """Return the log-odds of the attribute for every candidate.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs, labels, candidates, marks and encoding; where it has the defense,
            shadow uploads pass through it too.
        generator: Not used: rehearsals are the same for all clients.
        over_rounds: Use all observations.

    Raises:
        ValueError: The update is not finite, the client told no number of examples, or, over
            rounds, trains on a new batch in every round, so that a record may not be in it.
    """
    work = workspace(view, auxiliary)
    if not over_rounds:
        odds = evidence(view.latest, work)[0]
    elif keeps_data(view.latest):
        odds = added(view, auxiliary, "aia", lambda latest: evidence(latest, work.at(latest)))
    else:
        raise NotApplicable("aia-rounds: clients must upload all of their data in every round")
    return odds[:, 1] - odds[:, 0] + work.lasting(imputed)


def evidence(observation: Observation, work: Workspace) -> Terms:
    """Return log p(upload | attribute), (m, 2), and what `held_out` returns.

    Raises:
        ValueError: The update is not finite, or the client told no number of examples.
    """
    if reason := not_finite(observation.update.delta):
        raise ValueError(f"update: {reason}")
    size, same_records = rehearsed_size(observation), keeps_data(observation)
    learner, predictor = work.part(fitted, size, observation.update.round, same_records)
    hypotheses, records = work.derived(undefended).part(_hypotheses, keep=2)
    upload = learner.flat(observation.update.delta).expand(len(hypotheses), -1)
    questions = Evidence(upload, size, learner.weight(size), hypotheses, records=records)
    return predictor.log_probabilities(questions), *held_out(predictor)


def fitted(
    work: Workspace, size: int, round_: int, same_records: bool
) -> tuple[Learner, Predictor]:
    """Return a predictor learned at the weights sent, for all clients of this size."""
    auxiliary = work.auxiliary
    inputs, labels, marks = auxiliary.inputs, auxiliary.labels, auxiliary.marks
    assert inputs is not None
    assert labels is not None
    assert marks is not None
    pool = Pool(inputs, labels, marks["attribute"], auxiliary.encoding)
    game = GAMES["attribute-known"]
    return rehearsed(game, Rules(size), pool, work, round_, same_records=same_records)


def _hypotheses(work: Workspace) -> tuple[Tensor, Records]:
    """Return every candidate's gradient without and with the attribute, (m, 2, 1, features)."""
    auxiliary, candidates = work.auxiliary, work.auxiliary.candidates
    encoding = auxiliary.encoding
    assert candidates is not None
    assert encoding is not None
    none = torch.zeros(len(candidates.labels), dtype=torch.int64)
    values = [encoding.put(candidates.inputs, none + mark) for mark in (0, 1)]
    records = Records(torch.stack(values, dim=1), candidates.labels[:, None])
    return Learner(auxiliary, work.local).hypotheses(work.sent, records), records


ATTACKS = (
    Attack(
        name="aia",
        family="attribute",
        on_device=True,
        infer=attribute_inference,
        needs=("inputs", "labels", "candidates", "marks", "encoding"),
        summary="an attribute of records that the client holds, by a likelihood ratio",
    ),
    Attack(
        name="aia-rounds",
        family="attribute",
        on_device=True,
        infer=partial(attribute_inference, over_rounds=True),
        needs=("inputs", "labels", "candidates", "marks", "encoding"),
        summary="aia on all of a client's updates so far",
        over_rounds=True,
    ),
)
