"""The sections of the config on what clients train: data, architecture, local training."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedsim.config.fields import Count, Names, Part, Positive, Rate, Section
from fedsim.core.local_training import Optimizer, Upload


class Data(Part):
    """Which examples, and how they are spread over the clients.

    Every other key of the table is an option of the data set; see `fedsim list datasets`.
    """

    name: str = "digits"
    """Data set, or `package.module:function`; see `fedsim list datasets`."""
    root: str | None = None
    """Folder of the data set's files. If omitted: its folder in `$FEDSIM_DATA` or `../shared/data`
    if it is there, else `~/.cache/fedsim/NAME`."""
    partition: Literal["iid", "dirichlet", "shards", "user"] = "dirichlet"
    """How rows are dealt to clients: at random, by Dirichlet shares of each label, by shards of
    sorted labels, or by user."""
    alpha: Positive = 0.35
    """For `dirichlet`: concentration; small values give clients of few labels."""
    shards: Count = 2
    """For `shards`: number of shards of each client."""
    users: str | None = None
    """For `user`: column, or file with one id per training row, that says whose row it is."""
    limit: Count | None = None
    """Number of training rows, drawn at random; all if omitted."""
    canary: str = ""
    """Text with a # for each random digit. It takes the place of a text of client 0, and attacks of
    the family `exposure` ask for the digits; none if empty."""

    @model_validator(mode="after")
    def _user_ids(self) -> "Data":
        if (self.partition == "user") != (self.users is not None):
            raise ValueError(
                "users: must name a column or a file of ids exactly when partition = 'user', "
                f"got {self.users!r} with partition = '{self.partition}'"
            )
        return self


class Lora(Section):
    """LoRA: the model is frozen, and low-rank adapters beside some layers train."""

    rank: Count = 8
    """Rank of each adapter."""
    alpha: Positive = 16.0
    """Scale of the adapters: alpha / rank times their product."""
    targets: Annotated[Names, Field(min_length=1)]
    """Layers that get an adapter: names, or ends of names."""
    train: Names = ()
    """Layers that train as they are, such as a classifier's head: names, or ends of names."""
    dropout: Rate = 0.0
    """Share of an adapter's inputs that is dropped while training."""


class Model(Part):
    """The architecture.

    Every other key of the table is an option of the architecture; see `fedsim list models`.
    """

    name: str = "mlp"
    """Architecture, or `package.module:function`; see `fedsim list models`."""
    base: str | None = None
    """Safetensors file of the frozen parameters, such as `base.safetensors` of a run; built from
    the seed if omitted."""
    lora: Lora | None = None
    """Adapters in place of the whole model; needs peft."""


class Local(Section):
    """What each client does in a round."""

    optimizer: Optimizer = "sgd"
    """The client's optimizer, with PyTorch's defaults; adam and adamw start anew in every round
    and need an lr."""
    lr: Positive = 0.3
    """Learning rate of the client's optimizer."""
    batch_size: Count = 16
    """Number of examples per step."""
    epochs: Count = 1
    """Number of passes over the client's examples; 1 with fedsgd."""
    momentum: Rate = 0.0
    """Momentum of the client's SGD; 0 with fedsgd, adam and adamw."""
    label_smoothing: Rate = 0.0
    """Label smoothing of the cross-entropy."""
    upload: Upload | None = None
    """What the client uploads; gradient with fedsgd and weights otherwise if omitted."""

    @model_validator(mode="after")
    def _adaptive(self) -> "Local":
        if self.optimizer == "sgd":
            return self
        if "lr" not in self.model_fields_set:
            raise ValueError(
                f"lr: must be set with optimizer = '{self.optimizer}', whose steps are of the size "
                "of lr, got the default"
            )
        if self.momentum:
            raise ValueError(
                f"momentum: must be 0 with optimizer = '{self.optimizer}', got {self.momentum}"
            )
        return self
