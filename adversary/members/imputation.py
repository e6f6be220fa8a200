"""Imputation: a sensitive attribute, guessed from the rest of a record without any update.

B. Jayaraman, D. Evans, "Are attribute inference attacks just imputation?", CCS 2022: what the rest
of a record tells has not leaked, and an attack must beat it.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fedsim.core.types import Auxiliary


def imputed(auxiliary: Auxiliary) -> Float[Tensor, " m"]:
    """Return log-odds of the attribute of every candidate, by logistic regression.

    Learned from auxiliary records: all inputs but the attribute's own, and the label. Worked out
    once for all rounds (`Workspace.lasting`).

    Args:
        auxiliary: With inputs, labels, marks of `attribute`, encoding and candidates.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    candidates, marks = auxiliary.candidates, auxiliary.marks
    assert candidates is not None
    assert marks is not None
    assert auxiliary.inputs is not None
    records = _features(auxiliary, auxiliary.inputs, auxiliary.labels)
    questions = _features(auxiliary, candidates.inputs, candidates.labels)
    secret = marks["attribute"].numpy()
    if len(set(secret.tolist())) < 2:
        return torch.zeros(len(candidates.labels), dtype=torch.float64)
    scaler = StandardScaler().fit(records)
    model = LogisticRegression(max_iter=500, C=0.1).fit(scaler.transform(records), secret)
    odds = model.decision_function(scaler.transform(questions))
    return torch.as_tensor(odds).double().clamp(-math.log(1e4), math.log(1e4))


def _features(auxiliary: Auxiliary, inputs: Tensor, labels: Tensor | None) -> Tensor:
    assert labels is not None
    assert auxiliary.encoding is not None
    hidden = auxiliary.encoding.columns
    visible = [column for column in range(inputs.shape[1]) if column not in set(hidden.tolist())]
    classes = torch.nn.functional.one_hot(labels, auxiliary.num_classes)
    return torch.cat([inputs[:, visible].double(), classes.double()], dim=1)
