"""Pages in a browser: wide, narrow, dark and without script. Nothing overflows, loads or fails."""

import shutil

import pytest

from fedsim import api
from fedsim.run.run_folder import RunFolder
from tests.builders import small_config
from tests.fedsim.report.test_embed import CLIENT, HOSTILE, made

playwright = pytest.importorskip("playwright.sync_api", reason="needs the group `browser`")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs the system's Chromium"),
]
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 380, "height": 800}
# Elements that stick out of the page, or out of a card, unless a box around them scrolls.
OUTSIDE = """() => {
  const page = document.documentElement.clientWidth, outside = [];
  if (document.documentElement.scrollWidth > page + 1) outside.push("the page itself");
  for (const node of document.querySelectorAll("main *")) {
    if (node.closest(".scroll, .picture, svg, .u-wrap, [hidden], details:not([open])")) continue;
    const box = node.getBoundingClientRect();
    if (box.width && (box.right > page + 1 || box.left < -1))
      outside.push(`${node.tagName}.${node.className} ${box.left} to ${box.right}`);
  }
  return outside;
}"""
# Neighbours in the page's column that lie over each other, and legends over their charts.
OVERLAPS = """() => {
  const over = [], boxes = list => [...list].filter(node => node.getClientRects().length);
  for (const parent of document.querySelectorAll("main, section, .tiles, .tile, .controls")) {
    const of = boxes(parent.children);
    for (let i = 0; i < of.length; i++) for (let j = i + 1; j < of.length; j++) {
      const a = of[i].getBoundingClientRect(), b = of[j].getBoundingClientRect();
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      const inline = node => getComputedStyle(node).display === "inline";
      if (x > 2 && y > 2 && !inline(of[i]) && !inline(of[j]))
        over.push(`${of[i].tagName}.${of[i].className} over ${of[j].tagName}.${of[j].className}`);
    }
  }
  return over;
}"""
# Texts of a picture that lie over each other.
TEXTS = """() => [...document.querySelectorAll(".picture svg")].flatMap(svg => {
  const texts = [...svg.querySelectorAll("text")].map(node => [node.textContent.trim(),
    node.getBoundingClientRect()]).filter(([text, box]) => text && box.width);
  const over = [];
  for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
    const [a, b] = [texts[i][1], texts[j][1]];
    const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (x > 1 && y > 0.35 * Math.min(a.height, b.height))
      over.push(`${texts[i][0]} | ${texts[j][0]}`);
  }
  return over;
})"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as tools:
        chromium = tools.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """Return a function that opens a page and collects what it logs and requests."""
    contexts = []

    def opened(path, *, size=WIDE, scheme="light", script=True):
        context = browser.new_context(
            viewport=size, color_scheme=scheme, java_script_enabled=script
        )
        contexts.append(context)
        page, log = context.new_page(), []
        page.on("console", lambda message: log.append(message.text))
        page.on("pageerror", lambda error: log.append(str(error)))
        page.on("request", lambda request: log.append(request.url[:200]))
        page.goto(path.as_uri())
        log[:] = [entry for entry in log if entry != path.as_uri() and entry[:5] != "data:"]
        return page, log

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def pages(recordings, tmp_path_factory):
    """A run's page with everything in it, one with hostile names, and a comparison."""
    folder = tmp_path_factory.mktemp("pages")
    noisy = small_config(defense=[{"name": "gaussian", "std": 0.01}], federation={"rounds": 6})
    runs = [recordings.copy(small_config(), folder / "plain")]
    runs += [recordings.copy(noisy, folder / ("long-" * 20 + "name"))]
    odd = recordings.copy(small_config(), folder / "odd")
    made(odd, 10, 12, 3, names=["7", CLIENT, "w" * 150], last=HOSTILE)
    return {
        "run": api.report([runs[0].path]),
        "odd": api.report([odd.path]),
        "comparison": api.report([run.path for run in runs], folder / "comparison.html"),
    }


@pytest.mark.parametrize("name", ["run", "odd", "comparison"])
def test_nothing_overflows_overlaps_fails_or_is_loaded(visit, pages, name):
    for size in (WIDE, NARROW):
        page, log = visit(pages[name], size=size)
        page.wait_for_selector(".live", state="attached", timeout=20_000)
        assert page.evaluate(OUTSIDE) == []
        assert page.evaluate(OVERLAPS) == []
        assert log == []
        page.emulate_media(media="print")
        assert page.locator(".still svg").first.is_visible()
        assert page.evaluate(TEXTS) == []


def test_without_script_pictures_and_tables_stand_there(visit, pages):
    page, _ = visit(pages["run"], script=False)
    assert not page.locator("#explore").is_visible()
    assert page.locator(".still svg").first.is_visible()
    assert page.get_by_role("region", name="Clients").locator("td").first.is_visible()


def test_dark_by_preference_and_by_choice(visit, pages):
    luminance = (
        "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"
        ".slice(0, 3).reduce((sum, value) => sum + Number(value), 0)"
    )
    page, _ = visit(pages["run"], scheme="dark")
    assert page.evaluate(luminance) < 150
    page.click("#theme")
    assert page.evaluate(luminance) > 600
    page.reload()
    assert page.evaluate(luminance) > 600


def test_a_reader_chooses_hides_zooms_sorts_and_filters(visit, pages):
    page, log = visit(pages["odd"])
    page.wait_for_selector(".live", state="attached")
    page.select_option("#client", label="7")
    assert "Client 7 alone" in page.inner_text("#lines-caption")
    entry = page.locator("#lines .u-legend th").nth(1)
    entry.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "() => document.querySelectorAll('#lines .u-legend th')[1].ariaPressed === 'false'"
    )
    page.focus("#lines")
    for key in ("ArrowRight", "+"):
        page.keyboard.press(key)
    assert page.locator("#lines .u-legend .u-value").first.inner_text() not in ("", "–")
    spread = "() => charts[0][1].scales.x.max - charts[0][1].scales.x.min"
    assert page.evaluate(spread) < 11
    page.click("text=Reset zoom")
    assert page.evaluate(spread) == 11
    page.focus("#map")
    page.keyboard.press("ArrowDown")
    assert "round" in page.inner_text("#map-cell")
    attacks = page.locator("table.data", has_text="first")
    first = attacks.locator("tr").nth(1).locator("td").first.inner_text
    attacks.get_by_role("button", name="attack").click()
    assert first() == HOSTILE
    attacks.get_by_role("button", name="attack").click()
    assert first().startswith("attack-8")
    page.get_by_label("Filter rows").last.fill("attack-3")
    assert attacks.locator("tr:visible").count() == 2
    assert log == []


def test_who_leaked_most_and_when_is_in_the_page(visit, pages):
    page, _ = visit(pages["odd"])
    page.wait_for_selector(".live", state="attached")
    frame = RunFolder(pages["odd"].parent).ledger().to_pandas()
    title = page.locator("#map-attack option").first.inner_text()
    rows = frame[(frame["attack"] == title) & (frame["client"] == "7")]
    row = page.locator("#clients tr", has=page.locator("td:text-is('7')")).first
    assert row.locator("td").nth(1).inner_text() == str(rows.loc[rows["value"].idxmax(), "round"])
