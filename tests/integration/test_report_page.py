"""The pages of a run as a person sees them: opened from disk in headless Chromium, without a network."""

import os
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

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
    """Chromium, its console readable; on machines without it the tests are skipped, but not where CI is set."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
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
        opened.implicitly_wait(10)  # where a machine has more to do, a page is there before all of it is
        yield opened


@pytest.fixture
def page(finished, browser):
    """The tiny run's page, opened from disk."""
    browser.get_log("browser")
    resize(browser, DESKTOP)
    browser.get((finished[0].folder / "reports/tiny/index.html").as_uri())
    return browser


def resize(browser, size):
    # Chromium's windows have a least width; the emulated screen has none.
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def column(table, number):
    return [
        row.find_elements(By.TAG_NAME, "td")[number].text for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")
    ]


def test_nothing_fails_and_every_figure_shows(page):
    assert page.get_log("browser") == []
    images = page.find_elements(By.CSS_SELECTOR, "figure img")
    assert len(images) == 12
    for image in images:
        assert image.get_property("naturalWidth") > 300 and image.is_displayed() and image.get_attribute("alt")
    fetched = "return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length"
    assert page.execute_script(fetched) == 0


def test_a_table_sorts_by_number_and_back(page):
    table = page.find_elements(By.CSS_SELECTOR, "#tables ~ .wide table")[0]
    header = table.find_elements(By.TAG_NAME, "th")[3]
    for order in ("ascending", "descending"):
        header.find_element(By.TAG_NAME, "button").click()
        values = [float(text.replace("\N{MINUS SIGN}", "-")) for text in column(table, 3)]
        assert values == sorted(values, reverse=order == "descending") and len(set(values)) > 1
        assert header.get_attribute("aria-sort") == order
    table.find_elements(By.CSS_SELECTOR, "th button")[1].click()
    assert column(table, 1) == sorted(column(table, 1), key=str.lower)
    assert header.get_attribute("aria-sort") is None


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_fits_its_screen(page, size):
    resize(page, size)
    assert page.execute_script("return document.documentElement.scrollWidth") <= size[0]
    font = page.execute_script("return parseFloat(getComputedStyle(document.body).fontSize)")
    assert font >= 16


def test_links_lead_to_what_is_there(page, finished):
    links = {link.get_attribute("href") for link in page.find_elements(By.TAG_NAME, "a")}
    files = [link.removeprefix("file://") for link in links if link.startswith("file://") and "#" not in link]
    assert len(files) == 12 * 3 + 3 + 16 and all(map(os.path.exists, files))
    anchors = {link.partition("#")[2] for link in links if "#" in link}
    assert anchors and all(page.find_elements(By.ID, anchor) for anchor in anchors)


def test_snakemakes_report_shows_figures_with_captions(finished, browser):
    browser.get_log("browser")
    resize(browser, DESKTOP)
    browser.get((finished[0].folder / "reports/tiny/report.html").as_uri())
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert "Robustness Inheritance Benchmark" in browser.find_element(By.TAG_NAME, "body").text
    for link in ("Results", "Figures"):
        browser.find_element(By.XPATH, f"//a[normalize-space()='{link}']").click()
    shown = browser.find_element(By.TAG_NAME, "body").text
    assert "ri_matrix.png" in shown and "radar.png" in shown
