"""The frame of every page but the run report's: one file, one style, no network."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedsim.core.files import write_whole

FRAME = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fedsim: {{ title | lower }}</title>
<style>
body { margin: 0; background: #f5f5f3; color: #222; font: 15px/1.5 system-ui, sans-serif }
main { max-width: 980px; margin: 0 auto; padding: 2rem 1rem 4rem }
h1 { font-size: 1.5rem; margin: 0 0 .2rem } h2 { font-size: 1.1rem; margin: 0 0 .6rem }
section { background: #fff; border: 1px solid #e3e3df; border-radius: 8px; padding: 1.1rem 1.3rem;
  margin-top: 1rem; overflow-x: auto }
.quiet { color: #666; font-size: .87rem } svg { width: 100%; height: auto; display: block }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: .87rem }
th, td { text-align: right; padding: .25rem .5rem; border-bottom: 1px solid #eee }
th { color: #555 } .text { text-align: left }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem }
table + table { margin-top: 1rem }
.tight th, .tight td { white-space: nowrap }
.bad { color: #a11; font-weight: 600 }
</style>
</head>
<body><main>
<h1>{{ title }}</h1>
BODY
</main></body></html>
"""


def write_page(
    body: str,
    out: Path,
    *,
    title: str,
    filters: Mapping[str, Callable[..., str]] | None = None,
    **values: Any,
) -> None:
    """Write a page, whole or not at all.

    Args:
        body: Jinja template of what stands under the title.
        out: The file.
        title: Of the page.
        filters: Of the template.
        **values: Of the template.

    Raises:
        OSError: The file cannot be written.
    """
    import jinja2

    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.filters.update(filters or {})
    html = page.from_string(FRAME.replace("BODY", body)).render(title=title, **values)
    write_whole(out, lambda file: file.write_text(html, encoding="utf-8"))
