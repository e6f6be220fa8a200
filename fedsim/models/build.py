"""Architectures; the last layer of each is linear and named `head`, except torchvision's own."""

import inspect
from collections.abc import Callable
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from fedsim.config import Config
from fedsim.core.catalog import check_options, find, with_extensions
from fedsim.core.errors import ConfigError
from fedsim.core.rng import global_stream

Shape = tuple[int, ...]
Activation = Literal["relu", "sigmoid", "tanh", "silu"]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
}


class Bottleneck(nn.Module):
    """A variational bottleneck: features are blurred while training, by as much as is learned.

    Source: Alemi, Fischer, Dillon, Murphy, "Deep Variational Information Bottleneck", ICLR 2017;
    before the head as in Scheliga, Mäder, Seeland, "PRECODE", WACV 2022. `defenses.vib` adds the
    price of information to the loss; without it nothing keeps the blur from vanishing.

    Args:
        features: Width of what comes in.
        size: Width of the code that goes out.
    """

    def __init__(self, features: int, size: int) -> None:
        super().__init__()
        self.mean = nn.Linear(features, size)
        self.log_variance = nn.Linear(features, size)

    def forward(self, h: Tensor) -> Tensor:
        """Return a draw from N(mean, variance) while training, and the mean otherwise."""
        mean, log_variance = self.mean(h), self.log_variance(h)
        if not self.training:
            return mean
        return mean + (log_variance / 2).exp() * torch.randn_like(mean)


def mlp(
    input_shape: Shape,
    num_classes: int,
    *,
    hidden: int = 128,
    activation: Activation = "relu",
    bottleneck: int = 0,
) -> nn.Module:
    """Two-layer perceptron."""
    return _sequence(
        nn.Flatten(), nn.Linear(prod(input_shape), hidden), ACTIVATIONS[activation](),
        head=nn.Linear(hidden, num_classes), bottleneck=bottleneck,
    )  # fmt: skip


def cnn(
    input_shape: Shape, num_classes: int, *, hidden: int = 24, bottleneck: int = 0
) -> nn.Module:
    """Two 3×3 convolutions with pooling and a hidden layer, ReLU; 42,706 parameters on MNIST."""
    channels, height, width = _image(input_shape, "cnn", at_least=4)
    return _sequence(
        nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * (height // 4) * (width // 4), hidden), nn.ReLU(),
        head=nn.Linear(hidden, num_classes), bottleneck=bottleneck,
    )  # fmt: skip


def lenet(input_shape: Shape, num_classes: int) -> nn.Module:
    """The sigmoid network of the gradient-leakage papers, all parameters from U(−0.5, 0.5).

    Source: Zhu, Liu, Han, "Deep Leakage from Gradients", NeurIPS 2019, official code.
    """
    channels, height, width = _image(input_shape, "lenet", at_least=1)
    model = _sequence(
        nn.Conv2d(channels, 12, 5, padding=2, stride=2), nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, padding=2, stride=2), nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, padding=2), nn.Sigmoid(),
        nn.Flatten(),
        head=nn.Linear(12 * -(-height // 4) * -(-width // 4), num_classes),
    )  # fmt: skip
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return model


def lenet5(
    input_shape: Shape,
    num_classes: int,
    *,
    activation: Activation = "relu",
    bottleneck: int = 0,
) -> nn.Module:
    """LeNet-5 with max-pooling, 61,706 parameters on MNIST.

    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document
    recognition", 1998; as it is used today, with ReLU.
    """
    channels, height, width = _image(input_shape, "lenet5", at_least=12)
    act = ACTIVATIONS[activation]
    flat = 16 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
    return _sequence(
        nn.Conv2d(channels, 6, 5, padding=2), act(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), act(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(flat, 120), act(), nn.Linear(120, 84), act(),
        head=nn.Linear(84, num_classes), bottleneck=bottleneck,
    )  # fmt: skip


def rgap_cnn6(input_shape: Shape, num_classes: int) -> nn.Module:
    """The six convolutions of the R-GAP paper, without biases, and leaky ReLUs of slope 0.2.

    Source: Zhu, Blaschko, "R-GAP: Recursive Gradient Attack on Privacy", ICLR 2021, official code;
    with a head of one logit per class and a bias instead of one logistic unit without.
    """
    channels, height, width = _image(input_shape, "rgap-cnn6", at_least=4)
    layers: list[nn.Module] = []
    for fan_in, fan_out, kernel, stride, padding in (
        (channels, 12, 4, 2, 2), (12, 36, 3, 2, 1), (36, 36, 3, 1, 1),
        (36, 36, 3, 1, 1), (36, 64, 3, 2, 1), (64, 128, 3, 1, 1),
    ):  # fmt: skip
        layers.append(nn.Conv2d(fan_in, fan_out, kernel, stride, padding, bias=False))
        layers.append(nn.LeakyReLU(0.2))
    high, wide = (-(-(size // 2 + 1) // 4) for size in (height, width))
    return _sequence(*layers, nn.Flatten(), head=nn.Linear(128 * high * wide, num_classes))


def resnet18(
    input_shape: Shape, num_classes: int, *, norm: Literal["group", "batch"] = "group"
) -> nn.Module:
    """Torchvision's ResNet-18, with GroupNorm(32) unless `norm = "batch"`; 11.2M parameters."""
    from torchvision.models import resnet18 as build

    channels = _image(input_shape, "resnet18", at_least=1)[0]
    group_norm = lambda width: nn.GroupNorm(32, width)
    model = build(
        num_classes=num_classes, norm_layer=nn.BatchNorm2d if norm == "batch" else group_norm
    )
    if channels != 3:
        model.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return model


MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    "lenet": lenet,
    "lenet5": lenet5,
    "rgap-cnn6": rgap_cnn6,
    "resnet18": resnet18,
}


def build(config: Config, input_shape: Shape, num_classes: int) -> nn.Module:
    """Build the config's model with initial weights that depend on the seed alone.

    A user's `package.module:function` (or class) is given `input_shape` and `num_classes` where
    it has parameters of these names.

    Raises:
        ConfigError: The name or an option is unknown, or the model cannot take the data.
    """
    name = config.model.name
    function = find("model.name", name, with_extensions(MODELS, "models"))
    options = check_options("model", function, config.model.options)
    wanted = inspect.signature(function).parameters
    if "input_shape" in wanted:
        options["input_shape"] = input_shape
    if "num_classes" in wanted:
        options["num_classes"] = num_classes
    try:
        with global_stream(config.seed, "model"):
            model = function(**options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"model.name: '{name}' cannot be built ({error})") from None
    _check_output(name, model, input_shape, num_classes)
    return model


def trainable(model: nn.Module) -> tuple[str, ...]:
    """Return the names that training moves; the rest of the state are buffers."""
    return tuple(name for name, value in model.named_parameters() if value.requires_grad)


def mixing_layer(model: nn.Module) -> str | None:
    """Return the first layer whose output for one example depends on the others, or None."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return f"{name} = {type(module).__name__}"
    return None


def remembering_layer(model: nn.Module) -> str | None:
    """Return the first layer that keeps statistics of the data, which would be uploaded as is."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
            return f"{name} = {type(module).__name__}"
    return None


def _check_output(name: str, model: object, input_shape: Shape, num_classes: int) -> None:
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model.name: must build a torch module, got {type(model).__name__}")
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    if tied := sorted(set(names) - {name for name, _ in model.named_parameters()}):
        raise ConfigError(
            f"model.name: must hold each parameter under one name, '{name}' ties {tied[0]}"
        )
    training = model.training
    try:
        with torch.no_grad():
            shape = tuple(model.eval()(torch.zeros(2, *input_shape)).shape)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"model.name: '{name}' must take inputs of shape {input_shape} ({reason})"
        ) from None
    finally:
        model.train(training)
    if shape != (2, num_classes):
        raise ConfigError(
            f"model.name: '{name}' must give {num_classes} logits per example, "
            f"got shape {shape} for 2 examples"
        )


def _sequence(*layers: nn.Module, head: nn.Linear, bottleneck: int = 0) -> nn.Sequential:
    model = nn.Sequential(*layers)
    if bottleneck < 0:
        raise ValueError(f"bottleneck: must be at least 0, got {bottleneck}")
    if bottleneck:
        model.add_module("bottleneck", Bottleneck(head.in_features, bottleneck))
        head = nn.Linear(bottleneck, head.out_features)
    model.add_module("head", head)
    return model


def _image(input_shape: Shape, name: str, *, at_least: int) -> Shape:
    if len(input_shape) != 3 or min(input_shape[1:]) < at_least:
        raise ValueError(
            f"{name}: inputs must be (channels, height, width) images "
            f"of at least {at_least}×{at_least}, got {input_shape}"
        )
    return input_shape
