import pytest
import torch
from torch import nn

from adversary.text.tables import find_tables, table
from adversary.workspace import workspace
from fedsim import models
from fedsim.config import parse
from fedsim.core.errors import NotApplicable
from fedsim.core.form import Form
from fedsim.core.memory import Memory
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from fedsim.core.vocabulary import Vocabulary
from tests.adversary.text.small import Small

WORDS = Vocabulary(tuple(b"" if i < 3 else bytes([i]) for i in range(64)))


def tables(model, *, per_token=True, classes=64, length=12):
    auxiliary = Auxiliary(
        model, classes, input_shape=(length,), vocabulary=WORDS, per_token=per_token
    )
    sent = dict(model.state_dict())
    latest = Observation(sent, Update(1, "0", {}, 1), LocalTraining(lr=0.1, batch_size=1))
    return find_tables(workspace(View([latest], memory=Memory()), auxiliary))


def built(name, *, per_token, classes=64, **options):
    form = Form((12,), classes, torch.int64, 64, per_token)
    model = parse({"model": {"name": name, "width": 16, "heads": 2, **options}}).model
    return models.build(model, form, seed=0)


def test_a_gpt_has_all_three():
    got = tables(built("gpt", per_token=True))
    assert (got.tokens, got.positions, got.head) == (
        "tokens.weight",
        "positions.weight",
        "head.weight",
    )
    assert got.bias is None
    assert not got.tied


def test_a_tied_head_is_the_token_table_and_hides_the_positions():
    got = tables(built("gpt", per_token=True, tie=True))
    assert got.head == got.tokens == "tokens.weight"
    assert got.tied
    assert got.positions is None


def test_rotary_positions_have_no_table():
    assert tables(built("gpt", per_token=True, positions="rotary")).positions is None


def test_a_classifier_of_texts_has_no_head_of_tokens():
    got = tables(built("bert", per_token=False, classes=3), per_token=False, classes=3)
    assert (got.tokens, got.positions, got.head) == ("tokens.weight", "positions.weight", None)


def test_names_and_places_do_not_count():
    class Renamed(nn.Module):
        def __init__(self):
            super().__init__()
            self.b = Small(vocabulary=64, width=16, length=12)
            self.a = nn.Parameter(self.b.positions.weight.detach()[None])
            self.b.positions = nn.Identity()

        def forward(self, ids):
            self.b.positions.forward = lambda at: self.a[0, at]
            return self.b(ids)

    got = tables(Renamed())
    assert (got.tokens, got.positions, got.head) == ("b.tokens.weight", "a", "b.head.weight")


def test_a_model_without_a_table_is_refused():
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 3)

        def forward(self, ids):
            return self.layer(nn.functional.one_hot(ids, 64).to(self.layer.weight.dtype).sum(1))

    with pytest.raises(NotApplicable, match="look its inputs up in a table of tokens"):
        tables(Counted(), per_token=False, classes=3)


def test_a_frozen_or_missing_table_is_refused_in_one_sentence():
    with pytest.raises(NotApplicable, match="must have a table of positions, got none"):
        table({}, None, "table of positions")
    with pytest.raises(NotApplicable, match="got none: it was frozen"):
        table({}, "a", "table of tokens")
    with pytest.raises(ValueError, match="must be finite"):
        table({"a": torch.full((2, 2), torch.nan)}, "a", "table of tokens")
