"""What the user of somebody else's Flower app says of it, because its recording does not."""

from dataclasses import asdict, dataclass
from typing import Any

from fedsim.core.paths import user_path

LOCAL = ("lr", "batch_size", "epochs", "momentum", "label_smoothing")
PATHS = ("auxiliary_root", "truth")
OF_THE_TAPE = ("arrays", "head_weight", "head_bias")  # compared with the tape before they are kept


@dataclass(frozen=True, kw_only=True)
class App:
    """What a recording does not say of the app that made it; None where it is not given (again).

    Attributes:
        model: `package.module:Class` or function of the architecture; of another framework's
            model, a twin in torch.
        num_classes: Number of labels.
        lr: Of the clients' SGD; this, and how they batch, decides what uploaded weights mean.
        batch_size: Of the clients.
        epochs: Of the clients, per round.
        momentum: Of the clients' SGD.
        label_smoothing: Of the clients' loss.
        optimizer: Of the clients; attacks read weights as trained by SGD, whatever it is.
        input_shape: Shape of one example; found where a single usual size of image fits.
        vocabulary: Number of token ids, of a model of texts; 0 pads, 1 begins a text, 2 ends it.
        task: What a model of texts learns: "label", or "next" for the next token.
        arrays: Which array on tape is which of the model's: a TOML file, or "in-order" to take
            those of one shape as they stand. By default shapes and order must decide it.
        head_weight: Name on tape of the last layer's weight, in place of a model.
        head_bias: Of its bias.
        auxiliary: The adversary's own examples: a data set's name or `package.module:function`.
        auxiliary_root: Its folder.
        auxiliary_limit: How many of its training rows.
        truth: Folder of the clients' ground truth.
    """

    model: str | None = None
    num_classes: int | None = None
    lr: float | None = None
    batch_size: int | None = None
    epochs: int | None = None
    momentum: float | None = None
    label_smoothing: float | None = None
    optimizer: str | None = None
    input_shape: tuple[int, ...] | None = None
    vocabulary: int | None = None
    task: str | None = None
    arrays: str | None = None
    head_weight: str | None = None
    head_bias: str | None = None
    auxiliary: str | None = None
    auxiliary_root: str | None = None
    auxiliary_limit: int | None = None
    truth: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What is given, by its key in the config."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        for name in PATHS:
            if name in given:
                given[name] = str(user_path(name, given[name]).absolute())
        return {key_of(name): value for name, value in given.items() if name not in OF_THE_TAPE}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is given."""
        return self == App()


def key_of(name: str) -> str:
    """Return where the config keeps what is said of an app."""
    if name == "model":
        return "model.name"
    return f"{'local' if name in LOCAL else 'foreign'}.{name}"


def flag_of(name: str) -> str:
    """Return the option of the command line."""
    return f"--{'local-' * (name in (*LOCAL, 'optimizer'))}{name.replace('_', '-')}"
