"""The order of the tests, and a real browser for those of pages: Debian's Chromium, windowless."""

import gc
import inspect
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
AXE = ROOT / ".venv" / "node_modules" / "axe-core" / "axe.min.js"
# Files that take minutes, most of them because each test starts processes that import torch.
LONGEST = (
    "serve/test_training.py",
    "lora/test_process.py",
    "serve/test_train_command.py",
    "local/test_kv_cache.py",
    "mindscore/test_docs.py",
    "report/test_large.py",
    "review/test_hostile.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first: none is left for one worker when the other is done."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONGEST))


def pytest_collection_finish() -> None:
    """Leave what is there by now out of garbage collections: torch alone is a million objects."""
    gc.collect()
    gc.freeze()


def _missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not installed: make browser")
    pytest.skip(f"{what} is not installed: make browser")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run tests that have a browser in its thread: its loop must not be seen by other tests."""
    if "browser_thread" not in pyfuncitem.fixturenames:
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    pyfuncitem.funcargs["browser_thread"].submit(pyfuncitem.obj, **arguments).result()
    return True


@pytest.fixture(scope="session")
def browser_thread() -> Iterator[ThreadPoolExecutor]:
    """The one thread in which all of playwright runs."""
    with ThreadPoolExecutor(1, "browser") as thread:
        yield thread


@pytest.fixture(scope="session")
def browser(browser_thread):
    """Chromium, as ``playwright.sync_api.Browser``; use it in plain tests, not in async ones."""
    chromium = shutil.which("chromium")
    if chromium is None:
        _missing("chromium")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright

    def start():
        driver = sync_playwright().start()
        # Root has no sandbox; nothing but what the tests serve is opened.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        return driver, driver.chromium.launch(executable_path=chromium, args=arguments)

    driver, started = browser_thread.submit(start).result()
    yield started
    browser_thread.submit(started.close).result()
    browser_thread.submit(driver.stop).result()


@pytest.fixture(scope="session")
def axe_source() -> str:
    """The text of axe-core, to be run in a page."""
    file = Path(os.environ.get("AXE", AXE))
    if not file.is_file():
        _missing("axe-core")
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where pictures of pages go, for a person to look at."""
    folder = ROOT / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
