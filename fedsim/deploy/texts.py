"""The texts of a deployment's files: start scripts, systemd units, compose file, app, configs."""

import shlex
from pathlib import Path

import tomli_w

from fedsim import __version__
from fedsim.deploy.layout import SUPERLINK, Deployment

_HEAD = """\
#!/bin/sh
# {what}. Stop it with Ctrl-C, or by its process id.
set -eu
umask 077
here=$(cd "$(dirname "$0")" && pwd)
python=${{PYTHON:-{python}}}
[ -x "$python" ] || python=$(command -v python3)
PATH=$(dirname "$python"):$PATH  # Flower starts its own programs by name
export PATH FLWR_HOME="$here/.flwr" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
"""

_SUPERLINK = """\
exec "$python" -m fedsim.deploy.doors superlink --nodes "$here/nodes" \\
    --host "${{BIND:-{bind}}}" --port {port} \\
    --ssl-ca-certfile "$here/ca.crt" --ssl-certfile "$here/server.pem" \\
    --ssl-keyfile "$here/server.key" --enable-supernode-auth \\
    --disable-runtime-dependency-installation --database "$here/superlink.db" "$@"
"""

_NODE = """\
# CODE=any lets runs bring code of their own (a full app bundle); without it they cannot.
exec "$python" -m fedsim.deploy.doors supernode --code "${{CODE:-own}}" \\
    --superlink "${{SUPERLINK:-{address}}}" --root-certificates "$here/ca.crt" \\
    --auth-supernode-private-key "$here/node.key" --port {port} --node-config "$here/node.toml" "$@"
"""

_UNIT = """\
# cp {unit} /etc/systemd/system/ && systemctl enable --now {unit}
[Unit]
Description=fedsim {role} of {name}
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={start}
Restart=on-failure
RestartSec=5
UMask=0077
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ReadWritePaths={folder}

[Install]
WantedBy=multi-user.target
"""

_NODE_TOML = """\
# What the operator of this node decides. The server neither sees nor changes this file.
partition-id = {number}
num-partitions = {count}

# data-root = "/path/of/this/node's/data"   # in place of the run's data.root
# own-data = true                           # every training row in it is this client's
# defense = '''
# [[defense]]
# name = "clip"
# bound = 1.0
# [[defense]]
# name = "gaussian"
# std = 0.01
# '''                                       # or the path of a TOML file with such tables
# allow = "my_package.data:records"         # parts outside fedsim that a run may use
# truth = "/path"                           # write ground truth there; never sent anywhere
"""

_RUN = """\
# What the server asks for; see fedsim's README. Nodes may insist on their own data and defenses.
[federation]
rounds = 2
clients = {count}
timeout = 600.0             # seconds for a round's replies
"""


_TO_RUN = ("superlink", "app", "run.toml", "deployment.toml", "ca.crt")


def superlink_script(deployment: Deployment, python: str) -> str:
    """Return the script that starts the SuperLink."""
    head = _HEAD.format(what="The SuperLink", python=shlex.quote(python))
    return head + _SUPERLINK.format(bind=deployment.bind, port=deployment.port)


def node_script(deployment: Deployment, number: int, python: str) -> str:
    """Return the script that starts a SuperNode."""
    head = _HEAD.format(what=f"SuperNode {number}", python=shlex.quote(python))
    port = deployment.node_ports[number]
    return head + _NODE.format(address=deployment.address, port=port)


def unit_name(deployment: Deployment, role: str) -> str:
    """Return the name of a role's systemd unit."""
    return f"{deployment.name}-{role}.service"


def unit(deployment: Deployment, role: str, folder: Path) -> str:
    """Return the systemd unit of a role."""
    quoted = f'"{folder / role}"'.replace("%", "%%")
    start = f'"{folder / role / "start.sh"}"'.replace("%", "%%")
    return _UNIT.format(
        unit=unit_name(deployment, role),
        role=role,
        name=deployment.name,
        start=start,
        folder=quoted,
    )


def node_config(deployment: Deployment, number: int) -> str:
    """Return the file in which a node's operator decides."""
    return _NODE_TOML.format(number=number, count=len(deployment.node_ports))


def run_config(deployment: Deployment) -> str:
    """Return the config of the first run."""
    return _RUN.format(count=len(deployment.node_ports))


def connection(deployment: Deployment, authority: Path) -> str:
    """Return Flower's config.toml; commands are taken from the SuperLink's own machine alone."""
    entry = {"address": f"localhost:{deployment.port}", "root-certificates": str(authority)}
    name = deployment.name
    return tomli_w.dumps({"superlink": {"default": name, name: entry}})


def thin_app() -> str:
    """Return the pyproject.toml of an app whose code is installed on every machine."""
    return tomli_w.dumps({
        "project": {
            "name": "fedsim", "version": __version__, "license": "Apache-2.0",
            "description": "fedsim, as installed on each machine",
            "dependencies": [f"fedsim=={__version__}"],
        },
        "tool": {"flwr": {"app": {
            "publisher": "fedsim",
            "components": {
                "serverapp": "fedsim.federation.server_app:app",
                "clientapp": "fedsim.federation.client_app:app",
            },
            "config": {"config": "", "set": "", "out": "", "resume": False},
        }}},
    })  # fmt: skip


def compose(deployment: Deployment) -> str:
    """Return a compose file with a service per role, in one network of their own."""
    port = deployment.port
    lines = [
        "# Every role on one machine; FEDSIM_IMAGE is an image with Python and fedsim in it.",
        "# docker compose exec superlink fedsim deploy run /deployment",
        f"name: {deployment.name}",
        "services:",
        f"  {SUPERLINK}:",
        *_service(SUPERLINK, "BIND: 0.0.0.0"),
        *(f"      - ./{path}:/deployment/{path}" for path in _TO_RUN),
        f'    ports: ["{"127.0.0.1:" if deployment.is_local else ""}{port}:{port}"]',
    ]
    for name in deployment.nodes:
        lines += [f"  {name}:", *_service(name, f"{SUPERLINK.upper()}: {SUPERLINK}:{port}")]
        lines += [f"      - ./{name}:/deployment/{name}", f"    depends_on: [{SUPERLINK}]"]
    return "\n".join(lines) + "\n"


def _service(role: str, environment: str) -> list[str]:
    return [
        "    image: ${FEDSIM_IMAGE:?an image with fedsim installed}",
        f"    command: [sh, /deployment/{role}/start.sh]",
        "    restart: on-failure",
        "    environment:",
        f"      {environment}",
        "    volumes:",
    ]
