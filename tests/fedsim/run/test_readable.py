from math import prod

from torch import nn

from fedsim.run.prepare import prepare
from fedsim.run.readable import unreadable
from tests.builders import small_config

MODULE = "tests.fedsim.run.test_readable:"


class Scaled(nn.Module):
    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(inputs, classes)

    def forward(self, x):
        return self.head(x.flatten(1)) / 8


def scaled(input_shape, num_classes):
    return Scaled(prod(input_shape), num_classes)


def without_bias(input_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), num_classes, bias=False))


def said_of(model):
    config = small_config(model={"name": model}, attack=["llg", "llbg", "eb-gls", "uniform"])
    return unreadable(prepare(config))


def test_what_cannot_be_read_is_named_before_training():
    (reason, titles), *rest = said_of(MODULE + "scaled").items()
    assert reason.startswith("model: must end in a linear layer of 10 outputs")
    assert titles == ("llg", "llbg")
    assert not rest
    assert said_of(MODULE + "without_bias") == {"the head must have a bias, got none": ("llbg",)}
    assert said_of("mlp") == {}
