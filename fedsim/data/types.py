"""What a data set is: examples, labels, and what is known of each example."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtyping import Float, Int, Num
from numpy.typing import NDArray
from torch import Tensor

from fedsim.core.form import Form
from fedsim.core.schema import Column, Schema, schema_of
from fedsim.core.vocabulary import Vocabulary


@dataclass(frozen=True)
class Attribute:
    """A categorical column that is an input, and how the inputs say each of its values.

    Writing `codes[k]` into the features `columns` of an example gives its twin with `values[k]`.

    Attributes:
        columns: The input features that encode it.
        values: Its categories, by the words that `Dataset.columns` has for them.
        codes: A row per value: what stands in `columns` of an example that has it.
    """

    columns: tuple[int, ...]
    values: tuple[str, ...]
    codes: Float[Tensor, "values columns"]


@dataclass(frozen=True)
class Number:
    """A numeric column that is an input; the number is mean + deviation · input.

    Attributes:
        feature: The input that holds it.
        mean: What an input of 0 stands for.
        deviation: What an input of 1 adds to it.
        whole: Whether the column holds whole numbers only.
    """

    feature: int
    mean: float = 0.0
    deviation: float = 1.0
    whole: bool = False


Task = Literal["next", "label"]


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Examples that are texts; a tokeniser of the adversary's share makes token ids of them.

    Attributes:
        texts: Of the training rows.
        labels: The class of each; 0 for all where there are no classes.
        test_texts: Of the test rows.
        test_labels: Their classes.
        num_classes: How many classes.
        columns: As in `Dataset`.
        length: The most tokens of an input; longer texts are cut.
        vocabulary: The most token ids.
        tokeniser: "bpe" (byte pairs), "bytes", "words", or the `tokeniser.json` of a run.
        task: What is learned: the "next" token, or the "label".
    """

    texts: Sequence[str]
    labels: Int[Tensor, " n"]
    test_texts: Sequence[str]
    test_labels: Int[Tensor, " m"]
    num_classes: int
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    length: int = 32
    vocabulary: int = 1024
    tokeniser: str = "bpe"
    task: Task = "next"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Examples and labels; images are (channels, height, width) in [0, 1], texts are token ids.

    Attributes:
        columns: A value per *training* row, by name; a partition by user takes its ids here.
        attributes: The categorical columns among the inputs, by name.
        numbers: The numeric columns among the inputs, by name.
        vocabulary: What token ids stand for; None where inputs are no tokens.
        targets: The next token at each position, −100 where there is none; None where the target
            of training is the label. `num_classes` is then the size of the vocabulary, and labels
            decide only how rows are dealt to clients.
        test_targets: Those of the test rows.
        remarks: What a user should be told of them, a sentence each.
    """

    inputs: Num[Tensor, "n *shape"]
    labels: Int[Tensor, " n"]
    test_inputs: Num[Tensor, "m *shape"]
    test_labels: Int[Tensor, " m"]
    num_classes: int
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    numbers: Mapping[str, Number] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None
    targets: Int[Tensor, "n t"] | None = None
    test_targets: Int[Tensor, "m t"] | None = None
    remarks: Sequence[str] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.inputs.shape[1:])

    @property
    def form(self) -> Form:
        """What a model must take and give."""
        return Form(
            self.input_shape,
            self.num_classes,
            self.inputs.dtype,
            None if self.vocabulary is None else len(self.vocabulary),
            self.targets is not None,
        )

    @property
    def schema(self) -> Schema | None:
        """What each input stands for; None unless attributes and numbers take each input once."""
        columns = [
            *(Column(n, it.columns, it.values, it.codes) for n, it in self.attributes.items()),
            *(
                Column(n, (it.feature,), mean=it.mean, deviation=it.deviation, whole=it.whole)
                for n, it in self.numbers.items()
            ),
        ]
        return schema_of(columns, self.inputs.shape[1]) if self.inputs.ndim == 2 else None

    @property
    def y(self) -> Int[Tensor, "n *t"]:
        """What the loss of training takes: targets if there are any, else labels."""
        return self.labels if self.targets is None else self.targets

    @property
    def test_y(self) -> Int[Tensor, "m *t"]:
        """What the loss on the test rows takes."""
        return self.test_labels if self.test_targets is None else self.test_targets
