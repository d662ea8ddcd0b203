"""Real database servers on free ports in temporary folders."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.proxy import free_port


def _user(wanted: str) -> str | None:
    """Return the user to run a server as that refuses root; None for who we are."""
    return wanted if os.geteuid() == 0 else None


@contextmanager
def _folder(user: str | None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="edgeproxy-db-"))
    if user:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _await(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"the server is not ready: {log.read_text()}")


@contextmanager
def _served(line: list[str], user: str | None, port: int, folder: Path) -> Iterator[None]:
    log = folder / "log"
    with log.open("wb") as out, subprocess.Popen(line, stdout=out, stderr=out, user=user, cwd=folder) as process:
        try:
            _await(port, process, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def postgresql() -> Iterator[str]:
    """Serve PostgreSQL; the URL is that of its administrator, without a database."""
    user = _user("postgres")
    binaries = max(Path("/usr/lib/postgresql").iterdir(), key=lambda path: int(path.name)) / "bin"
    with _folder(user) as folder:
        data, port = folder / "data", free_port()
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "admin", "-A", "trust", "--no-sync"],
            check=True,
            capture_output=True,
            user=user,
            cwd=folder,
        )
        line = [
            str(binaries / "postgres"),
            "-D",
            str(data),
            "-p",
            str(port),
            "-k",
            str(folder),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "fsync=off",
        ]
        with _served(line, user, port, folder):
            yield f"postgresql://admin@127.0.0.1:{port}/"


@contextmanager
def mariadb() -> Iterator[str]:
    """Serve MariaDB; the URL is that of its administrator, without a database."""
    user = _user("mysql")
    with _folder(user) as folder:
        data, port = folder / "data", free_port()
        common = ["--no-defaults", f"--datadir={data}"]
        install = [
            "mariadb-install-db",
            *common,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *([f"--user={user}"] if user else []),
        ]
        subprocess.run(install, check=True, capture_output=True, cwd=folder)
        server = shutil.which("mariadbd") or "/usr/sbin/mariadbd"
        line = [server, *common, f"--socket={folder}/s", f"--port={port}", "--bind-address=127.0.0.1", f"--pid-file={folder}/pid"]
        with _served(line, user, port, folder):
            yield f"mysql://root@127.0.0.1:{port}/"
