"""`fedsim deploy`: a federation between real machines, from its keys to its run folder."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fedsim.core.errors import RunStopped

app = typer.Typer(help="Run a federation between real machines.", no_args_is_help=True)
out = Console(highlight=False)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The deployment's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


@app.command()
def init(
    folder: Folder,
    *,
    nodes: Annotated[int, typer.Option(help="Clients, each with a machine and a key.")],
    host: Annotated[
        str, typer.Option(help="The SuperLink's machine, as nodes reach it.")
    ] = "localhost",
    port: Annotated[int, typer.Option(help="The SuperLink's.")] = 9100,
    node_port: Annotated[
        list[int] | None, typer.Option(help="A node's own, on its loopback; once per node.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the connection in `flwr run . NAME`.")] = "fedsim",
    days: Annotated[int, typer.Option(help="How long the certificate is valid.")] = 365,
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
    out.print(f"Written  {folder}: superlink/, {', '.join(made.nodes)}", soft_wrap=True)
    out.print(f"Listens  {made.address}, on {where}", soft_wrap=True)
    out.print("Secret   ca.key, superlink/server.key, and each node's node.key", soft_wrap=True)
    out.print(f"Next     fedsim deploy check {folder}", soft_wrap=True)


@app.command()
def check(
    folder: Folder,
    *,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of the run; the deployment's without.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify a deployment, or the folder of one role, before anything starts."""
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
    out.print(f"Next     {start}", soft_wrap=True)


@app.command()
def run(
    folder: Folder,
    *,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of the run; the deployment's without.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
    ] = None,
    app_: Annotated[
        Path | None, typer.Option("--app", help="Folder of a full app; the thin one without.")
    ] = None,
    out_: Annotated[
        Path | None, typer.Option("--out", help="Fetch the run folder to this new folder.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this run folder of the SuperLink's machine.")
    ] = None,
    ssh: Annotated[
        str | None,
        typer.Option(metavar="USER@HOST", help="The SuperLink's machine, if not this one."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Start the run, follow it, and fetch its folder."""
    from fedsim import config as configs
    from fedsim.deploy import run as running
    from fedsim.deploy.layout import read

    made = read(folder)
    running.check_target(out_, ssh)
    asked = config or folder / "run.toml"
    if resume is None and ssh is None:
        configs.read(asked, set_ or ())  # what is wrong is said before anything starts
    there = resume.absolute() if resume else running.new_folder(folder, remote=ssh is not None)
    running.await_superlink(made.port)
    with running.flower(made, folder) as flwr:
        run_id = running.start(
            flwr, there, app=app_ or folder / "app", config=asked, settings=set_ or (),
            resume=resume is not None,
        )  # fmt: skip
        if not as_json:
            out.print(f"Run      {run_id} → {there}", soft_wrap=True)

        def told(round_: int) -> None:
            if not as_json:
                out.print(f"round    {round_}", markup=False)

        try:
            running.follow(flwr, run_id, there, on_round=told)
        except RunStopped as error:
            hint = f"\ngo on with: fedsim deploy run {folder} --resume {there}"
            raise RunStopped(f"{error}{hint if running.finished(there) else ''}") from None
    here = running.fetch(there, out_, ssh=ssh)
    if as_json:
        out.print_json(
            data={"run": run_id, "status": running.COMPLETED, "folder": str(here), **_facts(here)}
        )
        return
    for key, value in _facts(here).items():
        out.print(f"{key:<8} {value}", markup=False, soft_wrap=True)
    out.print(f"Report   {here / 'report.html'}", soft_wrap=True)
    out.print(f"Next     fedsim attack {here} --with llg     or open the report", soft_wrap=True)


def _facts(here: Path) -> dict[str, Any]:
    """Return what is worth saying of a run at its end."""
    from fedsim.run.run_folder import RunFolder

    rows = RunFolder(here).metrics().to_pylist()
    of = lambda metric: [row for row in rows if row["metric"] == metric]
    accuracy = [row["value"] for row in of("accuracy")]
    return {
        "uploads": len(of("update_norm")),
        "failures": len(of("failed")),
        "accuracy": accuracy[-1] if accuracy else None,
    }
