"""What a run shows of itself in a notebook: a line, its setting, and one static picture."""

import base64
import time
from html import escape
from pathlib import Path

from fedsim.core.catalog import nothing_imported
from fedsim.core.errors import FedsimError, one_line, plain
from fedsim.report.data import RunData
from fedsim.report.figures import STYLE
from fedsim.report.over_rounds import over_rounds
from fedsim.run.glance import Glance, line_of
from fedsim.run.run_folder import RunFolder
from fedsim.run.setting import changed, words


def notebook_html(each: Glance) -> str:
    """Return a run as HTML to stand in a page: no script, no network, all text escaped.

    It says what is wrong where a run cannot be read or drawn. Nothing is raised.
    """
    name = escape(plain(each.path))
    if each.state == "unreadable":
        return f"<div><b>{name}</b>: unreadable<br>{escape(each.reason or '')}</div>"
    date = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.date))
    setting = words(changed(each.config)) if each.config else "another app's recording"
    lines = [line_of(each), f"begun {date}; setting: {setting}"]
    lines += [f"failed: {each.reason}"] if each.reason else []
    text = "<br>".join(escape(plain(line)) for line in lines)
    return f"<div><b>{name}</b><br>{text}<br>{image_html(each.path)}</div>"


def image_html(path: Path) -> str:
    """Return leakage and accuracy over rounds as an image, or why there is none.

    An image has its own names of elements: several runs can stand in one page.
    """
    import matplotlib as mpl

    try:
        with nothing_imported(), mpl.rc_context(STYLE):
            picture = over_rounds(RunData(RunFolder(path)))
    except FedsimError as error:
        return f"No picture: {escape(plain(error))}"
    except Exception as error:  # whoever made the folder decides what drawing it raises
        return f"No picture: {escape(plain(one_line(error)))}"
    data = base64.b64encode(picture.svg.encode()).decode()
    title = escape(picture.title)
    return (
        f'<img alt="{title}" title="{escape(picture.caption)}" '
        f'style="max-width: 100%; background: #fff" src="data:image/svg+xml;base64,{data}">'
    )
