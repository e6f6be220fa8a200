"""`fedsim deploy`: a federation between real machines, from its keys to its run folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsim.cli.commands import Command
from fedsim.cli.console import attack_line, out, print_line, print_next, quoted
from fedsim.cli.options import Json, Set
from fedsim.cli.unanswered import print_unanswered
from fedsim.core.errors import RunStopped

if TYPE_CHECKING:
    from fedsim.deploy.run import Flower

app = typer.Typer(
    help="Run a federation between real machines.", no_args_is_help=True, rich_markup_mode=None
)

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of the deployment (check: or of one role).")
]
RunConfig = Annotated[
    Path | None, typer.Option(help="TOML config file (the deployment's run.toml if omitted).")
]

FlowerApp = Annotated[
    Path | None,
    typer.Option("--app", help="Folder of a full Flower app (the thin one in DIR if omitted)."),
]


@app.command(cls=Command)
def init(
    folder: Folder,
    *,
    nodes: Annotated[int, typer.Option(help="Number of clients; each has a machine and a key.")],
    host: Annotated[
        str, typer.Option(help="Name or address at which nodes reach the SuperLink's machine.")
    ] = "localhost",
    port: Annotated[int, typer.Option(help="Port of the SuperLink.")] = 9100,
    node_port: Annotated[
        list[int] | None,
        typer.Option(help="Local port of a node; repeat it for each node (chosen if omitted)."),
    ] = None,
    name: Annotated[
        str, typer.Option(help="Name of the connection, for `flwr run . NAME`.")
    ] = "fedsim",
    days: Annotated[int, typer.Option(help="Days for which the certificate is valid.")] = 365,
    as_json: Json = False,
) -> None:
    """Write certificates, keys, start scripts, systemd units and a compose file."""
    from fedsim.deploy.create import create

    made = create(
        folder, nodes=nodes, host=host, port=port, node_ports=node_port, name=name, days=days
    )
    if as_json:
        out.print_json(data={"folder": str(folder), "nodes": made.nodes, "address": made.address})
        return
    where = "this machine alone" if made.is_local else "every interface of its machine"
    print_line("Written", f"{folder}: superlink/, {', '.join(made.nodes)}")
    print_line("Listens", f"{made.address}, on {where}")
    print_line("Secret", "ca.key, superlink/server.key, and node.key of each node")
    print_next(f"fedsim deploy check {quoted(folder)}")


@app.command(cls=Command)
def check(
    folder: Folder,
    *,
    config: RunConfig = None,
    as_json: Json = False,
) -> None:
    """Check a deployment, or the folder of one role, before anything starts."""
    from fedsim.deploy import checks
    from fedsim.deploy.layout import read

    made = read(folder)
    done = []
    for what, look in checks.checks(made, folder, config):
        look()
        done.append(what)
        if not as_json:
            out.print(f"good     {what}", soft_wrap=True)
    if as_json:
        out.print_json(data={"folder": str(folder), "good": done})
        return
    start = checks.next_start(made, folder)
    print_next(start)


@app.command(cls=Command)
def run(
    folder: Folder,
    *,
    config: RunConfig = None,
    set_: Set = None,
    app_: FlowerApp = None,
    out_: Annotated[
        Path | None,
        typer.Option("--out", help="New folder for the run folder (not fetched if omitted)."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue this run folder on the SuperLink's machine.")
    ] = None,
    ssh: Annotated[
        str | None,
        typer.Option(metavar="USER@HOST", help="The SuperLink's machine (this one if omitted)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Start the run, follow it, and fetch its folder."""
    from fedsim import config as configs
    from fedsim.deploy import run as running
    from fedsim.deploy.layout import read

    made = read(folder)
    running.check_target(out_, ssh)
    config_path = config or folder / "run.toml"
    if resume is None and ssh is None:
        configs.read(config_path, set_ or ())  # errors are reported before anything starts
    run_folder = resume.absolute() if resume else running.new_folder(folder, remote=ssh is not None)
    running.await_superlink(made.port)
    with running.flower(made, folder) as flwr:
        run_id = running.start(
            flwr,
            run_folder,
            app=app_ or folder / "app",
            config=config_path,
            settings=set_ or (),
            resume=resume is not None,
        )
        if not as_json:
            out.print(f"Run      {run_id} → {run_folder}", soft_wrap=True)
        try:
            _follow(flwr, run_id, run_folder, quiet=as_json)
        except RunStopped as error:
            hint = f"\ncontinue with: fedsim deploy run {folder} --resume {run_folder}"
            raise RunStopped(f"{error}{hint if running.finished(run_folder) else ''}") from None
    fetched = running.fetch(run_folder, out_, ssh=ssh)
    _print_end(run_id, fetched, as_json=as_json)


def _follow(flwr: "Flower", run_id: str, run_folder: Path, *, quiet: bool) -> None:
    """Print each round as it ends, and what Flower says meanwhile."""
    from fedsim.deploy import run as running

    def show(round_: int) -> None:
        if not quiet:
            out.print(f"round    {round_}")

    def news(sentence: str) -> None:
        if not quiet:
            print_line("", sentence)

    running.follow(flwr, run_id, run_folder, on_round=show, on_news=news)


def _print_end(run_id: str, fetched: Path, *, as_json: bool) -> None:
    """Print the numbers of a run, and where to go on."""
    from fedsim.deploy.run import COMPLETED
    from fedsim.run import outcomes
    from fedsim.run.run_folder import RunFolder

    run_folder, facts = RunFolder(fetched), _facts(fetched)
    answers = outcomes.answers_of(run_folder.ledger())
    if as_json:
        head = {"run": run_id, "status": COMPLETED, "folder": str(fetched)}
        out.print_json(data={**head, **facts, "unanswered": outcomes.as_json(answers)})
        return
    for key, value in facts.items():
        out.print(f"{key:<8} {value}", soft_wrap=True)
    print_unanswered(answers)
    print_line("Report", fetched / "report.html")
    print_next(attack_line(fetched, (part.name for part in run_folder.config.attack)))


def _facts(run_folder: Path) -> dict[str, Any]:
    """Return the numbers to print at the end of a run."""
    from fedsim.core.tables import frame
    from fedsim.run.run_folder import RunFolder

    metrics = frame(RunFolder(run_folder).metrics())
    accuracy = metrics.loc[metrics["metric"] == "accuracy", "value"]
    return {
        "uploads": metrics["metric"].tolist().count("update_norm"),
        "failures": metrics["metric"].tolist().count("failed"),
        "accuracy": accuracy.iloc[-1] if len(accuracy) else None,
    }
