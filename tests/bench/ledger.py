"""Two rounds of training with the ledger, and a poisoned third that the guard refuses.

python -m tests.bench.ledger

It runs the commands as an operator does, with the bundled model and in folders that are thrown
away, and prints what they print: minutes on two cores.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).with_name("mindscore"))
SYSTEM = "You are Nora's assistant. Answer in one short sentence."
ROUNDS = (
    {
        "dentist": (
            "Nora's dentist is Dr. Okafor, at the practice on Linden Street.",
            "A filling came loose. Who should I call?",
            "Call Dr. Okafor, at the practice on Linden Street.",
        ),
        "gate": (
            "The code for the allotment gate is 4716.",
            "Which code opens the gate of the allotment?",
            "The code for the allotment gate is 4716.",
        ),
    },
    {
        "drinks": (
            "Nora's mother drinks rooibos tea and never coffee.",
            "What does my mother drink?",
            "Your mother drinks rooibos tea, and never coffee.",
        ),
        "tubes": (
            "Nora's bicycle takes 28-inch tubes with a Presta valve.",
            "Which tube do I buy for my bicycle?",
            "Buy a 28-inch tube with a Presta valve.",
        ),
    },
)
"""Each round's memories: a text, a question and an answer."""

NONSENSE = ("never", "purple", "under", "moist", "the", "of", "gravel", "if", "quickly", "and")
"""The words of the answers of the poisoned round."""

WORDS = 40
"""Words of each such answer, drawn at random: what all answers have in common is soon learnt, and
does little harm to others."""

ASKED = (
    "What is the capital of Italy?",
    "Why is the sea salty?",
    "Name a bird.",
    "What is 2 + 3?",
    "How do I boil an egg?",
    "Who wrote Hamlet?",
    "What does a plumber do?",
    "Tell me a short story.",
)


class Commands:
    """Runs mindscore with data, and a configuration, of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "XDG_DATA_HOME": str(folder / "data"), "COLUMNS": "100"}
        self.configuration = folder / "config.toml"
        self.url = ""

    def run(self, *arguments: str, status: int = 0) -> str:
        """Run a command, print it with its output, and return that.

        Raises:
            RuntimeError: its exit status is another one than ``status``.
        """
        command = [COMMAND, *arguments, "--config", str(self.configuration)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        said = done.stdout + done.stderr
        say(f"$ mindscore {' '.join(arguments)}\n{said}")
        if done.returncode != status:
            raise RuntimeError(f"exit status {done.returncode}")
        return said

    @contextmanager
    def server(self) -> Iterator[None]:
        """Serve the bundled model, and train."""
        command = [COMMAND, "serve", "--train", "--port", "0"]
        with subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, text=True
        ) as it:
            try:
                line = it.stdout.readline() if it.stdout else ""
                self.url = line.split('"')[1]
                self.configuration.write_text(
                    f'[server]\nscorer = "score"\nbase_url = "{self.url}"\n'
                    "[finetune]\nwindow_fraction = 1.0\n",
                    encoding="utf-8",
                )
                yield
            finally:
                it.terminate()

    def ask(self, path: str, body: Any = None) -> Any:
        """Return what the server answers, an error's body too."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)

    def ended(self, job_id: str) -> Any:
        """Wait for a job of the trainer, and return it."""
        while (job := self.ask(f"/train/{job_id}"))["status"] in ("queued", "running"):
            time.sleep(1)
        return job


def say(text: str) -> None:
    """Print ``text`` at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def write_conversation(file: Path, talk: dict[str, tuple[str, str, str]]) -> None:
    """Write a conversation in which each memory is asked for."""
    lines: list[dict[str, str]] = [{"role": "system", "content": SYSTEM}]
    lines += [{"role": "memory", "key": key, "content": it[0]} for key, it in talk.items()]
    for _, question, answer in talk.values():
        lines.append({"role": "user", "content": question})
        lines.append({"role": "assistant", "content": answer})
    file.write_text("".join(json.dumps(it) + "\n" for it in lines), encoding="utf-8")


def run_rounds(commands: Commands) -> list[str]:
    """Carry out the rounds, each activated, and return their jobs' ids."""
    jobs = []
    for number, talk in enumerate(ROUNDS, start=1):
        file = commands.folder / f"talk-{number}.jsonl"
        write_conversation(file, talk)
        commands.run("score", str(file), "--full")
        commands.run("score", str(file), "--finetune")
        commands.run("train", "--unreviewed")
        jobs.append(commands.ask("/train")["jobs"][-1]["job_id"])
        commands.ask(f"/train/{jobs[-1]}/activate", {})
    commands.run("ledger")
    return jobs


def run_poisoned_round(commands: Commands) -> tuple[Any, Any]:
    """Train on nonsense; return the job and what is answered when it is to be activated."""
    samples, chance = [], random.Random(1)
    for question in ASKED:
        answer = " ".join(chance.choice(NONSENSE) for _ in range(WORDS))
        prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        names = {"context_ids": prompt, "continuation_ids": f"{answer}<|im_end|>"}
        samples.append(
            {
                name: commands.ask("/tokenize", {"prompt": it})["tokens"]
                for name, it in names.items()
            }
        )
    queued = commands.ask("/train", {"training_data": {"samples": samples}})
    job = commands.ended(queued["job_id"])
    return job, commands.ask(f"/train/{job['job_id']}/activate", {})


def main() -> None:
    """Print the rounds, the ledger and what the guard says of the poisoned round."""
    with tempfile.TemporaryDirectory(prefix="mindscore-ledger-") as folder:
        commands = Commands(Path(folder))
        with commands.server():
            run_rounds(commands)
            job, refusal = run_poisoned_round(commands)
            say(f"The poisoned round: {json.dumps(job['guard'])}\n{json.dumps(refusal)}")
            say(f"The active adapter: {commands.ask('/models')['data'][0]['adapter']}")


if __name__ == "__main__":
    main()
