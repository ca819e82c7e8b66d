"""A virtual environment of a host's own, made from nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]


def enter(name: str, *requirements: str) -> None:
    """Go on in an environment with ``requirements`` and this checkout; make it where it is not.

    The environment is ``build/hosts/NAME``, or the folder in ``$MINDSCORE_HOSTS``. Requirements
    are installed in one go with mindscore, so that pip finds versions which suit all, or says that
    there are none.
    """
    folder = Path(os.environ.get("MINDSCORE_HOSTS", ROOT / "build" / "hosts")) / name
    python = folder / "bin" / "python"
    if Path(sys.prefix).resolve() == folder.resolve():
        return
    made = folder / "made"
    wanted = "\n".join(requirements)
    if not made.exists() or made.read_text(encoding="utf-8") != wanted:
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "-e", str(ROOT), *requirements], check=True)
        subprocess.run([*pip, "check"], check=True)
        made.write_text(wanted, encoding="utf-8")
    os.execv(python, [str(python), *sys.argv])
