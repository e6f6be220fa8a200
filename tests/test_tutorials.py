"""Every tutorial runs as it is written: shell blocks in one shell, Python blocks in one process."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
BLOCK = re.compile(
    r"^(?:<!-- exits with (?P<code>\d+) -->\n)?```(?P<language>sh|python|toml)"
    r'(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
DONE = "-- block done --"
CELLS = (
    "import json, sys\nspace = {'__name__': '__main__'}\nfor line in sys.stdin:\n"
    f"    exec(json.loads(line), space)\n    print('{DONE}', flush=True)\n"
)


class Session:
    """A process that is sent blocks, and answers each with its output."""

    def __init__(self, *command: str, folder: Path, path: str) -> None:
        self.process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env={**os.environ, "PATH": path},
            start_new_session=True,
        )  # fmt: skip

    def send(self, text: str) -> None:
        """Run a block; fail with its output where it ends the process."""
        self.process.stdin.write(text)
        self.process.stdin.flush()
        lines = []
        for line in iter(self.process.stdout.readline, ""):
            if line.strip() == DONE:
                return
            lines.append(line)
        pytest.fail(f"{text}\n{''.join(lines)}", pytrace=False)

    def close(self) -> None:
        """End the process and its background jobs."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(60)
        self.process.stdout.close()


def pages():
    """Yield the pages; one deployment runs at a time, and other pages run beside it."""
    for path in sorted(TUTORIALS.glob("*.md")):
        if path.stem != "index":
            group = [pytest.mark.xdist_group("processes")] * ("deploy run" in path.read_text())
            yield pytest.param(path.stem, marks=group)


@pytest.mark.deploy
@pytest.mark.parametrize("page", list(pages()))
def test_a_tutorial_runs_as_it_is_written(page, tmp_path):
    if "fedsim[text]" in (TUTORIALS / f"{page}.md").read_text():
        pytest.importorskip("peft")
    (tmp_path / "bin").mkdir()
    uv = tmp_path / "bin" / "uv"  # `uv run X` is X of this environment
    uv.write_text('#!/bin/sh\nshift\nexec "$@"\n')
    uv.chmod(0o755)
    path = os.pathsep.join([str(uv.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    shell = Session("bash", "-e", folder=tmp_path, path=path)
    cells = Session(sys.executable, "-c", CELLS, folder=tmp_path, path=path)
    try:
        for block in BLOCK.finditer((TUTORIALS / f"{page}.md").read_text()):
            if block["title"]:
                (tmp_path / block["title"]).write_text(block["text"])
            elif block["language"] == "python":
                cells.send(json.dumps(block["text"]) + "\n")
            else:
                shell.send(_shell(block["text"], int(block["code"] or 0)))
    finally:
        shell.close()
        cells.close()


def _shell(text: str, code: int) -> str:
    """Return a block whose failure ends the shell, unless it should exit with `code`."""
    if code:
        text = f"set +e\n{text.rstrip()} ; code=$?\nset -e\n[ $code = {code} ]"
    return f"{text}\necho; echo '{DONE}'\n"
