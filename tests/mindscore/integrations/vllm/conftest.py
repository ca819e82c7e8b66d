import sys
from types import ModuleType

import pytest


@pytest.fixture
def fake_vllm(monkeypatch):
    """Put a vLLM of a version in the place of the real one, with modules of these attributes."""

    def install(version, **modules):
        module = ModuleType("vllm")
        module.__version__ = version
        monkeypatch.setitem(sys.modules, "vllm", module)
        for name, attributes in modules.items():
            full = "vllm." + name.replace("__", ".")
            for end in (at for at, letter in enumerate(full) if letter == "."):
                monkeypatch.setitem(sys.modules, full[:end], sys.modules.get(full[:end], module))
            part = ModuleType(full)
            vars(part).update(attributes)
            monkeypatch.setitem(sys.modules, full, part)
        return module

    return install
