"""Users and groups: names to numbers in the master, giving up root for good in a mold or a worker."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from prefork.errors import ConfigError, PreforkError


@dataclass(frozen=True)
class Credentials:
    """What a process becomes; ``groups`` are the supplementary ones and contain ``gid``."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    shown: str


def find_uid(user: str) -> int:
    """Return the number of a user given by name or number. Raises ``ConfigError`` for an unknown name."""
    if user.isascii() and user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ConfigError(f"there is no user {user!r} on this system; create it or give its number") from None


def find_gid(group: str) -> int:
    """Return the number of a group given by name or number. Raises ``ConfigError`` for an unknown name."""
    if group.isascii() and group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(
            f"there is no group {group!r} on this system; create it or give its number"
        ) from None


def resolve(user: str | None, group: str | None) -> Credentials | None:
    """Return what ``drop`` needs, or None when neither is given; meant for the master, before any fork.

    A group that is not given is the user's own; a user's supplementary groups come from the system's
    database, which may be a network directory with its delays. Raises ``ConfigError`` for unknown names,
    and when this process is not root and would have to change.
    """
    if user is None and group is None:
        return None
    uid = os.geteuid() if user is None else find_uid(user)
    gid = _primary_group(user, uid) if group is None else find_gid(group)
    credentials = Credentials(uid, gid, _supplementary(uid, gid, user), _show(user, group))
    if os.geteuid() != 0 and not _is_already(credentials):
        raise ConfigError(
            f"only root can switch to {credentials.shown}, and this server runs as uid {os.geteuid()}; "
            "start it as root, or leave user and group out"
        )
    return credentials


def drop(credentials: Credentials | None) -> None:
    """Become ``credentials`` for good: groups, group, user, each as real, effective and saved id.

    The kernel's answer is verified, root is tried once more and must fail. Raises ``PreforkError``.
    After it the process is not dumpable: its /proc files belong to root.
    """
    if credentials is None or (os.geteuid() != 0 and _is_already(credentials)):
        return
    uid, gid = credentials.uid, credentials.gid
    try:
        os.setgroups(credentials.groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise PreforkError(
            f"cannot become {credentials.shown} (uid {uid}, gid {gid}): {error.strerror}; "
            "a container needs the capabilities SETUID and SETGID for it"
        ) from error
    became = os.getresuid(), os.getresgid(), set(os.getgroups())
    if became != ((uid,) * 3, (gid,) * 3, set(credentials.groups)) or (uid != 0 and _can_be_root_again()):
        raise PreforkError(f"tried to become {credentials.shown} (uid {uid}, gid {gid}), became {became}")


def _show(user: str | None, group: str | None) -> str:
    parts = [f"{kind} {name}" for kind, name in (("user", user), ("group", group)) if name is not None]
    return ", ".join(parts)


def _primary_group(user: str | None, uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        raise ConfigError(f"user {user} is not in the system's user database; set group as well") from None


def _supplementary(uid: int, gid: int, user: str | None) -> tuple[int, ...]:
    """Return the groups of the user's database entry; without a user or an entry, only ``gid``."""
    if user is None:
        return (gid,)
    try:
        return tuple(sorted({gid, *os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)}))
    except KeyError:
        return (gid,)


def _is_already(credentials: Credentials) -> bool:
    # Supplementary groups are not compared: without root they cannot be changed, and they are ours anyway.
    return os.getresuid() == (credentials.uid,) * 3 and os.getresgid() == (credentials.gid,) * 3


def _can_be_root_again() -> bool:
    try:
        os.setuid(0)
    except OSError:
        return False
    return True
