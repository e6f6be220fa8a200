"""One file with one page: no network, written whole or not at all."""

from pathlib import Path
from typing import Any

from fedsim.core.files import write_whole
from fedsim.report.templates import environment


def write_page(template: str, out: Path, **values: Any) -> None:
    """Write a page.

    Args:
        template: Name of its template.
        out: The file.
        **values: What the template shows.

    Raises:
        OSError: The file cannot be written.
    """
    html = environment().get_template(template).render(**values)
    write_whole(out, lambda file: file.write_text(html, encoding="utf-8"))
