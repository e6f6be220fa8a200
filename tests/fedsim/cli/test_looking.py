"""Lines of an explanation's progress where there is no terminal."""

import io

from rich.console import Console

from fedsim.cli.looking import Looking


def lines_of(seconds_per_step, steps=4, looks=1):
    now, text = [0.0], io.StringIO()
    console = Console(file=text, width=80, force_terminal=False, markup=False, highlight=False)
    with Looking(console, quiet=False, clock=lambda: now[0]) as looking:
        looking.begin("[net]")
        for _ in range(looks):
            now[0] += 100  # what comes before says nothing of the pace
            for step in range(steps + 1):
                now[0] += seconds_per_step * (step > 0)
                looking.step(step, steps)
    return [line for line in text.getvalue().splitlines() if line.strip()]


def test_a_short_explanation_is_silent():
    assert lines_of(0.3) == []


def test_a_long_one_says_first_how_long_it_takes_and_then_how_far_it_is():
    expected, *lines = lines_of(15.0)
    assert expected == "[net]: about 60 s; --directions 0 leaves it out"
    assert lines == [
        f"[net]: {k}% done, about {60 * (100 - k) // 100} s left" for k in (50, 75)
    ] + ["[net]: 100% done, about 0 s left"]


def test_another_look_is_timed_from_its_own_start():
    assert lines_of(15.0, looks=2)[-1] == "[net]: 100% done, about 0 s left"
    assert sum("--directions" in line for line in lines_of(15.0, looks=2)) == 1
