"""A PostgreSQL server of the tests' own, on a socket in a temporary folder and on loopback."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda it: float(it.parent.name))
PATIENCE_S = 60


def program(name):
    """The path of a program of the newest PostgreSQL that is installed, or None."""
    found = shutil.which(name)
    newest = FOLDERS[-1] / name if FOLDERS else None
    return str(newest) if newest is not None and newest.exists() else found


class Server:
    """A server with trust on its socket, and with a password on loopback."""

    def __init__(self, folder, user):
        self.folder, self.user = Path(folder), user
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process = None
        self._schemas = 0

    def make(self):
        data = self.folder / "data"
        self._run("initdb", "-D", data, "-U", "mind", "-A", "trust", "--no-sync", "-E", "UTF8")
        with (data / "postgresql.conf").open("a") as stream:
            stream.write(
                f"listen_addresses = '127.0.0.1'\nport = {self.port}\n"
                f"unix_socket_directories = '{self.folder}'\nfsync = off\nmax_connections = 100\n"
            )
        (data / "pg_hba.conf").write_text(
            "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n", encoding="utf-8"
        )

    def start(self):
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program("postgres"), "-D", self.folder / "data"],
                stdout=subprocess.DEVNULL,
                stderr=log,
                **self._as_user(),
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self, how=signal.SIGINT):
        """Ends the server: at once, yet cleanly, or with SIGKILL."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE_S)
            if how == signal.SIGKILL:
                # Its children notice, and go.
                time.sleep(0.5)
                (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
            self._process = None

    def sql(self, *statements, search_path=None):
        """The rows of the last statement."""
        import psycopg

        options = f"-csearch_path={search_path}" if search_path else ""
        with psycopg.connect(
            host=str(self.folder), port=self.port, user="mind", dbname="postgres", options=options,
            autocommit=True,
        ) as connection:  # fmt: skip
            found = [connection.execute(it) for it in statements][-1]
            return found.fetchall() if found.description else None

    def url(self, schema=None):
        """The URL of a schema that is not there yet, made empty; else of one that is."""
        if schema is None:
            self._schemas += 1
            schema = f"test{self._schemas}"
            self.sql(f"CREATE SCHEMA {schema}")
        return (
            f"postgresql+psycopg://mind@/postgres?host={self.folder}&port={self.port}"
            f"&options=-csearch_path%3D{schema}"
        )

    def _answers(self):
        asked = [program("pg_isready"), "-q", "-h", self.folder, "-p", str(self.port)]
        return subprocess.run(asked, check=False).returncode == 0

    def _run(self, name, *arguments):
        subprocess.run(
            [program(name), *map(str, arguments)],
            check=True,
            capture_output=True,
            **self._as_user(),
        )

    def _as_user(self):
        # A root's server refuses to start.
        who = {"user": self.user, "group": "postgres"} if self.user else {}
        return {**who, "cwd": self.folder, "env": {**os.environ, "LC_ALL": "C.UTF-8"}}


def why_not():
    """Why no server can be started here, or None."""
    if program("initdb") is None:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed (pip install 'mindscore[postgres]')"
    if os.getuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "PostgreSQL does not run as root, and there is no user postgres"
    return None


@contextmanager
def running_server():
    """A server that ends with the block; the test is skipped where there can be none."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    user = "postgres" if os.getuid() == 0 else None
    folder = tempfile.mkdtemp(prefix="mindscore-postgres-", dir="/tmp")
    server = Server(folder, user)
    try:
        if user:
            shutil.chown(folder, user, user)
        server.make()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
