"""Becoming another user, checked from inside a child that did it."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys

import pytest

from prefork.errors import ConfigError
from prefork.privileges import Credentials, drop, find_gid, find_uid, resolve

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")

DROP = """
import json, os, sys
from prefork.privileges import drop, resolve
user, group = json.loads(sys.argv[1])
drop(resolve(user, group))
try:
    os.setuid(0)
except PermissionError:
    print(json.dumps([os.getresuid(), os.getresgid(), sorted(os.getgroups())]))
"""


def dropped(user: str | None, group: str | None) -> object:
    argv = [sys.executable, "-c", DROP, json.dumps([user, group])]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@ROOT
@pytest.mark.parametrize(
    ("user", "group", "uid", "gids"),
    [
        ("nobody", None, 65534, [65534]),
        ("nobody", "12345", 65534, [12345]),
        ("54321", "12345", 54321, [12345]),
        ("65534", None, 65534, [65534]),
    ],
)
def test_all_ids_and_groups_change_for_good(user: str, group: str | None, uid: int, gids: list[int]) -> None:
    assert dropped(user, group) == [[uid] * 3, [gids[0]] * 3, gids]


@ROOT
def test_supplementary_groups_come_from_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, 777] if name == "nobody" else [])
    nobody = pwd.getpwnam("nobody")
    assert resolve("nobody", None) == Credentials(
        nobody.pw_uid, nobody.pw_gid, (777, nobody.pw_gid), "user nobody"
    )


@pytest.mark.parametrize(
    ("user", "group", "words"),
    [
        ("nobody-of-this-name", None, "there is no user 'nobody-of-this-name'"),
        (None, "no-such-group", "there is no group 'no-such-group'"),
        ("54321", None, "user 54321 is not in the system's user database; set group as well"),
    ],
)
def test_unknown_names(user: str | None, group: str | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        resolve(user, group)


def test_only_root_can_become_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getresuid", lambda: (1000, 1000, 1000))
    monkeypatch.setattr(os, "getresgid", lambda: (1000, 1000, 1000))
    with pytest.raises(
        ConfigError, match="only root can switch to user 0, group 0, and this server runs as uid 1000"
    ):
        resolve("0", "0")
    drop(resolve("1000", "1000"))  # what it is already: nothing to do


def test_nothing_asked_nothing_done() -> None:
    assert resolve(None, None) is None
    drop(None)


def test_numbers_need_no_database_entry() -> None:
    assert (find_uid("54321"), find_gid("54321")) == (54321, 54321)
