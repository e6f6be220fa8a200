"""The view over HTTP: what it shows, and what nobody gets out of it."""

import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from fedsim.core.errors import ConfigError
from fedsim.run.marks import locked
from fedsim.view.server import Server
from fedsim.view.shelf import Shelf
from tests.builders import small_config

NAME = "a <b> & [c]"


@contextmanager
def serving(folder):
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def get(server, path, method="GET", **headers):
    """Return status, headers and body of a request whose path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    headers = {"Host": f"127.0.0.1:{server.server_port}", **headers}
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders()
    reply = connection.getresponse()
    body = reply.read().decode()
    connection.close()
    return reply.status, dict(reply.headers), body


@pytest.fixture
def runs(recordings, tmp_path):
    recordings.copy(small_config(), tmp_path / "runs" / NAME)
    return tmp_path / "runs"


def _drawn(run, text="<title>the report</title>"):
    (run / "report.html").write_text(text)
    return run


def test_the_index_lists_runs_and_a_report_is_served_as_it_is(runs):
    _drawn(runs / NAME)
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    with serving(runs) as server:
        status, headers, body = get(server, "/")
        assert status == 200
        assert "a &lt;b&gt; &amp; [c]" in body
        assert f'href="/run/{quote(NAME)}"' in body
        assert "finished" in body
        assert "connect-src 'self'" in headers["Content-Security-Policy"]
        status, headers, body = get(server, f"/run/{quote(NAME)}")
        assert (status, body) == (200, "<title>the report</title>")
        policy = headers["Content-Security-Policy"]
        assert "sandbox allow-scripts" in policy  # no origin: it reads nothing else here
        assert "allow-same-origin" not in policy
        assert "connect-src" not in policy
        assert "default-src 'none'" in policy
        assert get(server, "/", method="HEAD")[0::2] == (200, "")
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before


def test_a_run_that_goes_on_is_shown_from_its_tables_and_asks_soon_again(runs):
    run = _drawn(runs / NAME)
    (run / "leakage.parquet").unlink()
    (run / "metrics.parquet").unlink()
    (run / ".tables").unlink()
    shutil.move(run / "state" / "0003", runs.parent / "0003")
    with serving(runs) as server, locked(run):
        status, _, body = get(server, f"/run/{quote(NAME)}")
        assert status == 200
        assert "running" in body
        assert '<progress max="3" value="2">' in body
        assert "llg" in body
        assert "data:image/svg+xml;base64," in body
        _, headers, _ = get(server, f"/rows/{quote(NAME)}?v=")
        now = headers["X-Version"]
        assert headers["X-Wait"] == "2"
        assert get(server, f"/rows/{quote(NAME)}?v={now}")[0] == 204
        shutil.move(runs.parent / "0003", run / "state" / "0003")
        server.shelf._made.clear()  # what is slow to make rests
        status, headers, body = get(server, f"/rows/{quote(NAME)}?v={now}")
        assert status == 200
        assert '<progress max="3" value="3">' in body
        assert headers["X-Version"] != now


def test_what_does_not_change_is_made_once(runs):
    shelf, made = Shelf(runs), []
    make = lambda: made.append(1)
    for _ in range(3):
        shelf.made("test", NAME, runs / NAME, make)
    assert len(made) == 1
    (runs / NAME / "report.html").write_text("")
    shelf.made("test", NAME, runs / NAME, make)
    assert len(made) == 2


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{}", "", None]
)
def test_a_rebound_name_gets_nothing(host, runs):
    with serving(runs) as server:
        host = host.format(server.server_port) if host else host
        status, _, body = get(server, "/", Host=host)
        assert status in (400, 421)
        assert NAME[0] + " &lt;" not in body
        assert get(server, "/", Host=f"localhost:{server.server_port}")[0] == 200


def test_no_path_leads_out_of_the_folder(runs):
    (runs.parent / "secret").write_text("SECRET")
    outside = shutil.copytree(runs / NAME, runs.parent / "outside")
    _drawn(outside, "SECRET")
    (runs / "link").symlink_to(outside)
    (runs / NAME / "report.html").unlink(missing_ok=True)
    (runs / NAME / "report.html").symlink_to(runs.parent / "secret")
    (runs / "report.html").symlink_to(runs.parent / "secret")
    name = quote(NAME)
    paths = [
        "/../secret", "/run/../secret", "/run/%2e%2e/outside", "/run/../outside", "/run//etc",
        "/report/../outside", "/run/link", "/report/link", "/group/runs", "/group/..",
        f"/run/{name}", f"/report/{name}", f"/run/{name}/truth/0001/clients.safetensors",
        f"/run/{name}/config.toml", f"/run/{name}/leakage.parquet", "/run/", "/run", "/nothing",
        "/run/%00", "/%ff", "/run/%ed%b3%bf", "//run", "/rows/../outside",
    ]  # fmt: skip
    with serving(runs) as server:
        for path in paths:
            status, _, body = get(server, path)
            assert "SECRET" not in body, path
            assert status in (200, 404), path
            assert status == 404 or path == f"/run/{name}", path
        assert get(server, "/", method="POST")[0] == 501
        assert get(server, "/")[0] == 200


def test_audits_and_games_open_from_the_index(runs):
    for folder, table, report in (
        (runs / "games", "games.parquet", "report.html"),
        (runs / NAME / "audit", "audit.parquet", "audit.html"),
        (runs / "unfinished", "audit.parquet", None),
    ):
        folder.mkdir()
        (folder / table).write_bytes(b"")
        if report:
            (folder / report).write_text(f"of {folder.name}")
    with serving(runs) as server:
        body = get(server, "/")[2]
        assert get(server, "/group/games")[2] == "of games"
        assert f'href="/group/{quote(NAME)}/audit"' in body
        assert get(server, f"/group/{quote(NAME)}/audit")[2] == "of audit"
        assert "unfinished" not in body
    with serving(runs / "games") as server:
        assert get(server, "/group/games")[2] == "of games"


def test_a_report_over_runs_and_broken_folders_are_in_the_index(runs):
    (runs / "report.html").write_text("several")
    (runs / "sweep").mkdir()
    shutil.copytree(runs / NAME, runs / "sweep" / "lr=1")
    (runs / "sweep" / "report.html").write_text("a sweep")
    (runs / "broken").mkdir()
    (runs / "broken" / "config.toml").write_text("<script>alert(1)</script>")
    with serving(runs) as server:
        _, _, body = get(server, "/")
        assert "unreadable" in body
        assert "<script>alert" not in body
        assert get(server, "/group/runs")[2] == "several"
        assert get(server, "/group/sweep")[2] == "a sweep"
        assert get(server, "/run/broken")[0] == 200
        assert "unreadable" in get(server, "/run/broken")[2]


def test_a_run_itself_and_an_empty_folder_can_be_served(runs):
    with serving(runs / NAME) as server:
        assert get(server, f"/run/{quote(NAME)}")[0] == 200
    (runs / "none").mkdir()
    with serving(runs / "none") as server:
        assert "No runs yet" in get(server, "/")[2]


def test_a_taken_port_is_refused(runs):
    with (
        Server(runs) as server,
        pytest.raises(ConfigError, match=f"--port: must be free, got {server.server_port}"),
    ):
        Server(runs, server.server_port)


@pytest.mark.e2e
def test_ctrl_c_ends_it_cleanly(runs):
    process = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.signal(2, signal.default_int_handler); "
         "from fedsim.cli.main import main; main()", "view", str(runs), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines = ""
    while not lines.rstrip().endswith("}"):
        lines += process.stdout.readline()
    url = json.loads(lines)["url"]
    with urllib.request.urlopen(url) as reply:
        assert NAME[0] in reply.read().decode()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url)
