"""Local training of many clients at once: their weights stacked, one step for all clients.

In: what each client was sent, and the batches of its steps. Out: what `clients.train.train` gives
for each of them; the floats differ by rounding. `fedsim.models.batching` says which models allow
it. Clients of a run train so, and those that an adversary rehearses. It runs where the model is. A
chain of layers takes stacked weights itself; any other model goes through `vmap`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from fedsim.core.blocks import PLAIN, Block
from fedsim.core.devices import CPU, device_of, here, moved, on
from fedsim.core.form import IGNORED
from fedsim.core.sgd import Descent, gradients
from fedsim.core.types import LocalTraining, Params
from fedsim.models.chain import Chain, chain_of
from fedsim.models.pooling import FastPooling
from fedsim.models.trial import changed


class OneByOne(Exception):
    """Clients cannot train together; says why."""


def train_together(
    model: nn.Module,
    sent: Sequence[Params],
    inputs: Num[Tensor, "n *shape"],
    labels: Int[Tensor, "n *target"],
    steps: Sequence[Sequence[Int[Tensor, " _"]]],
    local: LocalTraining,
    *,
    mixes: bool,
) -> list[Params]:
    """Train clients with given batches, all at the same time.

    Args:
        model: The architecture; its weights are not used.
        sent: The state that each was sent, buffers included.
        inputs: The examples of all.
        labels: Their labels, or their targets at each position.
        steps: For each client the rows of the examples of each of its steps, none empty.
        local: Optimizer, learning rate, momentum, FedProx's pull, what to upload.
        mixes: As in `Batching`.

    Returns:
        The state that each uploads, where the caller computes; rows of a block where its types
        allow it.

    Raises:
        OneByOne: A buffer moved.
    """
    home = here()
    with on(device_of(model)):
        return _trained(model, sent, inputs, labels, steps, local, mixes=mixes, home=home)


def _trained(
    model: nn.Module,
    sent: Sequence[Params],
    inputs: Tensor,
    labels: Tensor,
    steps: Sequence[Sequence[Tensor]],
    local: LocalTraining,
    *,
    mixes: bool,
    home: torch.device,
) -> list[Params]:
    """Train clients where the model is, and move what they upload home.

    Other arguments as in `train_together`.
    """
    # So that at each step those whose batches are of one size are mostly side by side.
    size = lambda client: (len(steps[client]), steps[client][-1].shape[0])
    order = sorted(range(len(steps)), key=size, reverse=True)
    state, block = _stacked(model, [sent[client] for client in order])
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    moving = {name: state[name] for name in names}
    still = {name: value for name, value in state.items() if name not in moving}
    before = {name: value.clone() for name, value in still.items()}
    losses = _Losses(model.train(), local, still, chain_of(model))

    def at(number: int) -> Iterator[tuple[slice, Sequence[Tensor]]]:
        """Yield the slopes of the clients that have so many steps; they come first."""
        batches = [steps[client][number] for client in order if len(steps[client]) > number]
        return losses.slopes(moving, _groups(batches, mixes=mixes), inputs, labels)

    if local.upload == "gradient":
        for rows, slopes in at(0):  # in the place of weights that nobody needs any more
            for name, slope in zip(names, slopes, strict=True):
                moving[name][rows] = slope
    else:
        descent = Descent(list(moving.values()), local)
        for number in range(len(steps[order[0]])):
            for rows, slopes in at(number):
                descent.step(slopes, rows, before=number)
    if odd := changed(before, still, before):
        raise OneByOne(f"{odd[0]} moves while the model trains")
    uploads = dict(zip(order, _rows(state, block, home), strict=True))
    return [uploads[client] for client in range(len(steps))]


def _stacked(model: nn.Module, sent: Sequence[Params]) -> tuple[Params, Block | None]:
    """Return the clients' states in one, as the model's: a row for each client.

    With them is the block that they lie in, if they do.
    """
    like, count = model.state_dict(), len(sent)
    if device_of(model) == CPU and PLAIN.issuperset(value.dtype for value in like.values()):
        block = Block(like, count)
        for name, rows in block.stacked.items():
            if all(each is sent[0] for each in sent):
                rows.copy_(sent[0][name])
            else:
                torch.stack([each[name].to(rows.dtype) for each in sent], out=rows)
        return block.stacked, block
    stacked = {n: torch.stack([each[n].to(v.dtype) for each in sent]) for n, v in like.items()}
    return {name: moved(value, like[name].device) for name, value in stacked.items()}, None


def _rows(state: Params, block: Block | None, home: torch.device) -> Iterator[Params]:
    """Yield the state of each client; what lies in no block is moved home."""
    if block is not None:
        yield from map(block.row, range(block.count))
        return
    for part in zip(*(moved(value, home).unbind() for value in state.values()), strict=True):
        yield dict(zip(state, part, strict=True))


@dataclass(frozen=True)
class _Group:
    """Batches that go through the model together, filled up to one size.

    Attributes:
        places: Whose, among the clients that take the step, in ascending order.
        rows: Rows of their examples, shape (k, b); what fills up is an example of the same batch.
        shares: What each example counts in its client's loss; 0 for what fills up.
    """

    places: Sequence[int]
    rows: Int[Tensor, "k b"]
    shares: Float[Tensor, "k b"]


def _groups(batches: Sequence[Int[Tensor, " _"]], *, mixes: bool) -> Iterator[_Group]:
    """Put batches of one size together, or of sizes up to the same power of two, filled up."""
    by_size: dict[int, list[int]] = {}
    for place, batch in enumerate(batches):
        size = batch.shape[0]
        by_size.setdefault(size if mixes else (size - 1).bit_length(), []).append(place)
    for places in by_size.values():
        group = [batches[place] for place in places]
        device = group[0].device  # the examples': only those of the group leave it
        counts = [batch.shape[0] for batch in group]
        sizes = torch.tensor(counts, device=device)
        present = torch.arange(max(counts), device=device) < sizes.unsqueeze(1)
        rows = pad_sequence(list(group), batch_first=True)
        rows = rows.where(present, rows[:, :1])
        shares = present.double() / sizes.unsqueeze(1)
        yield _Group(places, rows, shares)


def _runs(places: Sequence[int]) -> list[slice]:
    """Return ascending places as slices of neighbours."""
    starts = [i for i, place in enumerate(places) if i == 0 or place != places[i - 1] + 1]
    ends = [*starts[1:], len(places)]
    return [slice(places[i], places[j - 1] + 1) for i, j in zip(starts, ends, strict=True)]


@dataclass(frozen=True)
class _Losses:
    """The clients' losses as functions of stacked weights.

    Attributes:
        model: While it trains.
        local: The protocol.
        still: What else is in the clients' states, a row for each client.
        chain: The model as a chain, if it is one.
    """

    model: nn.Module
    local: LocalTraining
    still: Params
    chain: Chain | None

    def slopes(
        self, moving: Params, groups: Iterator[_Group], inputs: Tensor, labels: Tensor
    ) -> Iterator[tuple[slice, Sequence[Tensor]]]:
        """Yield the gradients of the clients' mean losses, with the rows of the weights' they are.

        Args:
            moving: The trainable weights, a row for each client.
            groups: The clients' batches.
            inputs: The examples of all.
            labels: Their labels.
        """
        for group in groups:
            runs = _runs(group.places)
            rows = runs[0] if len(runs) == 1 else torch.tensor(group.places)  # a slice is no copy
            device = device_of(next(iter(moving.values())))
            weights = {n: value[rows].detach().requires_grad_() for n, value in moving.items()}
            still = {name: value[rows] for name, value in self.still.items()}
            shares = group.shares if device.type != "mps" else group.shares.float()  # no float64
            examples = moved((inputs[group.rows], labels[group.rows], shares), device)
            if self.chain is not None and examples[0].is_floating_point():
                losses = self._of_chain(self.chain, {**still, **weights}, *examples)
            else:
                with FastPooling():
                    losses = vmap(self._loss)(weights, still, *examples)
            slopes = gradients(losses.sum(), weights)
            sizes = [run.stop - run.start for run in runs]
            yield from zip(runs, zip(*(it.split(sizes) for it in slopes), strict=True), strict=True)

    def _of_chain(
        self, chain: Chain, weights: Params, inputs: Tensor, labels: Tensor, shares: Tensor
    ) -> Tensor:
        """Return what each example counts in its client's mean loss."""
        losses = functional.cross_entropy(
            chain(weights, inputs).flatten(0, 1),
            labels.flatten(),
            label_smoothing=self.local.label_smoothing,
            reduction="none",
        )
        return losses * shares.flatten().to(losses.dtype)

    def _loss(
        self,
        weights: Mapping[str, Tensor],
        still: Mapping[str, Tensor],
        inputs: Tensor,
        labels: Tensor,
        shares: Tensor,
    ) -> Tensor:
        """Return one client's mean loss."""
        logits = functional_call(self.model, {**still, **weights}, (inputs,))
        smoothing = self.local.label_smoothing
        losses = functional.cross_entropy(
            logits, labels, label_smoothing=smoothing, reduction="none"
        )
        if losses.ndim == 1:
            return (losses * shares.to(losses.dtype)).sum()
        counted = (labels != IGNORED) & (shares > 0).unsqueeze(1)  # a mean over targets
        return (losses * counted).sum() / counted.sum()
