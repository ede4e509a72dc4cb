"""One JupyterLab and one Chromium for all browser tests; with SCREENSHOTS set, pictures are kept in build/browser/."""

import os
import shutil
import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from browser import server
from browser.notebook import PATIENCE, Notebook, Watch
from course import warm

SHOTS = server.PROJECT / "build" / "browser"
ADVICE = "no Chromium: install it (apt-get install chromium), or name one in the environment variable CHROMIUM"
FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # whatever asks outside, gets no answer
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",  # WebGL on the CPU
    "--enable-blink-features=ComputedAccessibilityInfo",  # an element can be asked for its accessible name
]


@pytest.fixture(scope="session")
def chromium() -> str:
    found = shutil.which(os.environ.get("CHROMIUM", "chromium")) or shutil.which("chromium-browser")
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(ADVICE)
    return found


@pytest.fixture(scope="session")
def shots(chromium) -> Path:
    SHOTS.mkdir(parents=True, exist_ok=True)
    return SHOTS


@pytest.fixture(scope="session")
def go_through(shots) -> Callable[[Notebook, str], None]:
    """Scroll through a notebook. `make browser` keeps pictures of it; a test of every change can do without them."""
    return lambda opened, name: opened.keep(shots, name) if os.environ.get("SCREENSHOTS") else opened.go_through()


@contextmanager
def warm_kernels():
    """The environment in which kernels are forks of one process, like those of a local course: imports are done."""
    with warm.offered(threads=1) as (environment, look):
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.2):
                look()

        (watching := threading.Thread(target=watch)).start()
        try:
            yield environment
        finally:
            ended.set()
            watching.join()


@pytest.fixture(scope="package")
def lab(chromium, shots, tmp_path_factory):
    course, state = tmp_path_factory.mktemp("course"), tmp_path_factory.mktemp("state")
    server.copy_course(course)
    with warm_kernels() as environment:
        log, kernels = shots / "jupyterlab.log", server.own_kernel(state / "warm", "course.start")
        process, running = server.start(course, state, log, JUPYTER_PATH=str(kernels), **environment)
        yield running
        server.stop(process)


@pytest.fixture(scope="package")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="package")
def person(browser):
    """Somebody who opens one page after the other: the browser loads JupyterLab once."""
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def page(person):
    """A page of its own. The test fails when the page threw, or asked anybody but the server."""
    window = person.new_page()
    watch = Watch(window)
    yield window
    window.close()
    watch.verdict()


@pytest.fixture
def notebook(lab, page):
    """Open a notebook of the course; its kernel ends with the test."""
    opened = []

    def open_notebook(path: str) -> Notebook:
        opened.append(Notebook(page, lab.url(path)))
        return opened[-1]

    yield open_notebook
    for one in opened:
        one.close()


def pytest_terminal_summary(terminalreporter):
    if kept := sorted(SHOTS.glob("*.png")):
        terminalreporter.write_line(f"{len(kept)} screenshots in {SHOTS.relative_to(server.PROJECT)}")
