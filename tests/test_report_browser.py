"""The page in a real browser: sorted by click and key, light and dark, wide and narrow.

Where there is no Chromium with its driver, these tests are skipped and say so.
"""

import json
import re
import shutil

import numpy as np
import pytest
from synthetic import script, write

from camri_jax.evidence import curves

webdriver = pytest.importorskip("selenium.webdriver")
WebDriverWait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait
Keys = webdriver.Keys

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="NO CHROMIUM with chromedriver on this machine: the page was not opened",
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SORTABLE = """
const tables = [...document.querySelectorAll("table[id$='-table']")];
return tables.length && tables.every(table => table.matches('.dataTable'));
"""
COLUMN = """
const table = document.getElementById(arguments[0]);
return [...table.tBodies[0].rows].map(row => row.cells[arguments[1]].innerText)
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    directory = tmp_path_factory.mktemp("results")
    write(directory, num_seeds=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "RECALLS", np.linspace(0, 1, 11))
        script("report").main([str(directory)])
    return directory / "report.html"


@pytest.fixture(scope="module")
def browser(page):
    """Chromium with the page open, and a log of what it asked for."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    browser.get(page.as_uri())
    wait(browser, lambda: browser.execute_script(SORTABLE))
    yield browser
    browser.quit()


def wait(browser, condition):
    WebDriverWait(browser, 20, poll_frequency=0.05).until(lambda _: condition())


def wait_for_order(browser, header, order):
    wait(browser, lambda: header.get_attribute("aria-sort") == order)


def look(browser, width, scheme):
    """Sets the screen's width and colour scheme."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )


def numbers(cells):
    """What cells start with, infinite where that is no number."""
    found = []
    for cell in cells:
        digits = re.split("[^-+.0-9]|(?<=[0-9])-", cell.replace(",", "").strip("< "))[0]
        found.append(float(digits or "inf"))
    return found


def test_nothing_is_asked_of_the_network_and_no_error_is_logged(browser):
    asked = [
        message["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"]
        == "Network.requestWillBeSent"
    ]
    assert asked
    assert {url.split(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_is_seen_and_has_a_text_in_its_place(browser, scheme):
    look(browser, 1280, scheme)
    sources = browser.execute_script(
        "return [...document.querySelectorAll('picture')].map(p => ["
        "p.querySelector('img').src, p.querySelector('source').srcset])"
    )
    wanted = [light if scheme == "light" else dark for light, dark in sources]
    shown = "return [...document.images].map(i => i.currentSrc)"
    wait(browser, lambda: browser.execute_script(shown) == wanted)
    images = browser.execute_async_script("""
        const done = arguments[0], images = [...document.images];
        Promise.all(images.map(i => i.decode())).then(() => done(images.map(i => [
            i.naturalWidth, i.naturalHeight, i.clientWidth, i.clientHeight, i.alt])));
    """)
    assert len(images) == 5
    for *sizes, text in images:
        assert min(sizes) > 100
        assert len(text) > 50
        assert "accuracy" in text or "recall" in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_the_page_fits_the_screen_and_is_read_easily(browser, width, scheme):
    look(browser, width, scheme)
    assert browser.execute_script("return innerWidth") == width
    assert (
        browser.execute_script("return document.documentElement.scrollWidth") <= width
    )
    for selector in ("body", "td", "tbody th", ".note", ".verdict", "a[href='#made']"):
        assert contrast(browser, selector) >= 4.5, selector


def contrast(browser, selector):
    """Contrast of an element's text with what lies behind it, as WCAG defines it."""
    colours = browser.execute_script(
        """
        let element = document.querySelector(arguments[0]);
        const text = getComputedStyle(element).color;
        const clear = 'rgba(0, 0, 0, 0)';
        const back = e => getComputedStyle(e).backgroundColor;
        while (back(element) === clear && element.parentElement)
            element = element.parentElement;
        return [text, back(element)];
        """,
        selector,
    )
    light = sorted(luminance(colour) for colour in colours)
    return (light[1] + 0.05) / (light[0] + 0.05)


def luminance(colour):
    channels = np.array([int(x) for x in colour.strip("rgb()").split(",")[:3]]) / 255
    linear = np.where(
        channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
    )
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("table", ["s1-3-table", "s1-6-table"])
def test_tables_are_sorted_by_click_as_numbers_with_blanks_last(browser, table):
    look(browser, 1280, "light")
    headers = browser.find_elements("css selector", f"#{table} thead th")
    assert len(headers) > 3
    for i, header in enumerate(headers[1:], start=1):
        before = browser.execute_script(COLUMN, table, i)
        header.click()
        wait_for_order(browser, header, "ascending")
        rising = browser.execute_script(COLUMN, table, i)
        header.click()
        wait_for_order(browser, header, "descending")
        falling = browser.execute_script(COLUMN, table, i)
        assert sorted(rising) == sorted(falling) == sorted(before)
        assert numbers(rising) == sorted(numbers(before))
        assert numbers(falling) == numbers(rising)[::-1]


def test_tables_are_sorted_by_keyboard(browser):
    look(browser, 1280, "light")
    header = browser.find_elements("css selector", "#s1-1-table thead th")[4]
    button = header.find_element("css selector", "[tabindex='0']")
    region = browser.find_element("css selector", "[aria-labelledby='s1-1']")
    browser.execute_script("arguments[0].focus()", region)
    for _ in range(5):
        browser.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.switch_to.active_element == button
    outline = "return getComputedStyle(arguments[0]).outlineStyle"
    assert browser.execute_script(outline, button) != "none"
    button.send_keys(Keys.ENTER)
    wait_for_order(browser, header, "ascending")
    column = browser.execute_script(COLUMN, "s1-1-table", 4)
    assert numbers(column) == sorted(numbers(column))


def test_the_first_key_leads_past_the_contents(browser):
    browser.execute_script("document.activeElement.blur(); window.focus()")
    browser.find_element("css selector", "body").send_keys(Keys.HOME, Keys.TAB)
    skip = browser.find_element("css selector", ".skip")
    browser.execute_script("arguments[0].focus()", skip)
    assert skip.rect["x"] >= 0
    skip.send_keys(Keys.ENTER)
    assert browser.switch_to.active_element.get_attribute("id") == "main"


def test_tables_have_captions_and_row_headers(browser):
    tables = browser.find_elements("css selector", "table.dataTable")
    headings = [h.text for h in browser.find_elements("css selector", "h3")]
    for table in tables:
        caption = table.find_element("css selector", "caption")
        assert caption.get_attribute("textContent") in headings
        rows = table.find_elements("css selector", "tbody tr")
        assert all(row.find_elements("css selector", "th") for row in rows)
