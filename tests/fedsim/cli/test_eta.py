"""The time that is left: from the first client on, and as lines without a terminal."""

import io

import pytest
from rich.console import Console

from fedsim import api
from fedsim.cli.eta import Eta, duration
from fedsim.cli.rounds import Rounds
from tests.builders import small_config


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def console(*, terminal=False):
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)


@pytest.mark.worked
def test_the_first_client_gives_the_pace():
    clock = Clock()
    eta = Eta(10, console(), clock)
    assert eta.left(0) == ""
    clock.now = 100.0
    eta.begin(4)  # resumed after round 4
    assert eta.left(4) == ""
    clock.now = 106.0
    assert eta.left(4.1) == "about 6 min left"  # 0.1 of 6 rounds in 6 s: 59 such tenths are left
    clock.now = 130.0
    assert eta.left(7.0) == "about 30 s left"
    assert eta.left(10.0) == "about 0 s left"


@pytest.mark.worked
def test_a_time_is_written_in_the_unit_that_suits_it():
    assert [duration(it) for it in (0.4, 99, 101, 5999, 9000)] == [
        "0 s", "99 s", "2 min", "100 min", "2.5 h"
    ]  # fmt: skip


def test_lines_are_rare_and_only_where_there_is_no_terminal():
    clock, plain, terminal = Clock(), console(), console(terminal=True)
    for it in (plain, terminal):
        clock.now = 0.0
        eta = Eta(10, it, clock)
        for now in range(40):
            clock.now = float(now)
            eta.line(f"at {now}")
    assert plain.file.getvalue() == "at 10\nat 20\nat 30\n"
    assert terminal.file.getvalue() == ""


def test_a_long_round_shows_its_clients(tmp_path):
    clock, out = Clock(), console()
    with Rounds(small_config(), tmp_path, out, quiet=False) as rounds:
        rounds.eta = Eta(3, out, clock)
        rounds.client(1, 1, 4)
        clock.now = 12.0
        rounds.client(1, 2, 4)
        rounds.client(1, 3, 4)
    lines = [line for line in out.file.getvalue().splitlines() if "clients," in line]
    assert lines == ["       round 1: 2 of 4 clients, about 60 s left"]


def test_every_reply_of_a_client_is_told(tmp_path, undrawn):
    replies = []
    config = small_config(federation={"rounds": 2, "per_round": 3})
    api.run(config, tmp_path / "run", on_client=lambda *it: replies.append(it))
    assert replies == [(round_, count, 3) for round_ in (1, 2) for count in (1, 2, 3)]
