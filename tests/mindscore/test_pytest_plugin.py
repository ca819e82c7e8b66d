"""The fixtures that pytest has wherever mindscore is installed."""

import os
import subprocess
import sys
import textwrap

import pytest

from mindscore import pytest_plugin


@pytest.fixture
def run_pytest(tmp_path):
    """Runs pytest over a file of the test's own, outside this project; what it printed."""

    def run(source, *options):
        (tmp_path / "test_mine.py").write_text(textwrap.dedent(source))
        inherited = {it: os.environ[it] for it in os.environ if not it.startswith("PYTEST")}
        command = [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider"]
        # A plugin's author need not have pytest-asyncio, which warns where it is not configured.
        command += ["-p", "no:asyncio"]
        done = subprocess.run(
            [*command, "--strict-markers", "--strict-config", "-v", *options, "test_mine.py"],
            cwd=tmp_path,
            env={**inherited, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_the_fixtures_work_without_being_imported(run_pytest):
    status, said = run_pytest("""
        import asyncio

        import aiohttp
        from mindhooks import MemoryScore, Registry

        def test_stub_mind_and_heard(stub_mind, heard):
            async def run():
                async with Registry(stub_mind, {}) as registry:
                    registry.register(heard)
                    await registry.emit_score(MemoryScore("tea", 1.0, "full", ()))
            asyncio.run(run())
            assert [score.key for score in heard.scores] == ["tea"]
            assert stub_mind.changes == 0

        def test_toy_scorer(toy_scorer):
            assert len(asyncio.run(toy_scorer.tokenize("green tea"))) == 2

        def test_score_server(score_server):
            async def run():
                async with aiohttp.request("GET", f"{score_server.url}/models") as answer:
                    return await answer.json()
            assert asyncio.run(run())["data"][0]["id"] == "toy"
            assert [request.path for request in score_server.requests] == ["/v1/models"]
    """)
    assert status == 0, said
    assert "3 passed" in said


def test_until_a_fixture_is_asked_for_nothing_of_ours_is_imported(run_pytest):
    status, said = run_pytest("""
        import sys

        def test_nothing():
            ours = {it for it in sys.modules if it.startswith(("mindhooks", "mindscore"))}
            assert ours == {"mindscore", "mindscore.pytest_plugin"}
    """)
    assert status == 0, said


def test_importing_the_fixtures_loads_what_pytest_has_loaded_and_nothing_else():
    program = """
        import pytest, sys
        before = set(sys.modules)
        import mindscore.pytest_plugin
        print(*sorted(set(sys.modules) - before))
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("mindscore mindscore.pytest_plugin\n", "")


def test_a_fixture_of_the_same_name_takes_its_place(run_pytest):
    status, said = run_pytest("""
        import pytest

        @pytest.fixture
        def score_server():
            return "mine"

        def test_mine(score_server):
            assert score_server == "mine"
    """)
    assert status == 0, said


def test_they_can_be_switched_off_by_the_name_of_the_contract(run_pytest):
    status, said = run_pytest(
        """
        import sys

        def test_off(request):
            assert "mindscore" not in sys.modules
            assert request.config.pluginmanager.is_blocked("mindhooks")
        """,
        *("-p", "no:mindhooks"),
    )
    assert status == 0, said


def test_each_fixture_says_what_it_is():
    names = ("stub_mind", "heard", "toy_scorer", "score_server")
    assert all(getattr(pytest_plugin, name).__doc__ for name in names)
