"""The hook of the site: fills `<!-- generated: NAME -->` in a page with text made from the code."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import accepts
import attacks
import command_line
import config_keys
import defenses_page
import ledger
import parts
import results

GENERATED: dict[str, Callable[[], str]] = {
    "accepts": accepts.page,
    "config": config_keys.page,
    "command line": command_line.page,
    "attacks": attacks.page,
    "defenses": defenses_page.page,
    "ledger": ledger.page,
    "results": results.page,
    "audit methods": parts.audit_methods,
    **{kind: partial(parts.table_of, kind) for kind in parts.KINDS},
}
_MARK = re.compile(r"<!-- generated: ([\w -]+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put generated text where a page asks for it; an unknown name stops the build."""
    return _MARK.sub(lambda mark: GENERATED[mark[1]](), markdown)


def on_config(config: Any) -> Any:
    """Let the site be built again when the code changes, under `mkdocs serve`."""
    root = Path(config.config_file_path).parent
    config.watch += [str(root / room) for room in accepts.PACKAGES]
    return config
