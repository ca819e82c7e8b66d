"""PostgreSQL: what it refuses and how it says so, passwords, processes, and a server that dies."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import traceback

import pytest

from mindhooks import MemoryScore, ResponseDivergence
from mindscore._util.errors import ConfigError, StoreError
from mindscore.config.settings import StoreSettings, parse_settings, without_password
from mindscore.store import Records, Store, postgresql

from ..postgres import running_server

SECRET = "s3cr3t-p4ss"
REFUSED = "postgresql+psycopg://mind:{}@127.0.0.1:{}/postgres"


def score(key, value=1.0):
    return MemoryScore(key, value, "incremental", ())


def row(key, node_id="n"):
    return MemoryScore(key, 1.0, "full", (ResponseDivergence(0, node_id, 1.0, 1.0),))


@pytest.fixture
def settings(postgres_url):
    return StoreSettings(postgres_url)


@pytest.fixture
def run_sql(postgres, postgres_url):
    """Runs statements in the store's schema."""
    schema = postgres_url.rpartition("%3D")[2]
    return lambda *statements: postgres.sql(*statements, search_path=schema)


# -- addresses and passwords ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://u:pw@h/d", "postgresql+psycopg://u:***@h/d"),
        ("postgresql+psycopg://u:a%40b:c@h:1/d", "postgresql+psycopg://u:***@h:1/d"),
        ("postgresql+psycopg://u@h:1/d", "postgresql+psycopg://u@h:1/d"),
        (
            "postgresql+psycopg://h:5/d?password=pw&x=1",
            "postgresql+psycopg://h:5/d?password=***&x=1",
        ),
        ("postgresql+psycopg://h/d?sslpassword=pw", "postgresql+psycopg://h/d?sslpassword=***"),
        ("postgres://u:p/w@h/d", "postgres://u:***@h/d"),
        ("sqlite:////a:b@c", "sqlite:////a:b@c"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert without_password(url) == shown


@pytest.mark.parametrize("url", [f"postgresql://u:{SECRET}@h/d", f"mysql://u:{SECRET}@h/d"])
def test_a_wrong_url_is_refused_without_its_password(url):
    with pytest.raises(ConfigError, match=r"postgresql\+psycopg://USER@HOST") as caught:
        parse_settings({"store": {"url": url}})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("password", [f"{SECRET}@x", f"{SECRET}/x"])
def test_a_password_that_would_be_taken_for_a_server_is_refused(password):
    with pytest.raises(ConfigError, match="%40") as caught:
        parse_settings({"store": {"url": f"postgresql+psycopg://u:{password}@h/d"}})
    assert SECRET not in str(caught.value)


def test_settings_are_shown_without_the_password():
    settings = parse_settings({"store": {"url": f"postgresql+psycopg://u:{SECRET}@h/d"}})
    assert SECRET not in repr(settings)
    assert "u:***@h/d" in repr(settings)


def test_an_address_that_cannot_be_read_is_an_error_without_the_password():
    url = "postgresql+psycopg://u:pw@h:port/d"
    with pytest.raises(StoreError, match="cannot be read as an address") as caught:
        Store(StoreSettings(url))
    assert "pw" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_password_is_taken_from_where_libpq_looks(postgres, monkeypatch, tmp_path):
    postgres.sql("CREATE SCHEMA locked", f"ALTER USER mind PASSWORD '{SECRET}'")
    url = f"postgresql+psycopg://mind@127.0.0.1:{postgres.port}/postgres"
    url += "?options=-csearch_path%3Dlocked"
    monkeypatch.setenv("PGPASSWORD", SECRET)
    await Store(StoreSettings(url)).import_trained([5])
    postgresql.close_all()
    monkeypatch.delenv("PGPASSWORD")
    file = tmp_path / "pgpass"
    file.write_text(f"127.0.0.1:{postgres.port}:*:mind:{SECRET}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    assert await Store(StoreSettings(url)).trained_timestamps() == [5]
    postgresql.close_all()


async def test_a_wrong_password_is_said_and_not_shown(postgres):
    store = Store(StoreSettings(REFUSED.format(SECRET + "x", postgres.port)))
    with pytest.raises(StoreError, match=r"mind:\*\*\*@127.*password authentication failed") as it:
        await store.memories()
    assert SECRET not in str(it.value)


async def test_a_server_that_is_not_there_is_an_error_that_names_it():
    store = Store(StoreSettings(REFUSED.format(SECRET, 1)))
    for act in (store.memories, lambda: store.import_trained([5])):
        with pytest.raises(StoreError, match=r"127\.0\.0\.1:1.*refused") as caught:
            await act()
        assert SECRET not in str(caught.value)


async def test_a_database_that_is_not_there_is_an_error_that_says_what_makes_it(postgres):
    url = f"postgresql+psycopg://mind@/missing?host={postgres.folder}&port={postgres.port}"
    with pytest.raises(StoreError, match='"missing" does not exist'):
        await Store(StoreSettings(url)).memories()


def test_without_psycopg_the_extra_is_named():
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from mindscore.config.settings import StoreSettings\n"
        "from mindscore.store import Store\n"
        "Store(StoreSettings('postgresql+psycopg://h/d'))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'mindscore[postgres]'" in ran.stderr.splitlines()[-1]


def test_sqlite_imports_neither_psycopg_nor_alembic(tmp_path):
    code = (
        "import asyncio, sys\n"
        "from mindscore.config.settings import StoreSettings\n"
        "from mindscore.store import Store\n"
        f"store = Store(StoreSettings('sqlite:///{tmp_path}/s'))\n"
        "asyncio.run(store.import_trained([5])); asyncio.run(store.memories())\n"
        "assert not {'psycopg', 'alembic', 'numpy', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- what it refuses ------------------------------------------------------------------------------


async def test_reading_makes_nothing(settings, run_sql):
    assert await Store(settings).memories() == []
    assert await Store(settings).passes() == []
    [[count]] = run_sql("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()")
    assert count == 0


async def test_a_store_of_version_6_gets_the_tables_of_this_one(settings, run_sql):
    columns = (
        "SELECT table_name, column_name, data_type, is_nullable, collation_name "
        "FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY 1, 2"
    )
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema() ORDER BY 1"
    await Store(settings).record_score(score("k"), "m", 0.5)
    shape = run_sql(columns), run_sql(indexes)
    run_sql("DROP TABLE removals")
    run_sql("DROP TABLE receipts")
    run_sql("DROP TABLE matrix_notes")
    run_sql("DROP TABLE rounds")
    run_sql("DROP TABLE ledger")
    run_sql("DROP TABLE reservations")
    run_sql("DROP INDEX conversation_scores_by_age")
    for column in ("threshold", "max_divergence", "sent_tokens"):
        run_sql(f"ALTER TABLE runs DROP COLUMN {column}")
    run_sql("UPDATE alembic_version SET version_num = '0006'")
    [memory] = await Store(settings).memories()
    assert memory.key == "k"
    assert (run_sql(columns), run_sql(indexes)) == shape
    assert run_sql("SELECT version_num FROM alembic_version") == [("0010",)]


async def test_a_store_of_a_newer_version_is_refused_and_left_alone(settings, run_sql):
    await Store(settings).record_score(score("k"), "m", 0.5)
    run_sql("UPDATE alembic_version SET version_num = '0099'")
    for act in (Store(settings).memories, lambda: Store(settings).import_trained([5])):
        with pytest.raises(StoreError, match="schema version 99, this mindscore knows"):
            await act()
    assert run_sql("SELECT version_num FROM alembic_version") == [("0099",)]


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE bookmarks (url text)",
        "CREATE TABLE alembic_version (version_num text)",
        "CREATE TABLE memories (x int)",
    ],
)
async def test_a_database_of_something_else_is_refused_and_left_alone(settings, run_sql, made):
    run_sql(made)
    for act in (Store(settings).memories, lambda: Store(settings).import_trained([5])):
        with pytest.raises(StoreError, match=r"something else.*search_path"):
            await act()
    [[count]] = run_sql("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()")
    assert count == 1


@pytest.mark.parametrize("key", ["a\0b", "\ud800"])
async def test_a_key_that_it_cannot_hold_is_an_error_and_nothing_is_kept(settings, key):
    with pytest.raises(StoreError, match="cannot hold a value"):
        await Store(settings).record_score(score(key), "m", 0.5)
    assert await Store(settings).memories() == []


async def test_a_number_that_it_cannot_hold_is_an_error(settings):
    with pytest.raises(StoreError, match="cannot hold a value"):
        await Store(settings).import_trained([2**63])


async def test_an_error_says_nothing_of_what_was_to_be_stored(settings, run_sql):
    await Store(settings).record_row(row("k"), "m")
    run_sql("ALTER TABLE cells ADD CHECK (node_id <> 'what was said')")
    with pytest.raises(StoreError, match="violates check") as caught:
        await Store(settings).record_row(row("k", "what was said"), "m")
    shown = "".join(traceback.format_exception(caught.value))
    assert "what was said" not in shown.replace('"k", "what was said"', "")


# -- others at the same time ----------------------------------------------------------------------


async def test_who_writes_waits_for_another_and_says_who_takes_too_long(
    settings, postgres_url, monkeypatch, run_sql
):
    await Store(settings).import_trained([5])
    database = Store(settings)._database
    begun, end = threading.Event(), threading.Event()

    def hold(connection):
        begun.set()
        assert end.wait(30)

    other = asyncio.create_task(database.write(hold))
    await asyncio.to_thread(begun.wait, 30)
    # Who reads does not wait.
    assert await Store(settings).trained_timestamps() == [5]
    monkeypatch.setattr(postgresql, "LOCK_TIMEOUT_S", 0.2)
    with pytest.raises(StoreError, match=r"locked.*0\.2 s"):
        await Store(settings).import_trained([6])
    monkeypatch.undo()
    waiting = asyncio.create_task(Store(settings).import_trained([7]))
    done, _ = await asyncio.wait({waiting}, timeout=0.2)
    assert done == set()
    end.set()
    await asyncio.gather(other, waiting)
    assert await Store(settings).trained_timestamps() == [5, 7]


async def test_many_that_meet_an_empty_database_at_once_make_one_store(settings):
    stores = [Store(settings) for _ in range(20)]
    await asyncio.gather(*(it.record_score(score("k"), "m", 0.3) for it in stores))
    [memory] = await stores[0].memories()
    assert memory.count == 20


def test_a_process_that_was_forked_opens_connections_of_its_own(settings):
    store = Store(settings)
    asyncio.run(store.import_trained([5]))
    before = store._database.read_now(_backend)
    receiving, sending = os.pipe()
    child = os.fork()
    if not child:
        # Whatever happens, the child must not go on as the test.
        try:
            os.write(sending, str(store._database.read_now(_backend)).encode())
        finally:
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as stream:
        other = int(stream.read())
    os.waitpid(child, 0)
    assert other != before
    assert store._database.read_now(_backend) == before


def _backend(connection):
    return connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()


async def test_a_connection_that_the_server_has_ended_is_no_error(settings, run_sql):
    await Store(settings).import_trained([5])
    run_sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'mindscore'"
    )
    assert await Store(settings).trained_timestamps() == [5]


# -- damage ---------------------------------------------------------------------------------------


async def test_a_damaged_record_is_named_and_can_be_removed(settings, run_sql):
    for key in ("fine", "odd"):
        whole = MemoryScore(key, 1.0, "full", row(key).divergences, fingerprint="f")
        await Store(settings).record_row(whole, "m")
    run_sql("UPDATE rows SET row = '#' || row WHERE key = 'odd'")
    assert list(await Store(settings).rows("m")) == ["fine"]
    [damage] = await Records(settings).damaged()
    assert damage.id.startswith("rows:")
    assert await Records(settings).drop([damage.id]) == 1
    assert await Records(settings).damaged() == []


# -- a server that dies ---------------------------------------------------------------------------

WRITE = """
import asyncio, sys
from mindscore.config.settings import StoreSettings
from mindscore.store import Evidence, Store

async def main():
    store = Store(StoreSettings(sys.argv[1]))
    for batch in range(10_000):
        rows = [
            Evidence("c", "m", "k", "t", "full", f"{batch}-{number}", number, 1.0, 1.0, None, None,
                     None, None, 1.0)
            for number in range(100)
        ]
        await store.add_evidence(rows)
        print(batch, flush=True)

asyncio.run(main())
"""


def test_a_server_that_is_killed_while_writing_has_all_that_was_said_to_be_kept():
    with running_server() as server:
        url = server.url()
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        writer = subprocess.Popen([sys.executable, "-c", WRITE, url], text=True, **pipes)
        try:
            for _ in range(20):
                kept = int(writer.stdout.readline())
            server.stop(signal.SIGKILL)
            out, err = writer.communicate(timeout=60)
        finally:
            writer.kill()
            writer.wait()
        kept = int([str(kept), *out.split()][-1])
        assert "StoreError" in err.splitlines()[-1]
        server.start()
        counts = asyncio.run(_count_batches(Store(StoreSettings(url))))
        # Each batch whole; the last may have been kept and not confirmed.
        assert set(counts.values()) == {100}
        assert set(counts) in (set(range(kept + 1)), set(range(kept + 2)))
        asyncio.run(Store(StoreSettings(url)).import_trained([5]))
        postgresql.close_all()


async def _count_batches(store):
    counts = {}
    async for batch in store.evidence():
        for node_id in batch["node_id"]:
            number = int(node_id.partition("-")[0])
            counts[number] = counts.get(number, 0) + 1
    return counts
