"""Auxiliary examples along a client's local training: their shares at several steps."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.labels.covariances import class_means
from adversary.labels.head import Forward, auxiliary_forward
from adversary.labels.moments import Moments, Sketch, measure, residuals
from adversary.labels.reading import end_forward, steps_per_client
from adversary.labels.trajectory import followed, path, simulate, start_of
from adversary.workspace import Workspace
from fedsim.core.types import Observation

POINTS = 8  # local steps at which shares are taken


@dataclass(frozen=True)
class Trace:
    """Auxiliary examples along a client's local training.

    Attributes:
        observation: The client's.
        work: With auxiliary inputs and labels.
        rows: Those that are followed; None for all.
        end: What the uploaded model makes of their inputs.
        basis: How shares are sketched.
        start: Moments at the model sent, of all auxiliary examples.
    """

    observation: Observation
    work: Workspace
    rows: Int[Tensor, " rows"] | None
    end: Forward
    basis: Sketch
    start: Moments

    def following(self, counts: Float[Tensor, " classes"]) -> "Trace":
        """Return the trace of the examples to follow if the client's counts are these."""
        if self.rows is None:
            return self
        rows = followed(self._all_labels, counts / counts.sum())
        end = end_forward(self.observation, self.work, self.work.auxiliary.inputs, rows)
        assert end is not None
        return replace(self, rows=rows, end=end)

    def end_moments(self) -> Moments:
        """Return the moments at the model uploaded."""
        return self._measured(self._raw(self.end))

    def moments(self, counts: Float[Tensor, " classes"]) -> Moments:
        """Return the moments of an example's mean share along the way.

        Args:
            counts: Of the client's examples, as far as they are known.
        """
        observation, start = self.observation, self.work.part(start_of)
        steps = steps_per_client(observation)
        shifts = simulate(start, counts / counts.sum(), observation.local, steps)
        logits, smoothing = start.of(self.rows).logits, observation.local.label_smoothing
        along = path(shifts, self.end.logits.double() - logits, POINTS)
        at_start, away = self._projected
        # Shares are linear in the features, which move on a straight way.
        once = moved = torch.zeros(())
        for way, shift in along:
            a = residuals(Forward(self._before.features, logits + shift), self._labels, smoothing)
            once, moved = once + a, moved + way * a
        rows = once.unsqueeze(2) * at_start + moved.unsqueeze(2) * away
        return self._measured(self.basis.joined(rows, once) / len(along))

    def _raw(self, outputs: Forward) -> Float[Tensor, "n coordinates"]:
        return self.basis.raw(outputs, self._labels, self.observation.local.label_smoothing)

    def _measured(self, raw: Float[Tensor, "n coordinates"]) -> Moments:
        classes = self.work.auxiliary.num_classes
        moments = measure(self.basis.scaled(raw), self._labels, classes)
        if self.rows is None:
            return moments
        return replace(moments, means=moments.means + self._rest, counts=self.start.counts)

    @cached_property
    def _before(self) -> Forward:
        """What the model sent makes of the inputs that are followed."""
        outputs = self.work.part(auxiliary_forward)
        if self.rows is None:
            return outputs
        return Forward(outputs.features[self.rows], outputs.logits[self.rows])

    @cached_property
    def _projected(self) -> tuple[Float[Tensor, "n rows dims"], Float[Tensor, "n rows dims"]]:
        """Features under the model sent along the sketch's directions, and how far they move."""
        before = self.basis.projected(self._before.features.double())
        return before, self.basis.projected(self.end.features.double()) - before

    @property
    def _all_labels(self) -> Int[Tensor, " all"]:
        labels = self.work.auxiliary.labels
        assert labels is not None
        return labels

    @cached_property
    def _labels(self) -> Int[Tensor, " n"]:
        return self._all_labels if self.rows is None else self._all_labels[self.rows]

    @cached_property
    def _rest(self) -> Float[Tensor, "kept classes"]:
        """What all examples' means at the model sent have beyond those of the followed."""
        shares = self.basis.scaled(self._raw(self._before))
        return self.start.means - class_means(shares, self._labels, len(self.start.counts)).T


def trace_of(
    observation: Observation,
    work: Workspace,
    basis: Sketch,
    start: Moments,
    counts: Float[Tensor, " classes"],
) -> Trace | None:
    """Return auxiliary examples along a client's local training; None for a single step.

    Args:
        observation: The client's.
        work: With auxiliary inputs and labels.
        basis: How shares are sketched.
        start: Moments at the model sent.
        counts: Of its examples, as far as they are known.

    Raises:
        ValueError: The uploaded model computes NaN or infinity.
    """
    labels = work.auxiliary.labels
    assert labels is not None
    rows = followed(labels, counts / counts.sum())
    end = end_forward(observation, work, work.auxiliary.inputs, rows)
    return None if end is None else Trace(observation, work, rows, end, basis, start)
