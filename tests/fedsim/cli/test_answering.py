"""Progress inside an answer: of long ones alone, not at every step, and with the same ledger."""

from fedsim import api
from fedsim.cli.answering import Answering
from fedsim.cli.rounds import Rounds
from fedsim.core.progress import Step, listening
from tests.builders import small_config
from tests.fedsim.cli.test_eta import Clock, console


def test_short_answers_say_nothing_and_long_ones_not_every_step():
    clock, said = Clock(), []
    answering = Answering(said.append, clock)
    for subject, begun in (("short", 0), ("long", 100)):
        for step in range(45 if subject == "long" else 15):
            clock.now = begun + step / 8
            answering(Step(subject, step, 1500, "iterations"))
    expected = [f"long: {step} of 1,500 iterations" for step in range(16, 45, 2)]  # from 2 s on
    assert said == expected
    clock.now += 1
    answering(Step("long", 1234, 1500, "iterations", "rehearsing"))
    assert said[-1] == "long, rehearsing: 1,234 of 1,500 iterations"


def test_a_run_shows_where_a_long_answer_is_and_writes_the_same_ledger(tmp_path, undrawn):
    clock = Clock()
    attack = {"name": "dlg", "iterations": 40, "restarts": 1, "clients": ["1"]}
    config = small_config(
        federation={"clients": 2, "rounds": 1}, attack=[attack], local={"batch_size": 8}
    )
    plain = api.run(config, tmp_path / "plain")
    screen = console()
    with Rounds(config, tmp_path / "run", screen, quiet=False) as progress:
        progress.eta.clock = clock

        def say(text):
            clock.now += 20
            progress.step(text)

        ticking = Answering(say, lambda: clock.now)

        def tick(step):
            clock.now += 1
            ticking(step)

        with listening(tick):
            run = api.run(config, tmp_path / "run", on_round=progress.show)
    assert "       dlg, client 1: " in screen.file.getvalue()
    assert " iterations\n" in screen.file.getvalue()
    columns = ["round", "client", "metric", "value", "blind"]
    assert run.ledger().select(columns) == plain.ledger().select(columns)


def test_a_quiet_run_and_names_with_markup_disturb_nothing(tmp_path):
    config = small_config()
    screen = console(terminal=True)
    with Rounds(config, tmp_path, screen, quiet=True) as progress:
        progress.step("dlg, client 1: 2 of 3 iterations")
    assert screen.file.getvalue() == ""
    screen = console()
    with Rounds(config, tmp_path, screen, quiet=False) as progress:
        progress.step("not started")
        progress._start()
        progress.eta.printed = -100.0
        progress.step("[red]x[/] client [/b]: 2 of 3 iterations")
    assert "[red]x[/] client [/b]: 2 of 3" in screen.file.getvalue()
    assert "not started" not in screen.file.getvalue()
