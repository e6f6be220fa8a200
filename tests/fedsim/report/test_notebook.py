"""A run draws itself in a notebook: static, escaped, and never an exception."""

import base64
import re
import xml.etree.ElementTree as ET

from fedsim import api
from tests.builders import small_config


def test_a_run_is_a_picture_and_a_line(recordings):
    path = recordings.of(small_config()).path
    run = api.Run(str(path))
    assert run == api.Run(path)
    assert run.path == path
    assert run.ledger().num_rows
    assert repr(run).startswith(f"Run('{path}': finished, 3 of 3 rounds, accuracy ")
    assert "\n" not in repr(run)
    html = run._repr_html_()
    assert "<script" not in html
    [data] = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    assert ET.fromstring(base64.b64decode(data)).tag.endswith("svg")
    assert not re.search(r'(src|href)="(?!data:)', html)


def test_markup_in_names_is_text(recordings, tmp_path):
    run = recordings.copy(small_config(), tmp_path / "<b onclick=x>")
    assert "<b onclick" not in run._repr_html_()
    assert "&lt;b onclick=x&gt;" in run._repr_html_()


def test_what_is_no_run_says_so(tmp_path):
    run = api.Run(tmp_path / "<i>none")
    assert "unreadable" in repr(run)
    assert "must be a run folder" in run._repr_html_()
    assert "<i>" not in run._repr_html_()


def test_a_run_without_a_finished_round_has_no_picture(recordings, tmp_path):
    run = recordings.copy(small_config(), tmp_path / "run")
    for path in sorted(run.path.rglob("*"), reverse=True):
        if path.name != "config.toml":
            path.rmdir() if path.is_dir() else path.unlink()
    assert repr(run) == f"Run('{run.path}': stopped, 0 of 3 rounds)"
    assert "No picture" in run._repr_html_()
