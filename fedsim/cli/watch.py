"""`fedsim watch`: a look at a Flower app before it runs, and the two lines that record it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsim.cli.assumptions import SGD
from fedsim.cli.console import out, print_line
from fedsim.cli.options import Json

if TYPE_CHECKING:
    from fedsim.federation.foreign.look import Look

TAPE = "/abs/runs/mine"


def watch(
    app_dir: Path,
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODULE:NAME", help="The app's torch model (found if omitted)."
        ),
    ] = None,
    no_import: Annotated[
        bool, typer.Option("--no-import", help="Run nothing of the app; only read its files.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look at a Flower app before it runs, and print the two lines that record it.

    APP_DIR is the folder of the app's pyproject.toml. Files are read. Only the module of the model
    is imported, and the model is built once.
    """
    from adversary.attacks import ATTACKS
    from fedsim.federation.foreign.look import NEVER, applicable, look

    seen = look(app_dir, model, run=not no_import)
    groups = applicable(seen)
    lines, command = lines_of(seen), command_of(seen)
    if as_json:
        out.print_json(data=_facts(seen) | {"attacks": groups, "add": lines, "next": command})
        return
    for head, value in _facts(seen).items():
        print_line(head.capitalize(), ", ".join(value) if isinstance(value, list) else value)
    for group, names in groups.items():
        shown = names if group != NEVER else dict.fromkeys(ATTACKS[name].family for name in names)
        print_line("Attacks", f"{group}: {', '.join(shown)}")
    for text in warnings_of(seen):
        out.print(text, style="yellow", markup=False, soft_wrap=True)
    out.print()
    where = f"{seen.start.path}, before line {seen.start.line}" if seen.start else "the ServerApp"
    print_line("Add", "nothing; a recorder is in place" if seen.recorded else f"to {where}:")
    for line in () if seen.recorded else lines:
        out.print(f"           {line}", markup=False, highlight=False, soft_wrap=True)
    print_line("Next", command)


def lines_of(seen: "Look") -> list[str]:
    """Return the two lines that record the app."""
    name = "strategy"
    if seen.start is not None:
        given = seen.start.values.get("strategy")
        owner = seen.start.name.rpartition(".")[0].rpartition(".")[2]
        name = owner if seen.start.last == "start" else str(given)
    target = name if name.isidentifier() else "strategy"
    if not seen.legacy:
        return [
            "from strategies import Recording",
            f'{target} = Recording({name}, tape="{TAPE}")',
        ]
    names = ""
    if seen.chosen:
        names = f", names=list({seen.chosen.partition(':')[2]}().state_dict())"
    return [
        "from strategies.legacy import LegacyRecording",
        f'{target} = LegacyRecording({name}, tape="{TAPE}"{names})',
    ]


def command_of(seen: "Look") -> str:
    """Return the command that attacks the tape, with what is left to fill in as <…>."""
    if seen.trees:
        return "none: no attack reads trees yet"
    parts = [f"fedsim attack {TAPE}"]
    if seen.model is not None:
        parts += [f"--model {seen.model.name} --num-classes {seen.model.num_classes or '<C>'}"]
        if seen.model.input_shape is None:
            parts += ["--input-shape <CxHxW>"]
    else:
        parts += ["--head-weight <NAME> --head-bias <NAME>"]
    used = seen.optimizers[0] if seen.optimizers else None
    parts += [f"--local-lr {used.lr if used and used.lr else '<LR>'} --local-batch-size <N>"]
    if used and used.momentum:
        parts += [f"--local-momentum {used.momentum}"]
    if used and used.name != SGD:
        parts += [f"--local-optimizer {used.name}"]
    return " ".join([*parts, "--with llg,llbg"])


def warnings_of(seen: "Look") -> list[str]:
    """Return what the user must know before the run."""
    texts = list(seen.shadows)
    if seen.optimizers and seen.optimizers[0].name != SGD and not seen.trees:
        texts.append(
            f"Clients run {seen.optimizers[0].name}; attacks read uploads as plain SGD. A value "
            "near the blind guess does not show protection."
        )
    if seen.trees:
        texts.append(
            "XGBoost sends trees as bytes: the tape keeps what is sent, and no attack reads trees."
        )
    elif seen.reason:
        texts.append(
            f"The model was not built: {seen.reason}. Label attacks need only the last layer: give "
            "its arrays by --head-weight and --head-bias."
        )
    elif seen.model is not None and seen.model.input_shape and seen.model.head is None:
        texts.append("The model's logits come from no linear layer: no label attack applies.")
    texts += [f"Not read: {text}" for text in seen.code.unread[:3]]
    return texts


def _facts(seen: "Look") -> dict[str, Any]:
    """Return what was seen, by what it is, as text."""
    api = "legacy API" if seen.legacy else "message API"
    strategies = [f"{call.last} ({call.path}:{call.line})" for call in seen.strategies]
    optimizers = [f"{it.name} ({it.place})" for it in seen.optimizers]
    facts: dict[str, Any] = {
        "app": f"{seen.server}, {seen.client}",
        "read": f"{len(seen.code.files)} files",
        "ran": list(seen.ran) or "nothing of the app",
        "strategy": f"{', '.join(strategies) or 'none found'}; {api}",
        "clients": f"{', '.join(seen.frameworks) or 'no framework found'}; "
        f"{', '.join(optimizers) or 'no optimizer found'}",
        "replies": list(seen.replies) or "as Flower's own client makes them",
        "records": "what each client is sent, every upload as it came, its number of examples",
    }
    if seen.model is not None:
        facts["model"] = _model_text(seen)
    return facts


def _model_text(seen: "Look") -> str:
    model = seen.model
    assert model is not None
    text = f"{model.name}, {model.parameters:,} parameters"
    if model.input_shape is None:
        return f"{text}; not exactly one usual size of image fits"
    text += f", inputs {'x'.join(map(str, model.input_shape))}, {model.num_classes} logits"
    if model.head is None:
        return text
    return f"{text}, head {model.head.weight}, {model.head.bias or 'no bias'}"
