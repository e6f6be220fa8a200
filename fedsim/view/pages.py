"""What the view shows: all runs, and one run while it has no report yet."""

import time
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fedsim.core.errors import FedsimError, one_line, plain
from fedsim.core.units import name_of, written
from fedsim.report.notebook import image_html
from fedsim.run.glance import Glance, by_skill
from fedsim.run.outcomes import answers_of
from fedsim.run.run_folder import REPORT, RunFolder
from fedsim.run.setting import apart, changed, words
from fedsim.view.shelf import Shelf, version
from fedsim.view.templates import TEMPLATES

if TYPE_CHECKING:
    import jinja2

SOON, LATER = 2, 10  # seconds between a page's questions: while something runs, and else


class Page:
    """A page, and the part of it that changes.

    Attributes:
        rows: The part, as HTML.
        version: Changes with it.
        wait: Seconds after which to ask again.
    """

    def __init__(self, kind: str, rows: str, *, running: bool, **values: Any) -> None:
        self.rows, self.version = rows, version({"rows": rows})
        self.wait = SOON if running else LATER
        self._kind, self._values = kind, values

    def html(self, nonce: str) -> bytes:
        """Return the whole page; `nonce` marks the script that may run."""
        import markupsafe

        values = {**self._values, "rows": markupsafe.Markup(self.rows)}
        text = _render(self._kind, **values, version=self.version, wait=self.wait, nonce=nonce)
        return text.encode("utf-8", "replace")


def index(shelf: Shelf) -> Page:
    """Return the page of all runs, the newest first."""
    glances = shelf.glances()
    texts = iter(map(words, apart([each.config for each in glances.values() if each.config])))
    runs = [_facts(key, each, next(texts) if each.config else "") for key, each in glances.items()]
    running = any(each.state == "running" for each in glances.values())
    root = plain(shelf.root.absolute())
    rows = _render("rows", runs=runs, groups=list(shelf.groups()))
    return Page("index", rows, running=running, title=root, root=root, url="/rows")


def live(shelf: Shelf, key: str) -> Page:
    """Return the page of one run from its tables: how far it is, and what leaked so far.

    Raises:
        KeyError: There is no such run.
    """
    path = shelf.paths()[key]
    each = shelf.glance(key, path)
    facts = _facts(key, each, words(changed(each.config)) if each.config else "")
    facts |= {"done": each.rounds, "planned": each.planned, "report": (path / REPORT).is_file()}
    facts |= shelf.made("live", key, path, lambda: _drawn(each))
    rows = _render("state", run=facts)
    running = each.state == "running"
    return Page("live", rows, running=running, title=key, url=f"/rows/{url_of(key)}")


def url_of(key: str) -> str:
    """Return a key as it stands in an address; names of files need not be UTF-8."""
    return quote(key, errors="surrogateescape")


def _facts(key: str, each: Glance, setting: str) -> dict[str, Any]:
    rounds = "–" if each.state == "unreadable" else str(each.rounds)
    return {
        "key": key,
        "readable": each.state != "unreadable",
        "date": time.strftime("%Y-%m-%d %H:%M", time.localtime(each.date)),
        "state": each.state,
        "reason": each.reason,
        "rounds": rounds if each.planned is None else f"{rounds}/{each.planned}",
        "accuracy": written("accuracy", each.accuracy),
        "strongest": each.attacks,
        "setting": ": ".join(filter(None, [setting, each.reason])),
    }


def _drawn(each: Glance) -> dict[str, Any]:
    """Return the table of attacks and the picture of a run; nothing where it cannot be read."""
    import markupsafe

    try:
        attacks = _attacks(RunFolder(each.path))
    except (FedsimError, OSError) as error:
        return {"attacks": [], "picture": plain(one_line(error))}
    picture = image_html(each.path) if each.rounds or attacks else ""
    return {"attacks": attacks, "picture": markupsafe.Markup(picture)}


def _attacks(folder: RunFolder) -> list[dict[str, str]]:
    """Return a row per attack, the most skilful first; those without any grade come last."""
    ledger = folder.ledger()
    missing = {each.title: each.counts for each in answers_of(ledger)}
    rows = [
        {
            "attack": each.attack,
            "metric": name_of(each.metric),
            "value": written(each.metric, each.value),
            "blind": written(each.metric, each.blind),
            "skill": written("skill", each.skill),
            "missing": missing.pop(each.attack, ""),
        }
        for each in by_skill(ledger)
    ]
    return rows + [{"attack": title, "missing": text} for title, text in missing.items()]


def _render(name: str, **values: Any) -> str:
    return _environment().get_template(name).render(**values)


@cache
def _environment() -> "jinja2.Environment":
    import jinja2

    pages = jinja2.Environment(
        loader=jinja2.DictLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters["path"] = url_of
    return pages
