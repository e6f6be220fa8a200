"""What stands beside the code: one version, a short README, commands and settings that exist."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

import fedsim
from adversary.attacks import ATTACKS
from adversary.games.records import Pool
from fedsim import config as configs
from fedsim.cli.main import app
from fedsim.core.rng import generator
from fedsim.core.secrets import Rules
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from fedsim.data.check import checked

ROOT = Path(__file__).parents[1]
PACKAGES = ("fedsim", "strategies", "clients", "adversary", "defenses")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACEHOLDERS = ("COMMAND", "KIND", "FOLDER.toml")


def test_one_version_is_stated_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = project["version"]
    assert fedsim.__version__ == version
    assert f"\n## {version} (" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_every_package_says_that_it_is_typed():
    assert all((ROOT / package / "py.typed").exists() for package in PACKAGES)


def test_the_readme_is_a_first_page():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert missing == []


def test_no_command_needs_a_file_outside_the_clone():
    assert [page.name for page in PAGES if "../shared" in page.read_text()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_shows_is_understood(page):
    for language, text in FENCE.findall(page.read_text()):
        if language in ("sh", "text"):
            for words in _commands(text):
                _check_command(words)
        elif language == "python":
            compile(text, str(page), "exec")
        elif language == "toml" and "partition-id" not in text:  # of a node's operator
            configs.parse(tomllib.loads(text))


def test_a_wrong_command_is_noticed():
    with pytest.raises(Exception, match="No such option"):
        _check_command(["run", "--sett", "seed=1"])
    with pytest.raises(Exception, match="federation.round"):
        _check_command(["run", "--set", "federation.round=1"])
    with pytest.raises(AssertionError):
        _check_command(["attack", "runs/first", "--with", "llgg"])


def test_the_parts_that_pages_show_are_parts():
    stream = generator(0, "docs")
    params = {"head.weight": torch.ones(3, 2), "head.bias": torch.ones(3)}
    defense = _shown("add-a-defense")["DEFENSE"].make(rate=0.5)
    assert float(defense.apply(params, {}, stream)[0]["head.bias"][0]) == 0.5

    dataset = _shown("data")["records"](Path())
    model = _shown("model")["two_layers"](dataset.input_shape, dataset.num_classes, width=4)
    assert model(dataset.inputs[:2]).shape == (2, dataset.num_classes)

    view = View([Observation(params, Update(1, "0", params, 7), LocalTraining(0.1, 4))])
    attack = _shown("add-an-attack")["ATTACKS"][0]
    assert attack.infer(view, Auxiliary(model, 3), stream).tolist() == [7, 0, 0]

    pool = Pool(dataset.inputs, dataset.labels, dataset.labels)
    secrets = torch.tensor([0, 1])
    draws = _shown("add-a-game")["GAME"].sample(pool, Rules(4), secrets, stream)
    assert draws.inputs.shape == (2, 4, 20)


def test_the_images_of_a_data_set_of_ones_own_become_pixels():
    dataset = checked("pictures", _shown("data", 1)["pictures"](None))
    assert dataset.input_shape == (1, 8, 8)
    assert 0.8 < float(dataset.inputs.max()) <= 1
    assert len(dataset.remarks) == 1


def _shown(page, place=0):
    """Return the names that a Python block of a how-to page defines, the first one if not said."""
    blocks = FENCE.findall((ROOT / "docs" / "how-to" / f"{page}.md").read_text())
    names: dict[str, Any] = {}
    exec([text for language, text in blocks if language == "python"][place], names)
    return names


def _commands(text):
    """Return the words of each `fedsim …` in a block, with `uv run` or without."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in line.partition(" #")[0].split(" && "):
            words = re.match(r"(?:uv run )?fedsim (.+)", part.strip())
            if words and not any(word in words[1] for word in PLACEHOLDERS):
                yield shlex.split(words[1])


def _check_command(words):
    """Parse the words as the command line does, and the settings as a run does."""
    command, name = typer.main.get_command(app), "fedsim"
    while hasattr(command, "commands"):
        name, *words = words
        if name.startswith("claims") or name.endswith(":"):  # the output of a command
            return
        command = command.commands[name]
    with command.make_context(name, list(words)) as context:
        given = context.params
    overs = [configs.parse_over(text) for text in given.get("over") or ()]
    for cell in configs.cells(None, given.get("set_") or (), overs):
        for attack in cell.config.attack:
            assert ":" in attack.name or attack.name in ATTACKS, attack.name
    for attack in (given.get("with_") or "llg").split(","):
        assert ":" in attack or attack in ATTACKS, attack
