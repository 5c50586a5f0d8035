"""The page in Chromium: it opens without a complaint, is live, and shows as text what would like to be markup."""

import shutil
import threading
from contextlib import closing

import pytest
from mixed import HOSTILE, STDOUT, SUBMITTED, experiment
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from served import TOKEN, serving

from katib_callbacks.local.running.runner import Runner
from katib_callbacks.page.app import page
from katib_callbacks.page.local_source import LocalSource

WAIT_S = 90.0

GATED = (
    SUBMITTED
    + """
number = len(list(submitted.glob("begun-*")))
(submitted / f"begun-{number}").touch()
print("trial", number, flush=True)
while not (submitted / f"go-{number}").exists():
    time.sleep(0.02)
print("loss=0.5", flush=True)
"""
)
"""A trial ends when it is told to."""


@pytest.fixture
def browser():
    """A headless Chromium with a driver of its own; the session that runs this has installed both."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium, "there is no chromium: apt-get install chromium chromium-driver"
    assert driver, "there is no chromedriver: apt-get install chromium-driver"
    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--no-proxy-server",
        "--window-size=1400,1000",
    ):
        options.add_argument(argument)
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def opened(browser, serve_home):
    """Return a function that opens the page of a home, as the printed URL does, at a place; in the end no complaint."""

    def opened(home, place):
        url = serve_home(home)
        browser.get(f"{url}?token={TOKEN}")
        browser.get(f"{url}#{place}")
        browser.execute_script("window.sameDocument = true")
        return url

    yield opened
    complaints = browser.get_log("browser")
    browser.get("about:blank")  # before the server ends
    assert complaints == []


def wait_for(browser, condition):
    return WebDriverWait(browser, WAIT_S, poll_frequency=0.05).until(condition)


def rows(browser):
    """Return the number and the state of each row that is seen."""
    script = """return [...document.querySelectorAll("tbody tr")].map(
        (row) => [Number(row.cells[1].textContent), row.querySelector(".badge").textContent])"""
    return [tuple(row) for row in browser.execute_script(script)]


def text_of(browser, selector):
    return browser.execute_script(f"return document.querySelector({selector!r})?.textContent ?? ''")


def test_what_happens_appears_without_a_reload_and_a_filter_stays(browser, opened, local):
    one = experiment(GATED, maxTrialCount=3, parallelTrialCount=1, metricsCollectorSpec=STDOUT)
    runner = Runner(local.home, local.store(one))
    thread = threading.Thread(target=runner.run)
    thread.start()
    try:
        opened(local.home, "/experiment/one")
        wait_for(browser, lambda _: rows(browser) == [(0, "Running")])
        browser.find_element(By.ID, "filter").send_keys("number<2")
        (local.folder / "go-0").touch()
        wait_for(browser, lambda _: rows(browser) == [(1, "Running"), (0, "Succeeded")])
        wait_for(browser, lambda _: text_of(browser, "#best") == "0.5")

        browser.execute_script("document.querySelector('tbody a').click()")  # the newest is the first
        wait_for(browser, lambda _: text_of(browser, "#log") == "trial 1\n")
        (local.folder / "go-1").touch()
        wait_for(browser, lambda _: text_of(browser, "#log") == "trial 1\nloss=0.5\n")
        wait_for(browser, lambda _: text_of(browser, "h1 + .badge") == "Succeeded")

        browser.back()
        wait_for(browser, lambda _: "2 Succeeded · 1 Running" in text_of(browser, "main"))
        assert rows(browser) == [(1, "Succeeded"), (0, "Succeeded")]
        browser.find_element(By.ID, "filter").clear()
        browser.find_element(By.ID, "filter").send_keys("running")
        wait_for(browser, lambda _: rows(browser) == [(2, "Running")])
        assert browser.execute_script("return window.sameDocument")
    finally:
        for number in range(3):
            (local.folder / f"go-{number}").touch()
        thread.join()


def test_markup_in_a_parameter_and_in_a_log_is_shown_as_text(browser, opened, ran):
    failed = next(trial for trial in ran.trials("mixed") if trial.state == "Failed")
    opened(ran.home, "/experiment/mixed")
    wait_for(browser, lambda _: len(rows(browser)) == 3)
    assert HOSTILE in text_of(browser, "tbody")
    assert HOSTILE in text_of(browser, "dl")

    browser.execute_script(f"location.hash = '#/trial/{failed.name}'")
    wait_for(browser, lambda _: f"parameter {HOSTILE}" in text_of(browser, "#log"))
    assert "out of memory: <b>not bold</b>" in text_of(browser, "#message")
    assert browser.find_elements(By.CSS_SELECTOR, "main script, main img, main b") == []
    assert browser.title == failed.name


def test_the_page_says_that_its_server_is_gone(browser, ran):
    with closing(LocalSource(ran.home)) as source, serving(page(source)) as url:
        browser.get(f"{url}?token={TOKEN}")
        wait_for(browser, lambda _: "mixed" in text_of(browser, "main"))
    wait_for(browser, lambda _: "still running" in text_of(browser, "#trouble"))
    assert "mixed" in text_of(browser, "main")
