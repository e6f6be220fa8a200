"""`fedsim watch`: a look at a Flower app before it runs, and the two lines that record it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsim.cli.assumptions import SGD
from fedsim.cli.console import out, print_line, print_next
from fedsim.cli.options import Json

if TYPE_CHECKING:
    from fedsim.federation.foreign.look import Look

TAPE = "/abs/runs/mine"


def watch(
    app_dir: Annotated[
        Path, typer.Argument(metavar="APP_DIR", help="Folder of the app's pyproject.toml.")
    ],
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

    Files are read. Only the module of the model is imported, and the model is built once.
    """
    from adversary.attacks import ATTACKS
    from fedsim.federation.foreign.look import NEVER, applicable, look

    app = look(app_dir, model, run=not no_import)
    groups = applicable(app)
    lines, command = lines_of(app), command_of(app)
    if as_json:
        out.print_json(data=_facts(app) | {"attacks": groups, "add": lines, "next": command})
        return
    for head, value in _facts(app).items():
        print_line(head.capitalize(), ", ".join(value) if isinstance(value, list) else value)
    for group, names in groups.items():
        shown = names if group != NEVER else dict.fromkeys(ATTACKS[name].family for name in names)
        print_line("Attacks", f"{group}: {', '.join(shown)}")
    for text in warnings_of(app):
        out.print(text, style="yellow", soft_wrap=True)
    out.print()
    print_line("Add", place_of(app))
    for line in () if app.recorded else lines:
        out.print(f"           {line}", soft_wrap=True)
    print_next(command)


def place_of(app: "Look") -> str:
    """Return where the two lines go."""
    if app.recorded:
        return "nothing; a recorder is in place"
    if not app.recordable:
        return "nothing; no strategy was found to record around"
    call = app.workflow or app.start
    if call is None:
        return "where the ServerApp has made its strategy:"
    if app.workflow is None and not _is_variable(given := _given(app)):
        return f"to {call.path}, line {call.line}, with the second line in place of {given}:"
    return f"to {call.path}, before line {call.line}:"


def _given(app: "Look") -> str:
    """Return the strategy that is handed over, as source text."""
    if app.start is None:
        return "strategy"
    return str(app.start.values.get("strategy", app.start.owner))


def _is_variable(text: str) -> bool:
    return text.replace(".", "_").isidentifier()


def lines_of(app: "Look") -> list[str]:
    """Return the two lines that record the app; none where there is nothing to record around."""
    if not app.recordable:
        return []
    name = app.chosen.partition(":")[2] if app.chosen else ""
    names = f"names=list({name}().state_dict())" if name else ""
    if app.workflow is not None:
        grid = app.workflow.arguments[0]
        names = names or "names=[<NAMES OF THE ARRAYS>]"
        return [
            "from strategies.secagg_plus import SecAggPlusRecording",
            f'{grid} = SecAggPlusRecording({grid}, tape="{TAPE}", {names})',
        ]
    given = _given(app)
    target = f"{given} = " if _is_variable(given) else ""
    if not app.legacy:
        return [
            "from strategies import Recording",
            f'{target}Recording({given}, tape="{TAPE}")',
        ]
    names = f", {names}" if names else ""
    return [
        "from strategies.legacy import LegacyRecording",
        f'{target}LegacyRecording({given}, tape="{TAPE}"{names})',
    ]


def command_of(app: "Look") -> str:
    """Return the command that attacks the tape, with what is left to fill in as <…>."""
    if not app.recordable:
        return "none: there will be no tape"
    if app.trees:
        return "none: no attack reads trees yet"
    if app.model is not None and not app.model.labels:
        return "none: no label attack applies to this model"
    parts = [f"fedsim attack {TAPE}", *_model_options(app)]
    used = app.optimizers[0] if app.optimizers else None
    parts += [f"--local-lr {used.lr if used and used.lr else '<LR>'} --local-batch-size <N>"]
    if used and used.momentum:
        parts += [f"--local-momentum {used.momentum}"]
    if used and used.name != SGD:
        parts += [f"--local-optimizer {used.name}"]
    return " ".join([*parts, "--with llg,llbg"])


def _model_options(app: "Look") -> list[str]:
    """Return how the command names the model, or its head."""
    if app.model is not None:
        options = [f"--model {app.model.name} --num-classes {app.model.num_classes or '<C>'}"]
        return [*options, *(["--input-shape <CxHxW>"] * (app.model.input_shape is None))]
    if app.chosen and not app.reason:  # it was not to be built
        return [f"--model {app.chosen} --num-classes <C>"]
    return ["--head-weight <NAME> --head-bias <NAME>"]


def warnings_of(app: "Look") -> list[str]:
    """Return what the user must know before the run."""
    texts = list(app.shadows)
    if not app.recordable:
        texts.append(
            "No strategy of Flower's was found. A recorder stands around a strategy; what a "
            "ServerApp sends by itself through the Grid is not recorded."
        )
    else:
        texts += _warnings_of_server(app)
        texts += _warnings_of_clients(app)
    return texts + [f"Not read: {text}" for text in app.code.unread[:3]]


def _warnings_of_server(app: "Look") -> list[str]:
    texts = []
    if others := [f"{call.path}:{call.line}" for call in app.starts[1:]]:
        texts.append(
            f"A strategy is handed over in other places, too ({', '.join(others)}): each needs "
            "such a line, and a tape of its own."
        )
    if app.workflow is not None:
        texts.append(
            "Secure aggregation: the tape has the mean of each round's clients, and no client's "
            "own upload."
        )
    return texts


def _warnings_of_clients(app: "Look") -> list[str]:
    if app.trees:
        return [
            f"{app.trees} sends trees as bytes: the tape keeps what is sent, and no attack reads "
            "trees."
        ]
    texts = []
    if not app.optimizers:
        texts.append(
            "The clients' optimizer was not found; attacks read uploads as plain SGD. Name another "
            "by --local-optimizer."
        )
    elif app.optimizers[0].name != SGD:
        texts.append(
            f"Clients run {app.optimizers[0].name}; attacks read uploads as plain SGD. A value "
            "near the blind guess does not show protection."
        )
    if "peft" in app.frameworks:
        texts.append(
            "Adapters of peft may be all that clients send. A label attack applies only if the "
            "last layer is sent. Texts are read off adapters by span-pursuit: give --model, "
            "--vocabulary, --num-classes, --input-shape and --task next."
        )
    if app.reason:
        texts.append(
            f"The model was not built: {app.reason}. Label attacks need only the last layer: give "
            "its arrays by --head-weight and --head-bias."
        )
    elif app.model is not None and not app.model.labels:
        texts.append("The model gives no logits of a linear layer: no label attack applies.")
    return texts


def _facts(app: "Look") -> dict[str, Any]:
    """Return what was seen, by what it is, as text."""
    api = "legacy API" if app.legacy else "message API"
    made = [f"{call.last} ({call.path}:{call.line})" for call in app.strategies]
    if not made and app.start is not None:
        made = [f"{_given(app)} ({app.start.path}:{app.start.line})"]
    optimizers = [f"{it.name} ({it.place})" for it in app.optimizers]
    facts: dict[str, Any] = {
        "app": f"{app.server}, {app.client}",
        "read": f"{len(app.code.files)} files",
        "ran": list(app.ran) or "nothing of the app",
        "strategy": f"{', '.join(made)}; {api}" if made else "none found",
        "clients": f"{', '.join(app.frameworks) or 'no framework found'}; "
        f"{', '.join(optimizers) or 'no optimizer found'}",
        "replies": list(app.replies) or "as Flower's own client makes them",
        "records": _records(app),
    }
    if app.model is not None:
        facts["model"] = _model_text(app)
    return facts


def _model_text(app: "Look") -> str:
    model = app.model
    assert model is not None
    text = f"{model.name}, {model.parameters:,} parameters"
    if model.input_shape is None:
        return f"{text}; not exactly one usual size of image fits"
    text += f", inputs {'x'.join(map(str, model.input_shape))}, {model.num_classes} logits"
    if model.head is None:
        return text
    return f"{text}, head {model.head.weight}, {model.head.bias or 'no bias'}"


def _records(app: "Look") -> str:
    if not app.recordable:
        return "nothing"
    if app.workflow is not None:
        return "what clients are sent, the mean of their uploads, their number of examples"
    return "what each client is sent, every upload as it came, its number of examples"
