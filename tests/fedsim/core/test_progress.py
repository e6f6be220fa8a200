import threading

import pytest

from fedsim.core.progress import Step, answering, listening, part, report, steps


def test_each_step_is_reported_before_it_is_made():
    heard = []
    with listening(heard.append), answering("dlg, client 3"):
        made = [(step, len(heard)) for step in steps(3, "iterations")]
        report(7, 9, "draws")
    assert made == [(1, 1), (2, 2), (3, 3)]
    assert heard[:2] == [Step("dlg, client 3", place, 3, "iterations") for place in (0, 1)]
    assert heard[3] == Step("dlg, client 3", 7, 9, "draws")


@pytest.mark.parametrize("about", [False, True])
def test_without_an_answer_or_a_listener_loops_count_alone(about):
    heard = []
    if about:
        with answering("nobody waits"):
            assert list(steps(2, "iterations")) == [1, 2]
    else:
        with listening(heard.append):
            assert list(steps(2, "iterations")) == [1, 2]
    assert heard == []
    assert list(steps(0, "iterations")) == []


def test_loops_inside_one_that_counts_say_nothing_until_it_ends():
    heard = []
    with listening(heard.append), answering("answer"):
        for _ in steps(2, "outer"):
            report(1, 2, "inner")
            assert list(steps(2, "inner")) == [1, 2]
        for _ in steps(5, "left early"):
            break
        assert list(steps(1, "last")) == [1]
    assert [step.what for step in heard] == ["outer", "outer", "left early", "last"]


def test_a_part_of_an_answer_has_a_name_until_it_ends():
    heard = []
    with listening(heard.append), answering("answer"):
        with part("rehearsing"):
            assert list(steps(1, "iterations")) == [1]
            with part("comparing labels"):
                report(0, 1, "iterations")
            report(0, 1, "iterations")
        assert list(steps(1, "iterations")) == [1]
    names = [step.part for step in heard]
    assert names == ["rehearsing", "comparing labels", "rehearsing", ""]
    with part("of nothing"):
        assert list(steps(1, "iterations")) == [1]


def test_a_listener_that_fails_is_no_failure_of_the_attack_and_hears_no_more():
    heard = []

    def closed(step):
        heard.append(step)
        raise BrokenPipeError

    with listening(closed):
        for subject in ("first", "second"):
            with answering(subject):
                assert list(steps(3, "iterations")) == [1, 2, 3]
    assert [step.subject for step in heard] == ["first", "second"]


def test_an_interrupt_passes():
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupted), answering("answer"):
        list(steps(1, "iterations"))


def test_other_threads_are_not_listened_to():
    heard = []
    with listening(heard.append), answering("here"):
        thread = threading.Thread(target=lambda: list(steps(2, "iterations")))
        thread.start()
        thread.join()
    assert heard == []
