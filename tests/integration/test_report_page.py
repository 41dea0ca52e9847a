"""The pages of a run as a person sees them.

They are opened from disk in headless Chromium, without a network.
"""

import csv
import io
import json
import os
import re
import shutil
from importlib.resources import files

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

pytestmark = pytest.mark.thorough

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # any request that is not a file fails, and then shows as an error on the console
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
DESKTOP, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, its console readable.

    On machines without it the tests are skipped, but not where CI is set.
    """
    program = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    driver = shutil.which("chromedriver")
    if not (program and driver):
        if os.environ.get("CI"):
            pytest.fail("Chromium and its driver are not installed; .ci/run should have done it")
        pytest.skip("Chromium and its driver (Debian: chromium chromium-driver) are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as opened:
        opened.implicitly_wait(
            10
        )  # where a machine has more to do, a page is there before all of it is
        yield opened


@pytest.fixture
def page(finished, browser):
    """The tiny run's page, opened from disk."""
    browser.get_log("browser")
    resize(browser, DESKTOP)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    browser.get((finished[0].folder / "reports/tiny/index.html").as_uri())
    return browser


def resize(browser, size):
    # Chromium's windows have a least width; the emulated screen has none.
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def column(table, number):
    return [
        row.find_elements(By.TAG_NAME, "td")[number].text
        for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")
    ]


def view(page, name):
    """The interactive view of a figure, when it is drawn."""
    place = page.find_element(By.CSS_SELECTOR, f".view[data-view={name}]")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", place)
    place.find_element(By.TAG_NAME, "svg")
    return place


def opened_table(page, title):
    """The part of the page with a table and its tools, unfolded."""
    details = page.find_element(By.XPATH, f"//details[summary[normalize-space()='Table: {title}']]")
    page.execute_script(
        "arguments[0].open = true; arguments[0].scrollIntoView({block: 'center'})", details
    )
    return details.find_element(By.CLASS_NAME, "part")


def press(page, element):
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def test_nothing_fails_and_every_figure_shows(page):
    for name in ("tradeoff", "ri_matrix", "accuracy_matrix"):
        view(page, name)
    images = page.find_elements(By.CSS_SELECTOR, "figure img")
    assert len(images) == 12
    for image in images:
        assert image.get_property("naturalWidth") > 300 and image.get_attribute("alt")
    assert sum(image.is_displayed() for image in images) == 12 - 3, "three have an interactive view"
    fetched = (
        "return performance.getEntriesByType('resource')"
        ".filter(e => !e.name.startsWith('data:')).length"
    )
    assert page.execute_script(fetched) == 0
    assert page.get_log("browser") == []


def test_a_table_sorts_by_number_and_back(page):
    part = opened_table(page, "Mean robustness improvement")
    table = part.find_element(By.TAG_NAME, "table")
    headers = table.find_elements(By.TAG_NAME, "th")
    number = [header.text.split()[0] for header in headers].index("mRI")
    header = headers[number]
    for order in ("ascending", "descending"):
        press(page, header.find_element(By.TAG_NAME, "button"))
        values = [float(text.replace("\N{MINUS SIGN}", "-")) for text in column(table, number)]
        assert values == sorted(values, reverse=order == "descending") and len(set(values)) > 1
        assert header.get_attribute("aria-sort") == order
    press(page, table.find_elements(By.CSS_SELECTOR, "th button")[1])
    assert column(table, 1) == sorted(column(table, 1), key=str.lower)
    assert header.get_attribute("aria-sort") is None


def test_a_table_is_filtered_and_copied_as_csv(page):
    page.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    part = opened_table(page, "Accuracy on every dataset")
    rows = part.find_elements(By.CSS_SELECTOR, "tbody tr")
    part.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("Pretrained")
    shown = [row for row in rows if row.is_displayed()]
    assert 0 < len(shown) < len(rows) and all("pretrained" in row.text for row in shown)
    press(page, part.find_element(By.CLASS_NAME, "copy"))
    WebDriverWait(page, 20).until(
        lambda _: "copied" in part.find_element(By.TAG_NAME, "output").text
    )
    copied = page.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    head, *lines = csv.reader(io.StringIO(copied))
    assert head == [cell.text for cell in part.find_elements(By.CSS_SELECTOR, "th button")]
    assert lines == [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in shown]


def test_a_view_is_filtered_and_shows_number_and_interval_below_the_pointer(page):
    matrix = view(page, "ri_matrix")

    def cells():
        return matrix.find_elements(By.CSS_SELECTOR, "g.mark-rect.role-mark path")

    every, choice = (
        len(cells()),
        Select(matrix.find_element(By.XPATH, ".//label[contains(., 'Method')]//select")),
    )
    choice.select_by_index(1)
    WebDriverWait(page, 20).until(lambda _: 0 < len(cells()) < every)
    choice.select_by_index(0)
    WebDriverWait(page, 20).until(lambda _: len(cells()) == every)
    ActionChains(page).move_to_element(cells()[0]).perform()
    shown = WebDriverWait(page, 20).until(
        lambda _: page.find_element(By.CSS_SELECTOR, "#vg-tooltip-element.visible").text
    )
    assert re.search(r"RI\D*[+-]\d+\.\d, [+-]\d+\.\d to [+-]\d+\.\d", shown)


def test_a_cell_of_ri_opens_what_explains_it(page, finished):
    facts = json.loads((finished[0].folder / "reports/tiny/tables/cells.json").read_text())["cells"]
    matrix, panel = view(page, "ri_matrix"), page.find_element(By.ID, "cell")

    def chosen():
        return "/".join(Select(own).first_selected_option.get_attribute("value") for own in selects)

    selects = panel.find_elements(By.TAG_NAME, "select")
    opened = set()
    for cell in matrix.find_elements(By.CSS_SELECTOR, "g.mark-rect.role-mark path")[:5]:
        page.execute_script("arguments[0].scrollIntoView({block: 'center'})", cell)
        ActionChains(page).move_to_element(cell).click().perform()
        opened.add(run := chosen())
        shown = panel.find_element(By.CLASS_NAME, "explained")
        assert all(
            f"{name}: {before} of {n}" in shown.text for name, n, before, _ in facts[run]["classes"]
        )
        images = shown.find_elements(By.TAG_NAME, "img") if facts[run]["flips"] else []
        assert len(images) == len(facts[run]["flips"]) and all(
            own.get_property("naturalWidth") for own in images
        )
    assert len(opened) > 1 and opened <= set(facts)
    for own in selects:
        Select(own).select_by_index(0)
    assert chosen() in facts and panel.find_element(By.CLASS_NAME, "explained").text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_violation_of_accessibility_is_found(page, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    for name in ("tradeoff", "ri_matrix", "accuracy_matrix"):
        view(page, name)
    opened_table(page, "Mean robustness improvement")
    page.execute_script((files("axe_core_python") / "axe.min.js").read_text())
    page.set_script_timeout(100)
    found = page.execute_async_script("axe.run({resultTypes: ['violations']}).then(arguments[0])")
    assert len(found["passes"]) > 15
    assert [part for part in found["violations"] if part["impact"] in ("serious", "critical")] == []


def test_the_navigation_stays_in_view_and_leads_to_each_question(page):
    nav = page.find_element(By.CSS_SELECTOR, "nav")
    for link in nav.find_elements(By.TAG_NAME, "a"):
        link.click()
        title = page.find_element(By.ID, link.get_attribute("href").partition("#")[2])
        above, top = (
            page.execute_script("return arguments[0].getBoundingClientRect().top", own)
            for own in (nav, title)
        )
        assert above == 0 and -1 <= top < page.get_window_size()["height"]


def test_the_page_is_printed_with_its_pictures_and_tables(page):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert all(image.is_displayed() for image in page.find_elements(By.CSS_SELECTOR, "figure img"))
    assert not any(
        part.is_displayed()
        for part in page.find_elements(By.CSS_SELECTOR, ".view-box, nav, .tools")
    )
    assert all(part.size["height"] > 30 for part in page.find_elements(By.TAG_NAME, "table"))


def test_a_phone_shows_what_scrolls_sideways(page):
    resize(page, PHONE)
    part = opened_table(page, "Mean robustness improvement")
    hint, box = (part.find_element(By.CLASS_NAME, name) for name in ("sideways", "wide"))
    WebDriverWait(page, 20).until(lambda _: hint.is_displayed())
    page.execute_script("arguments[0].scrollLeft = arguments[0].scrollWidth", box)
    WebDriverWait(page, 20).until(lambda _: "at-end" in box.get_attribute("class"))
    scrolling_and_marked = (
        "return [...document.querySelectorAll('.wide')].filter((box) => box.checkVisibility())"
        ".map((box) => [box.scrollWidth > box.clientWidth + 1, box.matches('.scrolls')])"
    )
    for size in (PHONE, DESKTOP):
        resize(page, size)
        WebDriverWait(page, 20).until(
            lambda _: all(
                scrolls == marked for scrolls, marked in page.execute_script(scrolling_and_marked)
            )
        )


def test_the_answer_and_its_figure_are_on_the_first_screen_side_by_side(page):
    resize(page, (1400, 900))
    answer = page.find_element(By.CLASS_NAME, "answer")
    figure = page.find_element(By.ID, "tradeoff")
    assert figure.rect["x"] >= answer.rect["x"] + answer.rect["width"]
    assert answer.rect["y"] + answer.rect["height"] < 900 and figure.rect["y"] < 200


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_fits_its_screen(page, size):
    resize(page, size)
    assert page.execute_script("return document.documentElement.scrollWidth") <= size[0]
    font = page.execute_script("return parseFloat(getComputedStyle(document.body).fontSize)")
    assert font >= 16


def test_links_lead_to_what_is_there(page, finished):
    links = {link.get_attribute("href") for link in page.find_elements(By.TAG_NAME, "a")}
    paths = [
        link.removeprefix("file://")
        for link in links
        if link.startswith("file://") and "#" not in link
    ]
    assert len(paths) > 12 * 3 + 16 and all(map(os.path.exists, paths))
    anchors = {link.partition("#")[2] for link in links if "#" in link}
    assert anchors and all(page.find_elements(By.ID, anchor) for anchor in anchors)


def test_snakemakes_report_shows_figures_with_captions(reported, browser):
    browser.get_log("browser")
    resize(browser, DESKTOP)
    browser.get((reported.folder / "reports/tiny/report.html").as_uri())
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert "Robustness Inheritance Benchmark" in browser.find_element(By.TAG_NAME, "body").text
    for link in ("Results", "Figures"):
        browser.find_element(By.XPATH, f"//a[normalize-space()='{link}']").click()
    shown = browser.find_element(By.TAG_NAME, "body").text
    assert "ri_matrix.png" in shown and "radar.png" in shown
