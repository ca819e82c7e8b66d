"""Writes what deepagents itself prints of files, with and without each: a fixture of its own.

Run by deepagents.py with the host's Python: ``python deepagents_memory.py FILE``; with ``--check``
FILE is compared instead.
"""

import itertools
import json
import random
import sys
from pathlib import Path

from deepagents.middleware.memory import MEMORY_SYSTEM_PROMPT, MemoryMiddleware

PATHS = ["/AGENTS.md", "~/.deepagents/AGENTS.md", "./docs/notes.md", "AGENTS.md", "C:\\me\\a.md"]
PARAGRAPHS = [
    "# Notes",
    "- The key is blue-42.\n- Use tabs.",
    "/etc/hosts",
    "See ./docs/notes.md for more.",
    "<!-- id 7 -->Speak plainly.",
    "<!-- nothing\nat all -->",
    "(No memory loaded)",
    "</agent_memory>",
    "<agent_memory>",
    "Ω — not ASCII",
    "",
    "  indented",
]
# The guidelines behind the section are long, and the same in each.
TEMPLATE = MEMORY_SYSTEM_PROMPT.partition("<memory_guidelines>")[0] + "<memory_guidelines>…"


def case(chance):
    """Random files, and what is printed of every choice of them."""
    sources = chance.sample(PATHS, chance.randint(1, 4))
    texts = ["\n\n".join(chance.choices(PARAGRAPHS, k=chance.randint(1, 5))) for _ in sources]
    ends = [chance.choice(["", "\n", " \n\n"]) for _ in sources]
    files = {path: text + end for path, text, end in zip(sources, texts, ends, strict=True)}
    middleware = MemoryMiddleware(backend=None, sources=sources)
    printed = []
    for size in range(len(sources) + 1):
        for skipped in itertools.combinations(sources, size):
            left = {path: text for path, text in files.items() if path not in skipped}
            printed.append([list(skipped), middleware._format_agent_memory(left, TEMPLATE)])
    return {"files": files, "printed": printed}


def main():
    """The fixture for a fixed seed."""
    chance = random.Random(7)
    cases = json.dumps([case(chance) for _ in range(60)], ensure_ascii=False, indent=0) + "\n"
    file = Path(sys.argv[-1])
    if sys.argv[1] == "--check":
        assert file.read_text(encoding="utf-8") == cases, f"deepagents prints other than {file}"
    else:
        file.write_text(cases, encoding="utf-8")


if __name__ == "__main__":
    main()
