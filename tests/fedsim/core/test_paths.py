import pytest

from clients.operator import operator
from clients.site import site
from fedsim import config
from fedsim.core.errors import ConfigError
from fedsim.core.paths import user_path


@pytest.mark.parametrize("text", ["x" * 256, "é" * 128, "a/" * 2100, f"~/{'x' * 300}"])
def test_a_path_that_no_file_can_have_is_refused(text):
    with pytest.raises(ConfigError, match="data.root: must be a path with names of at most 255"):
        user_path("data.root", text)
    assert str(user_path("data.root", "x" * 255)) == "x" * 255


def test_a_server_that_names_such_a_file_is_refused(tmp_path):
    run = config.read(None, ['data={name="digits", partition="user"}', f"data.users={'x' * 5000}"])
    for node in ({}, {"data-root": str(tmp_path)}):
        with pytest.raises(ConfigError, match="data.users: must be a path with names"):
            site(config.to_json(run), operator({"partition-id": 0, **node}))
