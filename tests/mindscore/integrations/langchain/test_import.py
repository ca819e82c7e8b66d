"""The short import of the middleware, which costs nothing until it is used."""

import subprocess
import sys

import pytest

import mindscore.integrations.langchain as package


def test_the_package_names_its_middleware_without_importing_langchain():
    source = (
        "import sys, mindscore.integrations.langchain as package; "
        "assert 'MindMiddleware' in package.__all__; "
        "assert not [it for it in sys.modules if it.startswith('langchain')]"
    )
    subprocess.run([sys.executable, "-c", source], check=True, timeout=60)


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing
