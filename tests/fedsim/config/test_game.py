import pytest

from fedsim.config import read
from fedsim.core.errors import ConfigError


@pytest.mark.parametrize("number", ["nan", "inf", "NAN", "Infinity"])
def test_what_nothing_lies_above_is_refused(number):
    with pytest.raises(ConfigError, match=r"game\.above: .*finite"):
        read(None, ["game.column=age", f"game.above={number}"])
