"""The same bytes read by h11: what we take for a request must be the same request to a strict peer."""

from __future__ import annotations

import h11
from reader_agreement import LIMITS, read_head

from prefork.http.head import HeadParser


def check_against_h11(data: bytes) -> None:
    """Check that a head which we accept is framed by h11 as we frame it."""
    ours = read_head([data], HeadParser(LIMITS))
    if not isinstance(ours, tuple):
        return
    head, length = ours
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(data[:length].lstrip(b"\r\n"))
    event = peer.next_event()
    assert isinstance(event, h11.Request), event
    assert event.method.decode() == head.method
    assert event.target.decode() == head.target
    assert event.http_version == b"%d.%d" % head.version
    fields = dict(event.headers)
    assert (fields.get(b"transfer-encoding") == b"chunked") == head.chunked
    assert int(fields.get(b"content-length", b"0")) == head.content_length
