"""The admin process as a pool, for it runs the ordinary worker code: the part of its config that is not written."""

from __future__ import annotations

from typing import Final

from prefork.config.listening import Admin
from prefork.config.schema import KIB, MIB, Limits, Pool, Proxy, RequestId
from prefork.config.timing import Timeouts

NAME: Final = "admin"
"""Reserved: no pool has it."""

THREADS: Final = 4
"""A slow scrape, or two, must not keep a health check waiting."""


def admin_pool(admin: Admin) -> Pool:
    """Return what the worker code reads of a pool.

    Nobody is believed what a proxy may say, nor is it taken away: it tells that a request is not a local one. All that
    is answered fits into memory, so that clients which do not read keep no thread. Each client has little time to send
    and to read: so those that do neither cannot fill the listener for as long as a health check would wait.
    """
    return Pool(
        name=NAME,
        app="prefork.admin.app",
        listen=admin.listen,
        workers=1,
        threads=THREADS,
        preload=False,
        user=admin.user,
        group=admin.group,
        timeouts=Timeouts(boot=30.0, request=30.0, slow=0.0, graceful=5.0, head=3.0, body=3.0, send=3.0),
        limits=Limits(body=64 * KIB, response_memory=16 * MIB, memory=128 * MIB, spool=0, connections=512),
        proxy=Proxy(trust=(), untrusted="pass"),
        request_id=RequestId(trust=False),
        share_connections=False,
    )
