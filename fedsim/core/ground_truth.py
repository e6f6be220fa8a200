"""What is true of one client in one round, and what guesses are graded with; no attack reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedsim.core.memory import Memory
from fedsim.core.schema import Schema
from fedsim.core.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Records:
    """What reconstructed records of a table are compared by.

    Attributes:
        schema: What each input stands for.
        tolerances: How far a number may lie from the true one, per column, in units of the inputs.
        auxiliary: Rows of the training set that the adversary has, shape (a,).
    """

    schema: Schema
    tolerances: Tensor
    auxiliary: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Lineup:
    """What a reconstruction is measured by, and told apart from.

    Attributes:
        examples: The training set, shape (N, *input_shape).
        others: Rows of examples that the client did not use, shape (m,).
        blank: What stands for an example without a reconstruction, shape (*input_shape).
        low: Smallest value of each input, shape (*input_shape).
        high: Largest value of each input.
        records: Where examples are records of declared columns.
        lpips: Whether images are compared by LPIPS too.
        memory: What grading computes once; line-ups that share it share its bounds.
    """

    examples: Tensor
    others: Tensor
    blank: Tensor
    low: Tensor
    high: Tensor
    records: Records | None = None
    lpips: bool = False
    memory: Memory = field(default_factory=Memory, repr=False)


@dataclass(frozen=True, eq=False)
class Texts:
    """The distinct texts that a client used, and what of their tokens and words is public.

    Attributes:
        ids: As the model takes them, special tokens included, shape (n, t).
        vocabulary: What ids stand for.
        tokens: The ids that auxiliary texts hold.
        common: The words that auxiliary texts hold (`adversary.grading.texts.words`).
    """

    ids: Tensor
    vocabulary: Vocabulary
    tokens: frozenset[int]
    common: frozenset[str]


@dataclass(frozen=True)
class Truth:
    """Ground truth of one client in one round; only the grader reads it.

    Attributes:
        labels: Labels of every example used, one entry per use, shape (N,); of a language model
            the target tokens of every text used, one entry per use.
        indices: Rows of the training set that were used, one entry per use.
        members: Whether each candidate is among the examples used, shape (m,); None without any.
        classes: Labels of the candidates, shape (m,).
        users: How many of the round's clients used each candidate, shape (m,).
        ranges: Whether an example used lies in each range, shape (r,); None without any.
        range_classes: Labels of the ranges, shape (r,).
        in_set: Whether each record of the client's set was used, shape (s,); None without any.
        secrets: Family of secrets → the class that is true of the examples used.
        attributes: Whether each candidate has the attribute in question, shape (m,).
        inputs: The distinct examples used, shape (n, *input_shape); None where none is asked for.
        lineup: What reconstructions of them are graded with.
        texts: The distinct texts used; None where none is asked for.
        canary: Which canary is among the texts used; None where none is.
        canaries: How many there are.
        uploaders: In place of all of this, for rounds without names: which client, by number, each
            upload is of, in the order of the view, shape (uploads,).
    """

    labels: Tensor
    indices: Tensor
    members: Tensor | None = None
    classes: Tensor | None = None
    users: Tensor | None = None
    ranges: Tensor | None = None
    range_classes: Tensor | None = None
    in_set: Tensor | None = None
    secrets: Mapping[str, int] = field(default_factory=dict)
    attributes: Tensor | None = None
    inputs: Tensor | None = None
    lineup: Lineup | None = None
    texts: Texts | None = None
    canary: int | None = None
    canaries: int = 0
    uploaders: Tensor | None = None
