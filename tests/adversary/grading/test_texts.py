import math

import pytest
import torch

from adversary.grading import texts, tokens
from adversary.grading.texts import checked, grade, paired, words
from fedsim.core.ground_truth import Texts, Truth
from fedsim.core.types import Auxiliary
from fedsim.core.vocabulary import Vocabulary

BOS, EOS = 1, 2
WORDS = Vocabulary((b"", b"", b"", b"the", b" cat", b" sat", b" on", b" Zork.", b"!", b" dog"))
AUXILIARY = Auxiliary(torch.nn.Identity(), 10, vocabulary=WORDS)
IDS = torch.tensor([[1, 3, 4, 5, 6], [1, 7, 8, 0, 0], [1, 9, 5, 4, 0]])


def truth(ids=IDS, common=("the", "cat", "sat", "on", "dog"), known=(3, 4, 5, 6, 8, 9)):
    used = Texts(ids, WORDS, frozenset(known), frozenset(common))
    return Truth(torch.zeros(len(ids)), torch.arange(len(ids)), texts=used)


def packed(*guesses):
    return checked([torch.tensor(ids, dtype=torch.int64) for ids in guesses], AUXILIARY)


@pytest.mark.theorem
def test_all_texts_in_any_order_with_any_special_tokens_are_a_full_score():
    guess = packed([9, 5, 4, EOS], [BOS, 3, 4, 5, 6], [7, 8])
    assert set(grade(guess, truth()).values()) == {1.0}


@pytest.mark.theorem
def test_one_perfect_guess_many_times_counts_once():
    values = grade(packed(*([[3, 4, 5, 6]] * 3)), truth())
    assert values["exact"] == pytest.approx(1 / 3)
    assert values["rougeL"] < 0.7


@pytest.mark.theorem
def test_surplus_guesses_are_dropped_from_the_end():
    best_last = packed([8], [8], [8], [3, 4, 5, 6], [7, 8])
    assert grade(best_last, truth())["exact"] == 0
    assert len(paired(best_last, truth().texts)) == 3


def test_missing_guesses_count_nothing():
    values = grade(packed(), truth())
    assert set(values.values()) == {0.0}
    assert grade(packed([7, 8]), truth())["rouge2"] == pytest.approx(1 / 3)


@pytest.mark.worked
def test_token_f1_is_over_the_client_and_rare_words_are_those_of_no_auxiliary_text():
    values = grade(packed([3, 7], [4]), truth())
    assert values["token_f1"] == pytest.approx(2 * 3 / (3 + 9))
    assert values["rare_words"] == 1  # zork, without its full stop
    assert grade(packed([3]), truth())["rare_words"] == 0
    assert math.isnan(grade(packed([3]), truth(IDS[:1]))["rare_words"])
    assert words("It's «Zork»-like, OK!") == {"it's", "«zork»-like", "ok"}


def test_a_client_without_texts_has_no_values():
    assert all(math.isnan(value) for value in grade(packed([3]), truth(IDS[:0])).values())
    nothing = Truth(torch.zeros(0), torch.zeros(0))
    assert all(math.isnan(value) for value in grade(packed([3]), nothing).values())
    assert all(math.isnan(v) for v in tokens.grade(torch.tensor([3]), nothing).values())


@pytest.mark.parametrize(
    ("guess", "sentence"),
    [
        (torch.zeros(2, 3), "must be a list of tensors of ids, got Tensor"),
        ("a text", "must hold tensors of ids"),
        ([torch.zeros(2)], "got torch.float32 of shape"),
        ([torch.zeros(2, 2, dtype=torch.int64)], "one dimension each"),
        ([torch.tensor([3, 10])], "must hold ids from 0 to 9, got 3 to 10"),
        ([torch.tensor([-1])], "must hold ids from 0 to 9, got -1 to -1"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(guess, sentence):
    with pytest.raises(ValueError, match=sentence):
        texts.checked(guess, AUXILIARY)


def test_an_empty_answer_and_an_empty_text_are_answers():
    assert packed().shape == (0, 0)
    assert packed([], [3]).tolist() == [[-1], [3]]


@pytest.mark.worked
def test_a_set_is_graded_by_the_tokens_of_all_texts():
    values = tokens.grade(torch.tensor([0, 1, 2, 3, 4, 7]), truth())
    assert values["precision"] == 1
    assert values["recall"] == pytest.approx(3 / 7)
    assert values["f1"] == pytest.approx(0.6)
    assert values["rare_recall"] == 1
    empty = tokens.grade(torch.zeros(0, dtype=torch.int64), truth())
    assert empty["f1"] == empty["recall"] == 0
    assert math.isnan(empty["precision"])


def test_what_is_no_set_of_ids_is_refused():
    with pytest.raises(ValueError, match=r"list of token ids, got torch\.float32"):
        tokens.checked(torch.zeros(3), AUXILIARY)
    with pytest.raises(ValueError, match="from 0 to 9, got 3 to 11"):
        tokens.checked(torch.tensor([3, 11]), AUXILIARY)
