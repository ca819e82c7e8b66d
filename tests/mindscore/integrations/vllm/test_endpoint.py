import asyncio
import subprocess
import sys
from importlib.metadata import entry_points
from types import SimpleNamespace

import pytest

from mindscore.integrations.vllm.endpoint import ScoreRoute

LOADED = """
import sys
from importlib.metadata import entry_points

class NoVLLM:
    def find_spec(self, name, path=None, target=None):
        assert name.partition(".")[0] != "vllm", "vLLM is imported"

sys.meta_path.insert(0, NoVLLM())
[general] = entry_points(group="vllm.general_plugins", name="mindscore")
[endpoint] = entry_points(group="vllm.endpoint_plugins", name="mindscore")
assert general.load()() is None
assert endpoint.load()().name == "mindscore"
print(*sorted({it.partition(".")[0] for it in sys.modules}))
"""


class App:
    """The one method of FastAPI's that is used."""

    def __init__(self):
        self.routes = {}

    def add_api_route(self, path, endpoint, *, methods, **options):
        self.routes.update({(method, path): endpoint for method in methods})


@pytest.fixture
def starlette(monkeypatch):
    """A stand-in for the answers of starlette."""

    def answer(body, status):
        return SimpleNamespace(body=body, status=status)

    module = SimpleNamespace(JSONResponse=answer)
    monkeypatch.setitem(sys.modules, "starlette", SimpleNamespace(responses=module))
    monkeypatch.setitem(sys.modules, "starlette.responses", module)


def refusals(app):
    return {route: asyncio.run(endpoint()) for route, endpoint in app.routes.items()}


def test_installed_and_not_named_it_imports_next_to_nothing():
    environment = {"PATH": "", "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "mindscore" in loaded
    # msgspec is vLLM's own; of the rest, vLLM's environment has some, and needs none.
    others = {
        "mindhooks",
        "pluggy",
        "sqlalchemy",
        "typer",
        "rich",
        "aiohttp",
        "torch",
        "tokenizers",
    }
    assert not loaded & (others | {"tenacity", "transformers", "numpy", "fastapi", "starlette"})


def test_a_pooling_model_keeps_its_own_route():
    # vLLM loads a plugin for servers with one of its tasks.
    assert ScoreRoute().required_tasks == ("generate",)


@pytest.mark.parametrize("version", ["0.31.0", "0.34.1", "dev"])
def test_on_another_vllm_the_route_says_which_ones_it_works_with(fake_vllm, starlette, version):
    fake_vllm(version)
    app = App()
    ScoreRoute().attach_router(app)
    asyncio.run(ScoreRoute().init_state(None, SimpleNamespace(), None))
    answers = refusals(app)
    assert answers.keys() == {("GET", "/v1/score"), ("POST", "/v1/score")}
    for answer in answers.values():
        assert answer.status == 501
        error = answer.body["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["code"] == 501
        assert f"works with vLLM 0.32 and 0.33, and this is vLLM {version}:" in error["message"]


def test_a_known_vllm_without_what_is_needed_starts_and_refuses(fake_vllm, starlette, caplog):
    fake_vllm("0.32.7")
    app, state = App(), SimpleNamespace()
    ScoreRoute().attach_router(app)
    asyncio.run(ScoreRoute().init_state(None, state, None))
    [*answers] = refusals(app).values()
    assert len(answers) == 2
    assert (
        "does not work with vLLM 0.32.7: ModuleNotFoundError" in answers[0].body["error"]["message"]
    )
    assert "could not be set up: ModuleNotFoundError" in state.mindscore


def test_both_entry_points_bear_the_name_that_vllm_plugins_is_given():
    for group in ("vllm.general_plugins", "vllm.endpoint_plugins"):
        assert "mindscore" in entry_points(group=group).names
