"""The attacks of a run that lists none: those that its kind of model allows."""

from fedsim.config import Config, Part
from fedsim.core.form import Kind

OTHERS: dict[Kind, tuple[Part, ...]] = {
    "tokens": (Part(name="llg"), Part(name="eb-gls-rounds"), Part(name="token-rows")),
    "language": (Part(name="token-rows"), Part(name="row-bayes")),
}


def with_attacks(config: Config, kind: Kind) -> Config:
    """Return the config, with attacks on this kind of model where it lists none by itself.

    Args:
        config: As it was given; those of a run folder list their attacks.
        kind: Of the model.
    """
    if kind not in OTHERS or "attack" in config.model_fields_set:
        return config
    return config.model_copy(update={"attack": OTHERS[kind]})
