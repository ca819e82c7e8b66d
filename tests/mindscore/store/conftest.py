"""The store's tests, on SQLite and on PostgreSQL."""

import sqlite3
from contextlib import closing

import pytest

from mindscore.config.settings import StoreSettings
from mindscore.store import Store

from ..postgres import running_server


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server of the tests' own."""
    with running_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres):
    """The URL of an empty PostgreSQL store."""
    from mindscore.store.postgresql import close_all

    yield postgres.url()
    close_all()


@pytest.fixture
def file(tmp_path):
    """Where the SQLite store is; it is not there yet."""
    return tmp_path / "deep" / "store.sqlite3"


def pytest_generate_tests(metafunc):
    """Run a test that asks for ``url`` on both databases, unless it asks for the file, too."""
    if "backend" in metafunc.fixturenames:
        both = "file" not in metafunc.definition._fixtureinfo.argnames
        names = (
            ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)] if both else ["sqlite"]
        )
        metafunc.parametrize("backend", names)


@pytest.fixture
def url(backend, request, file):
    """The URL of an empty store."""
    return f"sqlite:///{file}" if backend == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def store(url):
    """Opens the store of a namespace."""
    return lambda namespace="default", days=90.0: Store(StoreSettings(url, namespace, days))


@pytest.fixture
def read(backend, url, file, request):
    """Runs a query on the store's database, and returns the rows."""

    def read_sqlite(query):
        with closing(sqlite3.connect(file)) as connection:
            return connection.execute(query).fetchall()

    def read_postgres(query):
        schema = url.rpartition("%3D")[2]
        return request.getfixturevalue("postgres").sql(query, search_path=schema)

    return read_sqlite if backend == "sqlite" else read_postgres
