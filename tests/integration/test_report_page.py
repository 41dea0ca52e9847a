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
from pathlib import Path
from typing import NamedTuple

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
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
MINUS = "\N{MINUS SIGN}"  # how the page writes numbers below 0


class Screen(NamedTuple):
    """Size of a screen in pixels."""

    width: int
    height: int


DESKTOP = Screen(1280, 900)
PHONE = Screen(390, 844)
# Figures with an interactive view in place of their image.
VIEWS = ("tradeoff", "ri_matrix", "accuracy_matrix")
FIGURES = 12
CELLS = "g.mark-rect.role-mark path"  # of a matrix that is a view
TABLE_OF_MEANS = "Mean robustness improvement"

NUMBER_OF_FETCHED_FILES = """
    const entries = performance.getEntriesByType('resource');
    return entries.filter((entry) => !entry.name.startsWith('data:')).length;
"""
TOP = "return arguments[0].getBoundingClientRect().top"
INTO_VIEW = "arguments[0].scrollIntoView({block: 'center'})"
TO_THE_RIGHT_END = "arguments[0].scrollLeft = arguments[0].scrollWidth"
# Of each box that is shown: whether it scrolls sideways, and whether it is marked so.
SCROLLING_AND_MARKED = """
    const boxes = [...document.querySelectorAll('.wide')].filter((box) => box.checkVisibility());
    return boxes.map((box) => [box.scrollWidth > box.clientWidth + 1, box.matches('.scrolls')]);
"""
VIOLATIONS = "axe.run({resultTypes: ['violations']}).then(arguments[0])"


def path_of_chromium():
    """Path of the browser's program; None without one."""
    for name in PROGRAMS:
        path = shutil.which(name)
        if path:
            return path
    return None


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, its console readable.

    On machines without it the tests are skipped, but not where CI is set.
    """
    program = path_of_chromium()
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
        # Where a machine has more to do, a page is there before all of it is.
        opened.implicitly_wait(10)
        yield opened


def open_file(browser, path):
    """Open a page from disk, on a desktop's screen, with a console that is empty before."""
    browser.get_log("browser")
    resize(browser, DESKTOP)
    browser.get(path.as_uri())


@pytest.fixture
def finished_folder(finished):
    """Folder of the finished tiny run."""
    project, _ = finished
    return project.folder


@pytest.fixture
def page(finished_folder, browser):
    """The tiny run's page, opened from disk."""
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    open_file(browser, finished_folder / "reports/tiny/index.html")
    return browser


def resize(browser, screen):
    """Show the page on a screen of another size.

    Chromium's windows have a least width; the emulated screen has none.
    """
    metrics = {
        "width": screen.width,
        "height": screen.height,
        "deviceScaleFactor": 1,
        "mobile": screen.width < 500,
    }
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def texts_of_cells(row):
    """What the cells of a row of a table show."""
    return [cell.text for cell in row.find_elements(By.TAG_NAME, "td")]


def column(table, number):
    """What a column of a table shows, by its number from 0, in the order of the rows."""
    rows = table.find_elements(By.CSS_SELECTOR, "tbody tr")
    return [texts_of_cells(row)[number] for row in rows]


def view(page, name):
    """The interactive view of a figure, when it is drawn."""
    view_of_figure = page.find_element(By.CSS_SELECTOR, f".view[data-view={name}]")
    page.execute_script(INTO_VIEW, view_of_figure)
    view_of_figure.find_element(By.TAG_NAME, "svg")
    return view_of_figure


def opened_table(page, title):
    """The part of the page with a table and its tools, unfolded."""
    details = page.find_element(By.XPATH, f"//details[summary[normalize-space()='Table: {title}']]")
    page.execute_script("arguments[0].open = true", details)
    page.execute_script(INTO_VIEW, details)
    return details.find_element(By.CLASS_NAME, "part")


def press(page, element):
    """Click an element, after the page is scrolled to it."""
    page.execute_script(INTO_VIEW, element)
    element.click()


def wait_until(page, condition):
    """Wait until a condition holds, a function without arguments; gives what it returned."""
    return WebDriverWait(page, 20).until(lambda _: condition())


def number_of(text):
    """The number that a cell shows."""
    return float(text.replace(MINUS, "-"))


def test_nothing_fails_and_every_figure_shows(page):
    for name in VIEWS:
        view(page, name)
    images = page.find_elements(By.CSS_SELECTOR, "figure img")
    assert len(images) == FIGURES
    for image in images:
        assert image.get_property("naturalWidth") > 300
        assert image.get_attribute("alt")
    displayed = [image for image in images if image.is_displayed()]
    assert len(displayed) == FIGURES - len(VIEWS)
    assert page.execute_script(NUMBER_OF_FETCHED_FILES) == 0
    assert page.get_log("browser") == []


def test_a_table_sorts_by_number_and_back(page):
    # given
    part = opened_table(page, TABLE_OF_MEANS)
    table = part.find_element(By.TAG_NAME, "table")
    headers = table.find_elements(By.TAG_NAME, "th")
    names = [header.text.split()[0] for header in headers]
    number_of_mri = names.index("mRI")
    header_of_mri = headers[number_of_mri]

    # its mRI is sorted at the first press in one order, at the second in the other
    for order in ("ascending", "descending"):
        press(page, header_of_mri.find_element(By.TAG_NAME, "button"))
        values = [number_of(text) for text in column(table, number_of_mri)]
        assert len(set(values)) > 1
        assert values == sorted(values, reverse=order == "descending")
        assert header_of_mri.get_attribute("aria-sort") == order

    # and then another column, of texts
    number_of_texts = 1
    buttons = table.find_elements(By.CSS_SELECTOR, "th button")
    press(page, buttons[number_of_texts])
    texts = column(table, number_of_texts)
    assert texts == sorted(texts, key=str.lower)
    assert header_of_mri.get_attribute("aria-sort") is None


def test_a_table_is_filtered_and_copied_as_csv(page):
    # given
    clipboard = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    page.execute_cdp_cmd("Browser.grantPermissions", clipboard)
    part = opened_table(page, "Accuracy on every dataset")
    rows = part.find_elements(By.CSS_SELECTOR, "tbody tr")

    # when it is filtered
    part.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("Pretrained")

    # then
    shown = [row for row in rows if row.is_displayed()]
    assert 0 < len(shown) < len(rows)
    assert all("pretrained" in row.text for row in shown)

    # when it is copied
    press(page, part.find_element(By.CLASS_NAME, "copy"))
    wait_until(page, lambda: "copied" in part.find_element(By.TAG_NAME, "output").text)

    # then the copy has what is shown
    copied = page.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    head, *lines = csv.reader(io.StringIO(copied))
    buttons = part.find_elements(By.CSS_SELECTOR, "th button")
    assert head == [button.text for button in buttons]
    assert lines == [texts_of_cells(row) for row in shown]


def test_a_view_is_filtered_and_shows_number_and_interval_below_the_pointer(page):
    matrix = view(page, "ri_matrix")
    methods = Select(matrix.find_element(By.XPATH, ".//label[contains(., 'Method')]//select"))
    all_methods = 0
    first_method = 1

    def cells():
        return matrix.find_elements(By.CSS_SELECTOR, CELLS)

    # with one method there are fewer cells
    number_of_cells = len(cells())
    methods.select_by_index(first_method)
    wait_until(page, lambda: 0 < len(cells()) < number_of_cells)

    # with all again as many
    methods.select_by_index(all_methods)
    wait_until(page, lambda: len(cells()) == number_of_cells)

    # a cell below the pointer shows its RI
    first_cell, *_ = cells()
    ActionChains(page).move_to_element(first_cell).perform()
    shown = wait_until(
        page, lambda: page.find_element(By.CSS_SELECTOR, "#vg-tooltip-element.visible").text
    )
    assert re.search(r"RI\D*[+-]\d+\.\d, [+-]\d+\.\d to [+-]\d+\.\d", shown)


def test_a_cell_of_ri_opens_what_explains_it(page, finished_folder):
    # given
    cells_file = finished_folder / "reports/tiny/tables/cells.json"
    facts_of_runs = json.loads(cells_file.read_text())["cells"]
    matrix = view(page, "ri_matrix")
    panel = page.find_element(By.ID, "cell")
    selects = [Select(select) for select in panel.find_elements(By.TAG_NAME, "select")]

    def chosen_run():
        options = [select.first_selected_option for select in selects]
        return "/".join(option.get_attribute("value") for option in options)

    def explanation():
        return panel.find_element(By.CLASS_NAME, "explained")

    runs = set()
    runs_with_images = set()
    cells = matrix.find_elements(By.CSS_SELECTOR, CELLS)
    for cell in cells[:5]:
        # when
        page.execute_script(INTO_VIEW, cell)
        ActionChains(page).move_to_element(cell).click().perform()
        # then classes are counted
        run = chosen_run()
        runs.add(run)
        facts = facts_of_runs[run]
        assert facts["classes"]
        for name, images_of_class, right_before, _ in facts["classes"]:
            assert f"{name}: {right_before} of {images_of_class}" in explanation().text
        # and images whose answer has changed are shown
        if facts["flips"]:
            runs_with_images.add(run)
            images = explanation().find_elements(By.TAG_NAME, "img")
            assert len(images) == len(facts["flips"])
            assert all(image.get_property("naturalWidth") for image in images)
    assert len(runs) > 1
    assert runs_with_images

    # when a run is chosen by its names, it is explained too
    for select in selects:
        select.select_by_index(0)
    assert chosen_run() in facts_of_runs
    assert explanation().text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_violation_of_accessibility_is_found(page, scheme):
    # given
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    for name in VIEWS:
        view(page, name)
    opened_table(page, TABLE_OF_MEANS)
    page.execute_script((files("axe_core_python") / "axe.min.js").read_text())
    page.set_script_timeout(100)
    # when
    checks = page.execute_async_script(VIOLATIONS)
    # then
    assert len(checks["passes"]) > 15
    serious = []
    for violation in checks["violations"]:
        if violation["impact"] in ("serious", "critical"):
            serious.append(violation)
    assert serious == []


def test_the_navigation_stays_in_view_and_leads_to_each_question(page):
    navigation = page.find_element(By.CSS_SELECTOR, "nav")
    links = navigation.find_elements(By.TAG_NAME, "a")
    assert len(links) > 1
    for link in links:
        link.click()
        _, _, anchor = link.get_attribute("href").partition("#")
        title = page.find_element(By.ID, anchor)
        assert page.execute_script(TOP, navigation) == 0
        assert -1 <= page.execute_script(TOP, title) < page.get_window_size()["height"]


def test_the_page_is_printed_with_its_pictures_and_tables(page):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    images = page.find_elements(By.CSS_SELECTOR, "figure img")
    assert len(images) == FIGURES
    assert all(image.is_displayed() for image in images)
    for_screens_only = page.find_elements(By.CSS_SELECTOR, ".view-box, nav, .tools")
    assert for_screens_only
    assert not any(element.is_displayed() for element in for_screens_only)
    tables = page.find_elements(By.TAG_NAME, "table")
    assert tables
    assert all(table.size["height"] > 30 for table in tables)


def test_a_phone_shows_what_scrolls_sideways(page):
    # given
    resize(page, PHONE)
    part = opened_table(page, TABLE_OF_MEANS)
    box = part.find_element(By.CLASS_NAME, "wide")

    # a hint says that there is more
    hint = part.find_element(By.CLASS_NAME, "sideways")
    wait_until(page, hint.is_displayed)

    # at the end there is no more
    page.execute_script(TO_THE_RIGHT_END, box)
    wait_until(page, lambda: "at-end" in box.get_attribute("class"))

    # on each screen, boxes are marked exactly if they scroll
    def marks_are_right():
        boxes = page.execute_script(SCROLLING_AND_MARKED)
        return boxes and all(scrolls == is_marked for scrolls, is_marked in boxes)

    for screen in (PHONE, DESKTOP):
        resize(page, screen)
        wait_until(page, marks_are_right)


def test_the_answer_and_its_figure_are_on_the_first_screen_side_by_side(page):
    screen = Screen(1400, 900)
    resize(page, screen)
    answer = page.find_element(By.CLASS_NAME, "numbers").rect
    figure = page.find_element(By.ID, "protocol").rect
    assert figure["x"] >= answer["x"] + answer["width"]
    assert answer["y"] + answer["height"] < screen.height
    assert figure["y"] < 200


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_fits_its_screen(page, size):
    resize(page, size)
    width = page.execute_script("return document.documentElement.scrollWidth")
    assert width <= size.width
    font = page.execute_script("return parseFloat(getComputedStyle(document.body).fontSize)")
    assert font >= 16


def test_links_lead_to_what_is_there(page):
    elements = page.find_elements(By.TAG_NAME, "a")
    links = {element.get_attribute("href") for element in elements}

    paths = []
    anchors = set()
    for link in links:
        address, hash_sign, anchor = link.partition("#")
        if hash_sign:
            anchors.add(anchor)
        elif address.startswith("file://"):
            paths.append(address.removeprefix("file://"))
    formats_of_a_figure = 3
    tables = 16
    assert len(paths) > FIGURES * formats_of_a_figure + tables
    assert all(Path(path).exists() for path in paths)
    assert anchors
    assert all(page.find_elements(By.ID, anchor) for anchor in anchors)


def test_snakemakes_report_shows_figures_with_captions(reported, browser):
    # given
    open_file(browser, reported.folder / "reports/tiny/report.html")

    def shown():
        return browser.find_element(By.TAG_NAME, "body").text

    assert "Robustness Inheritance Benchmark" in shown()
    # when
    for link in ("Results", "Figures"):
        browser.find_element(By.XPATH, f"//a[normalize-space()='{link}']").click()
    # then
    assert "ri_matrix" in shown()
    assert "radar" in shown()
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []
