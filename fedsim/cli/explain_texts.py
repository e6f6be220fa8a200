"""`fedsim explain --vocabulary`: what language models give away of a batch of texts."""

from collections.abc import Sequence

from rich.table import Table

from fedsim import config as configs
from fedsim import explain as explaining
from fedsim.cli.console import out
from fedsim.cli.explained import protocol
from fedsim.core.errors import ConfigError
from fedsim.core.types import LocalTraining


def print_texts(
    names: Sequence[str],
    form: tuple[tuple[int, ...], int],
    local: LocalTraining,
    count: int,
    *,
    settings: Sequence[str],
    as_json: bool,
) -> None:
    """Print what language models reveal about a batch of texts.

    Args:
        names: Of the models.
        form: Shape of a text, and the number of token ids.
        local: How clients train.
        count: Texts of a client.
        settings: More settings of the config.
        as_json: Print JSON.

    Raises:
        ConfigError: The shape is not that of a text.
    """
    shape, vocabulary = form
    if len(shape) != 1:
        raise ConfigError(f"--input: must be a number of tokens with --vocabulary, got {shape}")
    explained = [
        explaining.explain_texts(
            configs.read(None, [f"model={name}", *settings]),
            shape[0],
            vocabulary,
            local,
            num_examples=count,
        )
        for name in names
    ]
    if as_json:
        out.print_json(data={"models": [it.summary() for it in explained]})
        return
    out.print(f"{count} random texts of {shape[0]} tokens. {protocol(local, count, 0.0)}.\n")
    table = Table(box=None, pad_edge=False)
    for head in ("model", "layer", "prefixes", "at most", "above rounding", "verdict"):
        table.add_column(head)
    for it in explained:
        numbers = map(str, (it.prefixes, it.limit, it.singular))
        table.add_row(it.name, it.layer or "–", *numbers, it.verdict)
    out.print(table)
    for it in explained:
        for obstacle in it.obstacles:
            out.print(f"{it.name} · {obstacle}", markup=False)
