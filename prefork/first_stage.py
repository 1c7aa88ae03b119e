"""The first stage of a master that goes on from the state of another version: it takes over, or goes back.

What it needs is only the standard library, so that it works when nothing else of the installed version does. Run as
``python -m prefork.first_stage PURPOSE STATE FAILURE ARGUMENT...``, or by its file name on the way back.

The purposes: ``check`` rehearses in a child of the running master and exits with 0 if all is well. ``adopt`` makes
this process the master; if that fails the old code takes its place, with the same descriptors and the purpose
``return``. STATE is the descriptor of the state, FAILURE why it came back, and the rest what prefork was told.

See docs/decisions/0013-upgrade-in-place.md.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from typing import Any

_LONGEST_FAILURE = 8192


def main() -> int:
    """Return the exit status."""
    _, purpose, number, failure, *arguments = sys.argv
    if not __package__:
        _import_from_here()
    if purpose == "check":
        from prefork.cli.resume import rehearse

        return rehearse(int(number), arguments)
    fd = int(number)
    state = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    sys.argv[:] = [state["program"], *arguments]  # as the application knows it
    copies: dict[int, int] = {}
    try:
        if purpose == "adopt":
            for original in state["descriptors"]:
                copies[original] = os.dup(original)
        from prefork.cli.resume import adopt

        master = adopt(fd, arguments, failure)
    except BaseException:
        _go_back(purpose, state, fd, copies, arguments)
        raise
    for original in state["descriptors"]:
        os.set_inheritable(original, False)
    for copy in (*copies.values(), fd):
        os.close(copy)
    return master()


def _import_from_here() -> None:
    """Have ``prefork`` mean the package of this file, whatever is installed now."""
    folder = os.path.dirname(os.path.realpath(__file__))
    spec = importlib.util.spec_from_file_location(
        "prefork", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules["prefork"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _go_back(
    purpose: str, state: dict[str, Any], fd: int, copies: dict[int, int], arguments: list[str]
) -> None:
    """Become the old code again, unless this is it; return if that is impossible."""
    if purpose == "return":
        return
    failure = traceback.format_exc().replace("\0", "").encode("ascii", "backslashreplace").decode()
    if len(failure) > _LONGEST_FAILURE:
        failure = f"Traceback, of which the beginning is left out:\n{failure[-_LONGEST_FAILURE:]}"
    for original, copy in copies.items():  # the attempt may have closed some
        os.dup2(copy, original)
    command = [*state["way_back"], "return", str(fd), failure, *arguments]
    try:
        if os.path.exists(state["way_back"][-1]):
            os.execv(command[0], command)
    except OSError:
        traceback.print_exc()


if __name__ == "__main__":
    sys.exit(main())
