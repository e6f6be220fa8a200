"""fedsim from a wheel, in a fresh environment beside an app laid out as Flower's quickstart."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import flower_environment
from tests.deploy.test_flower_simulation import stop_flower

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "tests" / "quickstart"
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "my-app"
version = "1.0.0"
dependencies = ["flwr[simulation]>=1.41", "fedsim"]

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "me"

[tool.flwr.app.components]
serverapp = "my_app.server_app:app"
clientapp = "my_app.client_app:app"

[tool.flwr.app.config]
num-server-rounds = 2
learning-rate = 0.01
local-epochs = 1
batch-size = 16
strategy = "fedavg"
tape = ""
final-model = "final.pt"
"""

pytestmark = [pytest.mark.deploy, pytest.mark.xdist_group("processes")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The programs of a fresh environment that holds fedsim's wheel and what it needs."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    folder = tmp_path_factory.mktemp("installed")

    def run(*command):
        """Run uv on what is cached; with the network only where the cache lacks something."""
        for offline in ("1", "0"):
            environment = {**os.environ, "UV_OFFLINE": offline}
            result = subprocess.run(
                [uv, *command], cwd=ROOT, env=environment, check=False,
                capture_output=True, text=True,
            )  # fmt: skip
            if not result.returncode:
                return
        pytest.skip(f"uv {command[0]} needs the network: {result.stderr[-200:]}")

    python = folder / "env" / "bin" / "python"
    run("build", "--wheel", "--out-dir", folder / "dist")
    run("venv", "--python", sys.executable, folder / "env")
    # By its path: the registry's package of this name is another project.
    run("pip", "install", "--python", python, next((folder / "dist").glob("*.whl")))
    return python.parent


@pytest.fixture
def app(tmp_path):
    """The quickstart of the test suite, in a folder of its own."""
    package = tmp_path / "my-app" / "my_app"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for path in QUICKSTART.glob("*.py"):
        text = path.read_text().replace("tests.quickstart.", "my_app.")
        (package / path.name).write_text(text)
    (package.parent / "pyproject.toml").write_text(PROJECT)
    return package.parent


@pytest.fixture
def flower(installed, tmp_path):
    home = tmp_path / "flwr"
    environment = flower_environment(home)
    yield {**environment, "PATH": f"{installed}{os.pathsep}{environment['PATH']}"}
    stop_flower(home)


def test_an_app_is_looked_at_run_and_attacked_beside_an_installed_fedsim(
    installed, app, flower, tmp_path, patience
):
    def run(program, *arguments):
        return subprocess.run(
            [installed / program, *map(str, arguments)],
            cwd=app, env=flower, check=True, capture_output=True, text=True,
            timeout=patience(180),
        ).stdout  # fmt: skip

    where = run("python", "-c", "import fedsim; print(fedsim.__file__)")
    assert Path(where.strip()).is_relative_to(installed.parent)
    seen = json.loads(run("fedsim", "watch", app, "--json"))
    assert "FedAvg" in seen["strategy"]
    assert "my_app.task:Net" in seen["model"]
    tape = tmp_path / "tape"
    run(
        "flwr", "run", ".",
        "--run-config", f'tape="{tape}" final-model="{tmp_path}/final.pt"',
        "--federation-config", "num-supernodes=5 client-resources-num-cpus=1",
    )  # fmt: skip
    status = lambda: json.loads(run("flwr", "ls", "--format", "json"))["runs"][0]["status"]
    patience.wait(lambda: status().startswith("finished"), "flwr run", 240.0)
    assert status() == "finished:completed"
    out = run(
        "fedsim", "attack", tape, "--model", "my_app.task:Net", "--num-classes", 10,
        "--local-lr", 0.01, "--local-batch-size", 16, "--local-momentum", 0.9,
        "--with", "llg,llbg", "--json",
    )  # fmt: skip
    assert {row["attack"] for row in json.loads(out)["attacks"]} == {"llg", "llbg"}
    by_head = run(
        "fedsim", "attack", tape, "--head-weight", "fc2.weight", "--head-bias", "fc2.bias",
        "--with", "ilrg",
    )  # fmt: skip
    assert "Assumed  clients ran plain SGD" in by_head
    assert (tape / "report.html").exists()
