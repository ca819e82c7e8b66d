"""A host: an agent that gives its plugins a Mind and has its memories scored.

The agent's answers are canned here; everything else is what a real agent does.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable

from mindhooks import Context, MemoryScore, MindCommand, MindState, Node, Registry, Role, hookimpl

MEMORIES = {
    "tea": "Nora drinks rooibos in the evening.",
    "dog": "Her dog is called Max.",
    "car": "She sold her car in 2019.",
}
TALK = {
    "What shall I drink?": "A pot of rooibos, as always in the evening.",
    "Who barked all night?": "That was Max, your dog.",
}

Tokenize = Callable[[str], Awaitable[list[int]]]


class Line:
    """A line of the agent's screen that says what is going on, while it is open."""

    def __init__(self, message: str) -> None:
        self.update(message)

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        """Clear the line; there is none on a plain terminal."""

    def update(self, message: str, done: int | None = None, total: int | None = None) -> None:
        share = f" {done / total:.0%}" if done is not None and total else ""
        print(f"  [{message}{share}]")


class Agent:
    """The agent is its own Mind, and listens to scores too."""

    def __init__(self) -> None:
        self.state = MindState()
        self.memories: list[Node] = []
        self.messages: list[Node] = []

    async def remember(self, key: str, text: str, tokenize: Tokenize) -> None:
        node = await make_node(key, Role.MEMORY, text, tokenize, memory_key=key)
        self.memories.append(node)

    async def say(self, role: Role, text: str, tokenize: Tokenize) -> None:
        node = await make_node(f"message-{len(self.messages)}", role, text, tokenize)
        self.messages.append(node)

    async def context(self) -> Context:
        """Take an immutable snapshot of the conversation."""
        return Context(system=(), identity=tuple(self.memories), conversation=tuple(self.messages))

    def activity(self, message: str) -> Line:
        return Line(message)

    def changed(self) -> None:
        """Redraw the screen: ``state`` was written."""

    @hookimpl
    def on_score(self, score: MemoryScore) -> None:
        print(f"{score.key}: {score.score:.1f} nats")


async def make_node(
    name: str, role: Role, text: str, tokenize: Tokenize, memory_key: str | None = None
) -> Node:
    """Make a message as it goes to the model: a header, and what the model reads or produced."""
    header = await tokenize(f"<|im_start|>{role}\n")
    body = await tokenize(f"{text}<|im_end|>")
    ids = (*header, *body)
    produced = (len(header), len(ids)) if role == Role.ASSISTANT else (0, 0)
    return Node(name, role, text, ids, body=produced, memory_key=memory_key)


async def main() -> None:
    agent = Agent()
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "server": {"scorer": "toy"},
            "memory": {"token_cutoff": 1.0},
            "store": {"url": f"sqlite:///{folder}/scores.sqlite3"},
        }
        async with Registry(agent, settings) as registry:
            registry.load_entry_points()  # the plugins that are installed
            registry.register(agent, name="agent")
            tokenize = (await registry.scorer()).tokenize
            for key, text in MEMORIES.items():
                await agent.remember(key, text, tokenize)
            for question, answer in TALK.items():
                await agent.say(Role.USER, question, tokenize)
                await agent.say(Role.ASSISTANT, answer, tokenize)
            taken = registry.dispatch(MindCommand.SCORE)  # one line, and it returns at once
            print("dispatched:", {name: str(trigger) for name, trigger in taken.items()})
            await registry.wait_idle()
    idle = [key for key, score in agent.state.memory_scores.items() if score < 1]
    print("did nothing so far:", ", ".join(idle))


asyncio.run(main())
