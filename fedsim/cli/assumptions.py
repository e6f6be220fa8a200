"""What the command line says beside the numbers of another app's recording."""

from typing import TYPE_CHECKING

from fedsim.cli.console import print_line

if TYPE_CHECKING:
    from rich.console import Console

    from fedsim.config import Config

SGD = "sgd"


def print_assumptions(config: "Config", console: "Console") -> None:
    """Print what attacks took for granted: the arrays, and that clients ran plain SGD."""
    assert config.foreign is not None
    local, foreign = config.local_training(), config.foreign
    if foreign.arrays:
        turned = sum(bool(source.axes) for source in foreign.arrays.values())
        names = ", ".join(f"{name} = {it.name}" for name, it in list(foreign.arrays.items())[:3])
        more = ", …" if len(foreign.arrays) > 3 else ""
        print_line("Arrays", f"{names}{more}; {turned} of {len(foreign.arrays)} transposed")
    if local.upload == "gradient":
        return
    optimizer = (foreign.optimizer or SGD).lower()
    momentum = f", momentum {local.momentum:g}" if local.momentum else ""
    print_line(
        "Assumed",
        f"clients ran plain SGD on the mean cross-entropy (lr {local.lr:g}{momentum}, batches of "
        f"{local.batch_size}, {local.epochs} epoch{'s' * (local.epochs > 1)})",
    )
    if optimizer != SGD:
        console.print(
            f"The clients ran {optimizer}, whose steps are no gradients times lr. A value near the "
            "blind guess does not show that the upload protects anybody.",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
