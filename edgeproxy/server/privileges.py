"""The user that the process becomes before it does anything, and what it may do then."""

import grp
import os
import pwd
import stat
from pathlib import Path

from edgeproxy import _native
from edgeproxy.config import Config, Loaded
from edgeproxy.config.address import ListenAddress
from edgeproxy.config.faults import Faults
from edgeproxy.errors import ConfigError


def first_unprivileged_port() -> int:
    """Return the lowest port that anybody may bind."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1_024


def low_listeners(config: Config) -> list[str]:
    """Return the listeners whose ports not everybody may bind."""
    first = first_unprivileged_port()
    return [name for name, listener in config.install.listener.items() if ListenAddress.parse(listener.address).port < first]


def check_privileges(config: Config, faults: Faults) -> None:
    """Add what this process has not the rights for, or cannot become."""
    user, group = config.install.user, config.install.group
    root = os.geteuid() == 0
    if user and not _known(pwd.getpwnam, user):
        faults.add(("install", "user"), f"no such user on this machine, got: {user}")
    elif user and not root and pwd.getpwnam(user).pw_uid != os.geteuid():
        faults.add(("install", "user"), f"only root can become another user, got: {user}", "start as root, or as that user")
    if group and not _known(grp.getgrnam, group):
        faults.add(("install", "group"), f"no such group on this machine, got: {group}")
    if not _native.may_bind_low():
        for name in low_listeners(config):
            faults.add(
                ("install", "listener", name, "address"),
                f"ports below {first_unprivileged_port()} need a right that this process has not, got: {config.install.listener[name].address}",
                "start as root with install.user, or with CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities)",
            )
    directory = Path(config.install.state_directory).absolute()
    existing = next(parent for parent in (directory, *directory.parents) if parent.exists())
    if existing.is_dir() and not os.access(existing, os.W_OK | os.X_OK):
        faults.add(("install", "state_directory"), f"{existing} cannot be written by this user")


def _known(find: object, name: str) -> bool:
    try:
        find(name)  # type: ignore[operator]
    except KeyError:
        return False
    return True


def become_user(loaded: Loaded) -> None:
    """Become the configured user, keeping only the right to bind low ports, and that only where a listener has one.

    The state directory is made, and given to that user with all that is in it. Raise `ConfigError` where the system refuses.
    """
    install = loaded.config.install
    if not install.user or os.geteuid() != 0:
        return
    user, group = _ids(loaded.config)
    directory = Path(install.state_directory)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _give(directory.resolve(), user, group)
        _native.become_user(user, group, bool(low_listeners(loaded.config)))
    except OSError as error:
        raise ConfigError(f"{loaded.name}: install.user: cannot become {install.user}: {error}") from error
    os.environ.update(HOME=pwd.getpwuid(user).pw_dir, USER=install.user, LOGNAME=install.user)


def may(config: Config, path: Path, mode: int) -> bool:
    """Whether the user that will serve may use `path` so (`os.access`). Root asks as that user, in a process that does nothing else."""
    if not config.install.user or os.geteuid() != 0:
        return os.access(path, mode)
    user, group = _ids(config)
    child = os.fork()
    if child == 0:
        allowed = False
        try:
            _native.become_user(user, group, False)
            allowed = os.access(path, mode)
        finally:
            os._exit(0 if allowed else 1)
    return os.waitpid(child, 0)[1] == 0


def _ids(config: Config) -> tuple[int, int]:
    user = pwd.getpwnam(config.install.user)
    return user.pw_uid, grp.getgrnam(config.install.group).gr_gid if config.install.group else user.pw_gid


def _give(directory: Path, user: int, group: int) -> None:
    """Give a directory to a user with what root made in it.

    Whoever owns the directory may swap names in it meanwhile, so nothing is reached by a path: each folder is opened without
    following links, and only what is root's and has one name changes hands.
    """
    os.chown(directory, user, group)
    for _, folders, files, opened in os.fwalk(directory, follow_symlinks=False):
        for name in (*folders, *files):
            try:
                found = os.stat(name, dir_fd=opened, follow_symlinks=False)
                if found.st_uid == 0 and (stat.S_ISDIR(found.st_mode) or found.st_nlink == 1):
                    os.chown(name, user, group, dir_fd=opened, follow_symlinks=False)
            except FileNotFoundError:
                continue
