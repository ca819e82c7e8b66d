"""Plain ``openai``-client code with mindscore attached: python-api.md's example, from nothing.

python tests/hosts/openai_client.py
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from environment import ROOT, enter
from model_api import model_api

enter("openai_client", "openai==3.54.0")

EXAMPLE = re.search(
    r"```python\n(import mindscore\nfrom openai.*?)```",
    (ROOT / "plugin/docs/python-api.md").read_text(),
    re.DOTALL,
)


def main() -> None:
    """Say two things, and look at what was scored."""
    assert EXAMPLE is not None
    with tempfile.TemporaryDirectory() as folder, model_api("A pot of rooibos.", "Max.") as server:
        config = Path(folder) / "config.toml"
        config.write_text(
            f'[server]\nscorer = "toy"\n[store]\nurl = "sqlite:///{folder}/store.sqlite3"\n'
            "[memory]\ntoken_cutoff = 1.0\ninterval_s = 0\n"
        )
        import os

        os.environ["MINDSCORE_CONFIG"] = str(config)
        os.environ["OPENAI_BASE_URL"] = server.base_url
        os.environ["OPENAI_API_KEY"] = "none"
        names: dict[str, object] = {}
        exec(compile(EXAMPLE[1], "python-api.md", "exec"), names)
        say, mind = names["say"], names["mind"]
        say("What shall I drink?")  # type: ignore[operator]
        say("What is my dog called?")  # type: ignore[operator]
        found = mind.score("score-full").result(30)  # type: ignore[attr-defined]
        assert found.error is None
        assert found.scores["tea"].score > 1
        assert found.scores["dog"].score > 1
        assert server.requests[-1]["messages"][0]["content"].count("rooibos") == 1
        for key, score in found.scores.items():
            sys.stdout.write(f"{key}: {score.score:.1f} nats\n")
        mind.close()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
