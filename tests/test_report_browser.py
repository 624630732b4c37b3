"""The page in a real browser: slider and tables by key and click, wide and narrow.

Where there is no Chromium with its driver, these tests are skipped and say so.
"""

import json
import re
import shutil

import numpy as np
import pytest
import synthetic

from camri_jax.evidence import report

webdriver = pytest.importorskip("selenium.webdriver")
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
STATE = """
const one = selector => document.querySelector(selector);
return {
    asked: one('output').textContent,
    said: one('.said').textContent,
    rows: [...one('.prices').tBodies[0].rows].map(row => row.innerText),
    cells: [...document.querySelectorAll('.confusion td')].map(c => c.textContent),
    places: [...document.querySelectorAll('.cursor')].map(
        cursor => cursor.getBoundingClientRect().x),
}
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    directory = tmp_path_factory.mktemp("results")
    study = synthetic.load(directory, synthetic.SPECS[::2], num_seeds=2)
    path = directory / "report.html"
    path.write_text(report.page(study), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(page):
    """Chromium with the page open and all unfolded, and a log of what it asked for."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    logs = {"browser": "ALL", "performance": "ALL"}
    options.set_capability("goog:loggingPrefs", logs)
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    browser.get(page.as_uri())
    browser.execute_script(
        "document.querySelectorAll('details').forEach(d => { d.open = true; })"
    )
    yield browser
    browser.quit()


def look(browser, width, scheme):
    """Sets the screen's width and colour scheme."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )


def test_nothing_is_asked_of_the_network_and_no_error_is_logged(browser):
    asked = [
        message["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"]
        == "Network.requestWillBeSent"
    ]
    assert asked
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_screen_and_is_read_easily(browser, width, scheme):
    look(browser, width, scheme)
    inner, scrolled = browser.execute_script(
        "return [innerWidth, document.documentElement.scrollWidth]"
    )
    assert scrolled <= inner == width
    places = ("body", "td", "tbody th", ".note", ".lead", "summary", "figure svg text")
    for selector in (*places, ".mark", "a[href='#main']"):
        assert contrast(browser, selector) >= 4.5, selector
    pictures = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')].map(svg => ["
        "svg.clientWidth, svg.clientHeight, svg.getAttribute('aria-label')])"
    )
    assert len(pictures) == 5
    for wide, high, text in pictures:
        assert min(wide, high) > 200
        assert len(text) > 50


def contrast(browser, selector):
    """Contrast of an element's text with what lies behind it, as WCAG defines it."""
    colours = browser.execute_script(
        """
        let element = document.querySelector(arguments[0]);
        const style = getComputedStyle(element);
        const text = element.closest('svg') ? style.fill : style.color;
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


def test_the_slider_moves_numbers_sentence_confusions_and_lines_by_key(browser):
    look(browser, 1280, "light")
    slider = browser.find_element("css selector", "input[type=range]")
    assert slider.is_displayed()
    before = browser.execute_script(STATE)
    assert before["asked"] == "95 %"
    slider.send_keys(Keys.ARROW_RIGHT)
    after = browser.execute_script(STATE)
    assert after["asked"] == "96 %" == slider.get_attribute("aria-valuetext")
    assert "To find 96 %" in after["said"]
    found = int(re.search(r"finds (\d+) of 80", after["said"])[1])
    assert found == 77 == int(after["cells"][5])
    assert any("77 of 80" in row for row in after["rows"])
    assert len(after["places"]) == 2
    assert all(b > a for a, b in zip(before["places"], after["places"], strict=True))
    slider.send_keys(Keys.END)
    last = browser.execute_script(STATE)
    assert last["asked"] == "99.9 %"
    for place, panel in zip(
        last["places"],
        browser.find_elements("css selector", ".panels svg"),
        strict=True,
    ):
        assert 0.85 < (place - panel.rect["x"]) / panel.rect["width"] < 1
    slider.send_keys(Keys.ARROW_LEFT, Keys.HOME)
    assert browser.execute_script(STATE)["asked"] == "80 %"


COLUMN = """
const table = document.getElementById(arguments[0]);
return [...table.tBodies[0].rows].map(row => row.cells[arguments[1]].innerText)
"""


def numbers(cells):
    """What cells start with, None where they are blank."""
    found = [re.match(r"\s*(<?[-+]?[\d.,]+)", cell) for cell in cells]
    return [float(m[1].strip("<").replace(",", "")) if m else None for m in found]


@pytest.mark.parametrize("table", ["s1-1-tables", "s1-3-tables", "s1-1-seeds"])
def test_tables_are_sorted_by_click_as_numbers_with_blanks_last(browser, table):
    look(browser, 1280, "light")
    headers = browser.find_elements("css selector", f"#{table} thead th")
    for i, header in enumerate(headers[1:], start=1):
        before = browser.execute_script(COLUMN, table, i)
        button = header.find_element("css selector", "button")
        for order in ("ascending", "descending"):
            browser.execute_script("arguments[0].click()", button)
            assert header.get_attribute("aria-sort") == order
            cells = browser.execute_script(COLUMN, table, i)
            assert sorted(cells) == sorted(before)
            blank = [not cell.strip() for cell in cells]
            assert blank == sorted(blank)
            values = [v for v in numbers(cells) if v is not None]
            assert values == sorted(values, reverse=order == "descending")


def test_tables_are_sorted_by_key_and_the_focus_is_seen(browser):
    look(browser, 1280, "light")
    header = browser.find_element("css selector", "#s1-ranked thead th:nth-child(3)")
    region = browser.find_element("css selector", ".scroll:has(#s1-ranked)")
    browser.execute_script("arguments[0].focus()", region)
    for _ in range(3):
        browser.switch_to.active_element.send_keys(Keys.TAB)
    button = browser.switch_to.active_element
    assert button == header.find_element("css selector", "button")
    outline = "return getComputedStyle(arguments[0]).outlineStyle"
    assert browser.execute_script(outline, button) != "none"
    button.send_keys(Keys.ENTER)
    alarms = numbers(browser.execute_script(COLUMN, "s1-ranked", 2))
    assert alarms == sorted(alarms)


def test_the_first_key_leads_past_the_contents(browser):
    skip = browser.find_element("css selector", ".skip")
    browser.execute_script("arguments[0].focus()", skip)
    assert skip.rect["x"] >= 0
    skip.send_keys(Keys.ENTER)
    assert browser.switch_to.active_element.get_attribute("id") == "main"


def test_the_page_reads_without_scripts(browser):
    command = "Emulation.setScriptExecutionDisabled"
    browser.execute_cdp_cmd(command, {"value": True})
    try:
        browser.refresh()
        text = browser.find_element("css selector", "main").text
        assert not browser.find_element("css selector", ".asked").is_displayed()
    finally:
        browser.execute_cdp_cmd(command, {"value": False})
    assert "To find 95 %" in text
    assert "76 of 80" in text
    assert "Take " in text
