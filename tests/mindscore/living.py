"""A clock that a test sets, and an agent that is attached with it."""

import asyncio
import threading
import time

from mindscore._util.clock import Clock
from mindscore.session.attach import Attached

PATIENCE_S = 30
TEA = "Nora drinks rooibos in the evening."
DOG = "Her dog is called Max."
MEMORIES = {"tea": TEA, "dog": DOG}


class HandClock(Clock):
    """Time that passes where ``pass_s`` says so, and never for those who only wait."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.sleepers = 0

    def now(self):
        return self.seconds

    async def sleep(self, seconds):
        until = self.seconds + seconds
        self.sleepers += 1
        try:
            while self.seconds < until:
                await asyncio.sleep(0.001)
        finally:
            self.sleepers -= 1

    def pass_s(self, seconds):
        self.seconds += seconds


def eventually(happened, what="it did not happen"):
    """Wait until ``happened()``."""
    limit = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < limit, what
        threading.Event().wait(0.002)


class Agent:
    """An agent as its author has it, whose plugins live by a clock of the test's."""

    def __init__(self, folder, clock=None, memories=MEMORIES, every_turns=1, idle_s=0.0, **tables):
        self.clock = clock or HandClock()
        said = "\n- ".join(memories.values())
        self.messages = [{"role": "system", "content": f"You help Nora.\n- {said}"}]
        self.tables = {
            "server": {"scorer": "toy"},
            "store": {"url": f"sqlite:///{folder}/store.sqlite3"},
            "memory": {"token_cutoff": 1.0, "interval_s": 0},
            "plugins": {"listener_timeout_s": 5.0},
            **tables,
        }
        self.mind = Attached(
            lambda: self.messages, memories, self.tables, every_turns, idle_s, False, self.clock
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.mind.close()

    def say(self, asked, said):
        """A turn; it is not scored yet."""
        self.messages.append({"role": "user", "content": asked})
        self.messages.append({"role": "assistant", "content": said})

    def turn(self, asked="What shall I drink?", said="A pot of rooibos in the evening."):
        """A turn, and what is scored after it."""
        self.say(asked, said)
        self.mind.turn_ended()
        if self.mind._under_way is not None:
            self.mind._under_way.result(PATIENCE_S)
        self.mind.registry.wait_idle(PATIENCE_S)

    @property
    def shown(self):
        """The candidates on the agent's screen, by their texts."""
        return [it.response_text for it in self.mind.state.finetune_candidates]
