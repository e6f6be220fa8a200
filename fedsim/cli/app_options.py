"""Options that describe somebody else's Flower app: its recording does not say these things."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsim.cli.options import parse_shape

if TYPE_CHECKING:
    from fedsim.federation.foreign import App

PANEL = "For another app's recording (saved in its config.toml, so give them once)"
PREFIX = "local_"


def _about_app(flag: str, text: str, **options: Any) -> Any:
    """Return an option that describes another app."""
    return typer.Option(flag, help=text, rich_help_panel=PANEL, **options)


@dataclass(frozen=True, kw_only=True)
class AppOptions:
    """An option for each attribute of `fedsim.federation.foreign.App`."""

    model: Annotated[
        str | None, _about_app("--model", "Architecture of the model.", metavar="MODULE:NAME")
    ] = None
    num_classes: Annotated[int | None, _about_app("--num-classes", "Number of labels.")] = None
    local_lr: Annotated[
        float | None, _about_app("--local-lr", "Learning rate of the clients' SGD.")
    ] = None
    local_batch_size: Annotated[
        int | None, _about_app("--local-batch-size", "Batch size of the clients.")
    ] = None
    local_epochs: Annotated[
        int | None, _about_app("--local-epochs", "Local epochs per round (1 if omitted).")
    ] = None
    local_momentum: Annotated[
        float | None, _about_app("--local-momentum", "Momentum of the SGD (0 if omitted).")
    ] = None
    local_label_smoothing: Annotated[
        float | None,
        _about_app("--local-label-smoothing", "Label smoothing of the loss (0 if omitted)."),
    ] = None
    local_optimizer: Annotated[
        str | None,
        _about_app(
            "--local-optimizer",
            "Optimizer of the clients (sgd if omitted). Attacks read every upload as SGD's.",
            metavar="NAME",
        ),
    ] = None
    head_weight: Annotated[
        str | None,
        _about_app(
            "--head-weight",
            "Array on tape that is the last layer's weight, in place of --model.",
            metavar="NAME",
        ),
    ] = None
    head_bias: Annotated[
        str | None,
        _about_app("--head-bias", "Array on tape that is its bias.", metavar="NAME"),
    ] = None
    arrays: Annotated[
        str | None,
        _about_app(
            "--arrays",
            "Which array on tape is which of the model's: a TOML file, or in-order.",
            metavar="FILE",
        ),
    ] = None
    input_shape: Annotated[
        str | None,
        _about_app(
            "--input-shape",
            "Shape of one example (may be omitted if only one size fits the model).",
            metavar="CxHxW",
        ),
    ] = None
    vocabulary: Annotated[
        int | None, _about_app("--vocabulary", "Number of token ids, of a model of texts.")
    ] = None
    task: Annotated[
        str | None,
        _about_app(
            "--task",
            "What a model of texts learns: label, or next for the next token (label if omitted).",
            metavar="TASK",
        ),
    ] = None
    auxiliary: Annotated[
        str | None,
        _about_app(
            "--auxiliary",
            "The adversary's own examples: a data set or MODULE:FUNCTION.",
            metavar="NAME",
        ),
    ] = None
    auxiliary_root: Annotated[
        str | None, _about_app("--auxiliary-root", "Folder of that data set.", metavar="DIR")
    ] = None
    auxiliary_limit: Annotated[
        int | None, _about_app("--auxiliary-limit", "Number of its examples (all if omitted).")
    ] = None
    truth: Annotated[
        str | None,
        _about_app("--truth", "Ground truth for grading, saved by mods.keep_truth.", metavar="DIR"),
    ] = None

    def app(self) -> "App":
        """Return what is said of the app.

        Raises:
            ConfigError: The input shape is none.
        """
        from fedsim.federation.foreign import App

        given = {name.removeprefix(PREFIX): value for name, value in asdict(self).items()}
        if self.input_shape is not None:
            given["input_shape"] = parse_shape(self.input_shape, "--input-shape")
        return App(**given)
