"""Settings for all tests: repeatable examples, and nothing of the user's files and settings."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples every time in CI; by hand, new ones each time.
settings.register_profile(
    "mindscore", deadline=None, max_examples=60, derandomize=bool(os.environ.get("CI"))
)
# By `make slow`.
settings.register_profile("thorough", settings.get_profile("mindscore"), max_examples=180)
settings.load_profile("mindscore")


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Configuration and data folders of the test's own; the model cache stays shared."""
    for name in ("MINDSCORE_CONFIG", "MINDSCORE_API_KEY", "MINDSCORE_DISABLE_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
