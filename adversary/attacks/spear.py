"""SPEAR: a whole batch behind a fully connected ReLU layer, exact.

D. I. Dimitrov, M. Baader, M. N. Müller, M. Vechev, "SPEAR: exact gradient inversion of batches in
federated learning", NeurIPS 2024.

Idea: the first layer's weight gradient is DᵀX of rank B. ReLU puts zeros into D that no other way
to take the product apart has, so that the sparsest one is the true one.

*Server must know*: the gradient of one step, and how many examples it is of.
*Exact when*: its answer passes: units are inactive at the inputs exactly where D is zero, D and X
give the gradient, and with the label that fits it best each input gives its column of D through the
later layers. Otherwise it refuses, or says what it could not test.
*Differs from the paper*: its code is not at hand. Rows are not drawn at random (on average 2^(B−1)
draws and far more of natural pictures, see `expected_draws`) but in the order of the units' outputs
at guessed inputs, `adversary.inversion.inactive`: a few draws per example up to B = 64. What counts
as zero follows from what each row has outside the B leading directions.
"""

import hashlib
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.inversion.applicable import check_inputs
from adversary.inversion.chain import first_linear, follows
from adversary.inversion.local_steps import one_hot
from adversary.inversion.reading import batch_gradient, batch_size, precise, weights
from adversary.inversion.relu_batch import Batch, Limits, UnfinishedError, batch
from adversary.inversion.rows import Rows
from adversary.labels.head import input_shape
from adversary.workspace import Workspace, workspace
from fedsim.core.errors import NotApplicable, Remark
from fedsim.core.files import TensorFile, save_tensors
from fedsim.core.ranges import AtLeastOne, NotNegative
from fedsim.core.rng import generator as derived
from fedsim.core.types import Auxiliary, View

FITS = 0.05  # of a column's length may differ from that of the input's own gradient


def spear(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    draws: AtLeastOne = 20_000,
    seconds: NotNegative = 0.0,
    resume: str = "",
) -> Float[Tensor, "n *shape"]:
    """Return all inputs of the batch, in any order, float64.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture.
        generator: Draws which units are taken to be inactive.
        draws: How many at most. The search ends before where the rate of success so far says that
            they will not be enough.
        seconds: CPU time of the search at most, 0 for any; answers then depend on the machine.
        resume: A folder. An unfinished search leaves its examples' zeros there; a later one of the
            same gradient goes on from them.

    Raises:
        ValueError: The first layer is not linear with a bias and ReLU, the client took several
            steps, or no answer passes.
    """
    limits = checked_limits("spear", draws, seconds)
    return whole_batch(view, auxiliary, generator, limits=limits, resume=resume)


def whole_batch(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    limits: Limits,
    resume: str = "",
    learn: bool = False,
) -> Float[Tensor, "n *shape"]:
    """Return all inputs of the batch; see `spear`.

    Args:
        view: One client's observations.
        auxiliary: The architecture.
        generator: Of the search.
        limits: Of the search.
        resume: A folder, or nothing.
        learn: Whether directions are learned as a dictionary before rows are drawn.

    Raises:
        ValueError: As `spear`.
    """
    check_inputs(view, auxiliary)
    latest, shape = view.latest, input_shape(auxiliary)
    gradient, sent = batch_gradient(latest, auxiliary), weights(latest, auxiliary)
    layer = first_linear(auxiliary.model, shape)
    after = follows(auxiliary.model, layer, shape)
    if after != "ReLU":
        raise NotApplicable(f"{layer}: ReLU must follow, got {after}")
    names = f"{layer}.weight", f"{layer}.bias"
    rows, weight = (_beside(values[names[0]], values[names[1]]) for values in (gradient, sent))
    path = _path(resume, rows) if resume else None
    earlier = _earlier(path, len(rows))
    if earlier is not None:  # other draws than before
        seed = int(torch.randint(2**62, (1,), generator=generator))
        generator = derived(seed, "resumed", earlier[1])
        limits = replace(limits, draws=limits.draws + earlier[1])
    try:
        answer = batch(
            rows, weight, batch_size(latest), generator, limits=limits, earlier=earlier, learn=learn
        )
    except UnfinishedError as unfinished:
        if path is not None:
            tensors = {"inactive": unfinished.inactive.to(torch.uint8)}
            save_tensors(path, tensors, {"draws": unfinished.draws})
        raise
    inputs = answer.inputs.view(-1, *shape)
    if reason := _unlike(answer, inputs, names[1], workspace(view, auxiliary)):
        warnings.warn(f"not certified by the later layers: {reason}", Remark, stacklevel=2)
    return inputs


def checked_limits(name: str, draws: int, seconds: float) -> Limits:
    """Return the limits of a search, or refuse them.

    Raises:
        NotApplicable: An option is out of range.
    """
    if draws < 1 or not seconds >= 0:
        raise NotApplicable(
            f"{name}: draws must be at least 1 and seconds at least 0, got {draws}, {seconds:g}"
        )
    return Limits(draws=draws, seconds=seconds)


def _unlike(
    answer: Batch, inputs: Float[Tensor, "n *shape"], bias: str, work: Workspace
) -> str | None:
    """Return why inputs are not those of the gradient as far as later layers tell, or None.

    The gradient in the layer's bias of one example alone is its column of D, times B.
    """
    local, classes = work.local, work.auxiliary.num_classes
    try:
        model = precise(work)
    except NotApplicable as reason:
        return str(reason)
    count = len(inputs)
    labels = torch.arange(classes).repeat(count)
    targets = one_hot(labels, classes, torch.float64)
    targets = targets * (1 - local.label_smoothing) + local.label_smoothing / classes
    each = inputs.repeat_interleave(classes, dim=0)[:, None]
    rows = Rows(model, dict(model.state_dict()), [bias])
    (gradients,) = rows.gradients(each, targets[:, None], differentiable=False)
    away = gradients.view(count, classes, -1) / count - answer.slopes.T[:, None]
    length = answer.slopes.norm(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
    worst = float((away.norm(dim=2) / length[:, None]).amin(dim=1).max())
    if worst <= FITS:
        return None
    return f"an input's slopes must be those of one label, got {worst:.0%} off at best"


def _beside(weight: Float[Tensor, "units n"], bias: Float[Tensor, " units"]) -> Tensor:
    return torch.cat([weight, bias[:, None]], dim=1)


def _path(folder: str, rows: Tensor) -> Path:
    """Return where a gradient's unfinished search is kept."""
    digest = hashlib.sha256(rows.contiguous().numpy().tobytes()).hexdigest()[:32]
    return Path(folder) / f"{digest}.safetensors"


def _earlier(path: Path | None, units: int) -> tuple[Bool[Tensor, "k units"], int] | None:
    """Return what an unfinished search of the gradient left, if any."""
    if path is None or not path.exists():
        return None
    file = TensorFile(path)
    inactive, draws = file["inactive"].bool(), int(file.metadata["draws"])
    if inactive.ndim != 2 or inactive.shape[1] != units:
        raise NotApplicable(
            f"resume: {path.name} must be of this layer, got {tuple(inactive.shape)}"
        )
    return inactive, draws


ATTACKS = (
    Attack(
        name="spear",
        family="reconstruction",
        on_device=True,
        infer=spear,
        summary="a whole batch behind a fully connected ReLU layer, exact",
        has_twin=False,
    ),
)
