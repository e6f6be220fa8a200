import pytest
from hypothesis import given
from hypothesis import strategies as st

from adversary.grading.rouge import common_lengths, common_places, rouge_l, rouge_n

texts = st.lists(st.integers(0, 4), max_size=9)


def longest(a, b):
    """The textbook recursion."""
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return longest(a[:-1], b[:-1]) + 1
    return max(longest(a[:-1], b), longest(a, b[:-1]))


@pytest.mark.twin
@given(st.lists(texts, max_size=3), st.lists(texts, max_size=4))
def test_all_pairs_at_once_are_each_pair_alone(guesses, references):
    lengths = common_lengths(guesses, references)
    assert lengths.shape == (len(guesses), len(references))
    for row, guess in zip(lengths, guesses, strict=True):
        assert row.tolist() == [longest(guess, reference) for reference in references]


@pytest.mark.theorem
@given(texts, texts)
def test_the_places_are_of_equal_tokens_in_order(guess, reference):
    ours, theirs = common_places(guess, reference)
    assert [guess[i] for i in ours] == [reference[j] for j in theirs]
    assert ours == sorted(set(ours))
    assert theirs == sorted(set(theirs))
    assert len(ours) == longest(guess, reference)


@pytest.mark.theorem
@given(texts, texts)
def test_an_identical_text_scores_1_and_a_disjoint_one_0(text, other):
    assert rouge_l([text], [text]).item() == 1
    assert all(rouge_n(text, text, n) == 1 for n in (1, 2, 3))
    apart = [token + 10 for token in other]
    if text or apart:
        assert rouge_l([apart], [text]).item() == 0
    if text and apart:
        assert rouge_n(apart, text, 1) == rouge_n(apart, text, 2) == 0


@pytest.mark.worked
def test_swapped_halves_keep_the_words_and_lose_the_order():
    text, swapped = [1, 2, 3, 4], [3, 4, 1, 2]
    assert rouge_n(swapped, text, 1) == 1
    assert rouge_n(swapped, text, 2) == pytest.approx(2 / 3)
    assert rouge_l([swapped], [text]).item() == 0.5


@pytest.mark.worked
def test_lin_2004s_example():
    """police killed the gunman: S2 'police kill the gunman', S3 'the gunman kill police'."""
    police, killed, the, gunman, kill = range(5)
    reference = [police, killed, the, gunman]
    second, third = [police, kill, the, gunman], [the, gunman, kill, police]
    assert rouge_l([second, third], [reference]).ravel().tolist() == [0.75, 0.5]
    assert rouge_n(second, reference, 2) == rouge_n(third, reference, 2) == pytest.approx(1 / 3)


@pytest.mark.worked
def test_repeated_tokens_count_as_often_as_both_have_them():
    assert rouge_n([7, 7, 7, 7], [7, 1], 1) == pytest.approx(2 * 1 / 6)


def test_a_text_of_one_token_has_no_two():
    assert rouge_n([3], [3], 2) == 1
    assert rouge_n([3, 4], [3], 2) == pytest.approx(2 / 3)
    assert rouge_n([], [3], 2) == 0
