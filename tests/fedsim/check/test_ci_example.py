"""The CI example of the documentation, run as written: it fails a leak and passes a defense."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "gate.md"
FILES = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', PAGE.read_text(), re.M | re.S))


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.parametrize(("config", "code"), [("gate.toml", 3), ("defended.toml", 0)])
def test_the_gate_fails_a_planted_leak_and_passes_a_defended_run(tmp_path, config, code):
    (tmp_path / "gate.toml").write_text(FILES[config])
    steps = re.findall(r"- run: (fedsim .+)", FILES[".github/workflows/leakage.yml"])
    codes, printed = [], ""
    for step in steps:
        words = [str(Path(sys.executable).parent / "fedsim"), *shlex.split(step)[1:]]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        codes.append(done.returncode)
        printed += done.stdout + done.stderr
    assert codes == [0, code], printed
    assert (tmp_path / "runs" / "gate.xml").exists()
    assert (tmp_path / "runs" / "gate" / "report.html").exists()
