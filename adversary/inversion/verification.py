"""What is said of a closed form's answer that does not explain the upload.

In: an attack. Out: the attack, which remarks that its answer is not verified where the upload that
a client would make of it is not the client's: a defense changed it, or the model is not exactly
what the closed form assumes.
"""

import warnings
from functools import wraps
from typing import Any

from torch import Generator, Tensor

from adversary.attack import Infer
from adversary.inversion.evidence import UNVERIFIED, Evidence, verified
from fedsim.core.boundary import PASSING, explained
from fedsim.core.errors import Remark, remarks_of_attacks
from fedsim.core.types import Auxiliary, Estimate, View


def held_to_upload(infer: Infer) -> Infer:
    """Return an attack on one example that says where its answer does not explain the upload.

    What is answered of several examples, or said to be not verified already, is left as it is.
    """

    @wraps(infer)
    def attack(
        view: View, auxiliary: Auxiliary, generator: Generator, **options: Any
    ) -> Tensor | Estimate:
        with remarks_of_attacks() as remarks:
            answer = infer(view, auxiliary, generator, **options)
        for remark in remarks:
            warnings.warn(remark, Remark, stacklevel=2)
        values = answer.values if isinstance(answer, Estimate) else answer
        alone = view.latest.update.num_examples == len(values) == 1 and not remarks
        if alone and (sentence := _unverified(values, view, auxiliary)):
            warnings.warn(sentence, Remark, stacklevel=2)
        return answer

    return attack


def _unverified(inputs: Tensor, view: View, auxiliary: Auxiliary) -> str:
    """Return how far an example's simulated upload is from the client's; empty if it explains it.

    The label is the one that fits best.
    """
    try:
        evidence = Evidence(view.latest, auxiliary, None)
        misfit = evidence.misfit(inputs)
    except PASSING:
        raise
    except Exception as error:
        return f"{UNVERIFIED}: its upload cannot be simulated ({explained(error)})"
    if misfit is None:
        return f"{UNVERIFIED}: its upload cannot be simulated"
    if verified(misfit, evidence.enough):
        return ""
    return f"the answer's simulated upload {evidence.verdict(misfit)}"
