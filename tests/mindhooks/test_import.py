"""The names and side effects of ``import mindhooks``: sections 2, 3 and 3.1."""

import ast
import sys
from pathlib import Path
from types import ModuleType

import pytest

import mindhooks

PACKAGE = Path(mindhooks.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
ALLOWED = {"mindhooks", "pluggy", *sys.stdlib_module_names}

# As section 3 lists them, and what it names elsewhere.
EXPORTS = (
    "hookimpl hookspec MindCommand Trigger Mind MindState Activity "
    "Run Context Node Part Role Image WirePrompt MemoryScore ResponseDivergence FinetuneCandidate "
    "Outcome MemoryStats FinetuneStats Scorer BaseScorer ScoreResult RangeScore Generated "
    "TaskHandle in_thread Registry ThreadedRegistry load_scorer load_sink "
    "MindhooksError UnhandledCommand ScorerError ScorerUnavailable"
)


def test_everything_that_the_contract_names_is_exported():
    assert set(EXPORTS.split()) <= set(mindhooks.__all__)


def test_what_is_exported_is_sorted_and_named_once():
    assert mindhooks.__all__ == sorted(set(mindhooks.__all__))


def test_what_is_exported_is_all_that_is_public():
    public = {
        name
        for name, value in vars(mindhooks).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(mindhooks.__all__) == public


def test_every_module_but_testing_is_private():
    names = {path.stem for path in SOURCES} - {"__init__"}
    assert {name for name in names if not name.startswith("_")} == {"testing"}


@pytest.mark.parametrize("module", ["mindhooks", "mindhooks.testing"])
def test_importing_loads_pluggy_and_the_standard_library_only(module, run_program):
    loaded = run_program(f"""
        import sys
        before = set(sys.modules)
        import {module}
        print(*{{name.partition(".")[0] for name in set(sys.modules) - before}})
    """)
    assert set(loaded.split()) <= ALLOWED
    assert {"mindhooks", "pluggy"} <= set(loaded.split())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_module_names_pluggy_and_the_standard_library_only_and_no_private_pluggy_name(path):
    for statement in ast.walk(ast.parse(path.read_text())):
        if isinstance(statement, ast.Import):
            imported = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0
            imported = [f"{statement.module}.{alias.name}" for alias in statement.names]
        elif isinstance(statement, ast.Attribute) and isinstance(statement.value, ast.Name):
            imported = [f"{statement.value.id}.{statement.attr}"] * (statement.value.id == "pluggy")
        else:
            continue
        for name in imported:
            root, *rest = name.split(".")
            assert root in ALLOWED
            assert root != "pluggy" or not any(part.startswith("_") for part in rest)


def test_importing_leaves_what_is_slow_to_import_for_later(run_program):
    loaded = run_program("""
        import sys, asyncio, logging, inspect, pluggy
        before = set(sys.modules)
        import mindhooks
        print(*sorted(set(sys.modules) - before))
    """)
    assert not {"importlib.metadata", "email", "uuid", "random", "pathlib"} & set(loaded.split())


def test_the_modules_of_the_package_import_each_other_in_one_direction():
    imports = {
        path.stem: {
            (statement.module or "").removeprefix("mindhooks.")
            for statement in ast.parse(path.read_text()).body
            if isinstance(statement, ast.ImportFrom) and statement.module != "mindhooks"
        }
        | {
            alias.name
            for statement in ast.parse(path.read_text()).body
            if isinstance(statement, ast.ImportFrom) and statement.module == "mindhooks"
            for alias in statement.names
            if path.stem != "testing"
        }
        for path in SOURCES
    }
    left = {name: found & imports.keys() for name, found in imports.items()}
    while ready := {name for name, found in left.items() if not found & left.keys()}:
        left = {name: found for name, found in left.items() if name not in ready}
    assert left == {}


def test_importing_has_no_side_effect(run_program):
    # The standard library has side effects of its own: it comes first.
    seen = run_program("""
        import asyncio, importlib.metadata, logging, os, pluggy, signal, sys, threading, warnings

        def state():
            manager = logging.Logger.manager
            loggers = [logging.root, *map(logging.getLogger, sorted(manager.loggerDict))]
            return {
                "environment": dict(os.environ),
                "folder": os.getcwd(),
                "path": list(sys.path),
                "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook),
                "signals": [signal.getsignal(number) for number in (2, 15)],
                "threads": threading.enumerate(),
                "warnings": list(warnings.filters),
                "logging": [
                    (logger.name, logger.level, logger.handlers, logger.propagate)
                    for logger in loggers
                    if logger.name != "mindhooks"
                ],
            }

        before = state()
        files = []
        forbidden = ("socket.", "subprocess.", "os.mkdir", "os.remove", "os.rename", "os.system")

        def audit(event, arguments):
            if event == "open" and "w" in str(arguments[1] or ""):
                files.append(arguments[0])
            if event.startswith(forbidden) and "__pycache__" not in str(arguments):
                files.append(event)

        sys.addaudithook(audit)
        sys.dont_write_bytecode = True
        import mindhooks, mindhooks.testing

        after = state()
        print([name for name in before if before[name] != after[name]], files)
        ours = logging.getLogger("mindhooks")
        print(ours.level, ours.handlers, ours.propagate, ours.filters)
    """)
    assert seen == "[] []\n0 [] True []\n"


def test_a_registry_loads_no_plugin_until_it_is_told_to(run_program):
    loaded = run_program("""
        import asyncio, sys
        from mindhooks import Registry
        from mindhooks.testing import StubMind

        async def main():
            async with Registry(StubMind(), {}) as registry:
                print(registry.plugins(), "mindscore" in sys.modules)

        asyncio.run(main())
    """)
    assert loaded == "[] False\n"
