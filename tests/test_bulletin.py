"""The bulletin and its observer: what readers see while the master writes, or stops in the middle."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefork.bulletin import Bulletin
from prefork.cell import READY
from prefork.observer import Observer
from prefork.process import spawn
from prefork.scoreboard import Scoreboard


@pytest.fixture
def bulletin() -> Iterator[Bulletin]:
    made = Bulletin.create(half_bytes=4096)
    yield made
    made.close()


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    made = Scoreboard.create("web", 1, cells=2, threads=1, doorbell=-1)
    yield made
    made.close()


def document(requests: int, *cells: int) -> dict[str, Any]:
    workers = [{"generation": 1, "cell": cell} for cell in cells]
    return {"pools": {"web": {"generations": [1], "workers": workers, "requests": requests}}}


def publish(bulletin: Bulletin, found: dict[str, Any]) -> None:
    bulletin.publish(json.dumps(found).encode())


def test_another_process_reads_what_was_published_last(bulletin: Bulletin) -> None:
    theirs = Bulletin(bulletin.fd)
    assert theirs.read() is None
    for number in range(1, 6):
        bulletin.publish(b"%d" % number * number)
        edition = theirs.read()
        assert edition is not None
        assert edition.document == b"%d" % number * number
        bulletin.touch()
        bulletin.touch()
        assert theirs.read() == edition
        assert bulletin.number == edition.number + 1
    with pytest.raises(TypeError):
        theirs.touch()
    with pytest.raises(ValueError, match="memoryview assignment"):
        bulletin.publish(bytes(4097))
    with pytest.raises(PermissionError):
        os.ftruncate(bulletin.fd, 4096)
    assert fcntl.fcntl(bulletin.fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK


def test_a_child_of_the_master_does_not_inherit_the_mapping(bulletin: Bulletin) -> None:
    """A worker whose C code goes wild cannot write there."""

    def mapped() -> bool:
        return "memfd:prefork-bulletin" in Path("/proc/self/maps").read_text()

    assert mapped()
    _, status = os.waitpid(spawn(mapped), 0)
    assert status == 0


def test_the_next_version_goes_on_with_the_same_file_if_it_can(bulletin: Bulletin) -> None:
    publish(bulletin, document(7))
    bulletin.touch()
    before = bulletin.number
    again = Bulletin.adopt(os.dup(bulletin.fd))
    assert again.is_touched
    assert again.number == before
    publish(again, document(8))
    assert bulletin.number == before + 1
    other = os.memfd_create("of another format")
    os.ftruncate(other, 8192)
    new = Bulletin.adopt(other)
    assert new.read() is None
    for each in (again, new):
        each.close()


def test_a_document_is_never_seen_with_cells_of_another(bulletin: Bulletin, board: Scoreboard) -> None:
    """The counts of the dead worker are in its cell or in the document, whenever somebody looks."""
    boards = {("web", 1): board}
    observer = Observer(Bulletin(bulletin.fd))
    assert observer.look(boards, patience_s=0) is None

    def seen() -> int | None:
        sight = observer.look(boards, patience_s=0)
        if sight is None:
            return None
        pool = sight.document["pools"]["web"]
        cells = [sight.boards["web", 1].cells[worker["cell"]] for worker in pool["workers"]]
        return int(pool["requests"]) + sum(cell.counts().requests for cell in cells)

    cell = board.cells[1]
    cell.set_state(READY)
    cell.threads[0].leave("GET", 200, 1, 5)
    publish(bulletin, document(40, 1))
    assert seen() == 41
    bulletin.touch()
    assert seen() is None
    cell.clear()
    assert seen() is None
    publish(bulletin, document(41))
    assert seen() == 41
    # A change between its look at the document and its look at the cells is noticed, too.
    read = observer.document
    observer.document = lambda: [read(), bulletin.touch()][0]  # type: ignore[method-assign]
    assert seen() is None


def test_copies_change_no_more_and_what_is_not_there_is_left_out(
    bulletin: Bulletin, board: Scoreboard
) -> None:
    publish(bulletin, document(0, 1, 99))
    sight = Observer(bulletin).look({("web", 1): board, ("gone", 3): board})
    assert sight is not None
    assert list(sight.boards) == [("web", 1)]
    board.cells[1].threads[0].leave("GET", 200, 1, 5)
    assert sight.boards["web", 1].cells[1].counts().requests == 0
    for index in (0, 99):
        with pytest.raises(LookupError):
            sight.boards["web", 1].cells[index]
