"""The type checker of the slow tier: `--jaxtyping-packages=…,tests.typed.checked`."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as PEP 484 has it
