"""What may come of a case, as verdicts on its outcome."""

from __future__ import annotations

from collections.abc import Callable

from bench.conformance.wire import Outcome

Verdict = Callable[[Outcome], bool]


def reject(*statuses: int, answered: bool = False) -> Verdict:
    """Allow an answer that is one of ``statuses`` (any from 400 if none), or a close, but no call."""

    def verdict(outcome: Outcome) -> bool:
        if any(call.get("PATH_INFO") != "/next" for call in outcome.seen) or not outcome.closed:
            return False
        if not outcome.responses:
            return not (answered or outcome.waited or outcome.received)
        status = outcome.responses[0].status
        return status in statuses if statuses else status >= 400

    return verdict


def drop(*statuses: int) -> Verdict:
    """Allow what ``reject`` does; nothing behind the request may be served, since its end is not known."""
    rejected = reject(*statuses)
    return lambda outcome: rejected(outcome) and not outcome.seen and not outcome.waited


def serve(*, last: bool = False, **wanted: object) -> Verdict:
    """Allow a request that the application sees as ``wanted``; ``last``: the connection ends behind it.

    A wanted value is the value, or None for an absent one, or a tuple of values.
    """

    def verdict(outcome: Outcome) -> bool:
        if not outcome.seen or not outcome.responses or outcome.responses[0].status >= 300:
            return False
        first, *others = outcome.seen
        if others and (last or len(others) > 1 or others[0].get("PATH_INFO") != "/next"):
            return False
        return outcome.closed and all(matches(first.get(key), value) for key, value in wanted.items())

    return verdict


def matches(value: str | None, wanted: object) -> bool:
    return value in wanted if isinstance(wanted, tuple) else value == wanted


def answer(*statuses: int) -> Verdict:
    """Allow an answer with one of the statuses, whoever gives it."""
    return lambda outcome: bool(outcome.responses) and outcome.responses[0].status in statuses


def wait(outcome: Outcome) -> bool:
    """Allow a server that wants more bytes, and calls nobody without them."""
    return outcome.waited and not outcome.seen


def either(*verdicts: Verdict) -> Verdict:
    """Allow what one of them allows."""
    return lambda outcome: any(verdict(outcome) for verdict in verdicts)


def both(*verdicts: Verdict) -> Verdict:
    """Allow what all of them allow."""
    return lambda outcome: all(verdict(outcome) for verdict in verdicts)


def uncalled(outcome: Outcome) -> bool:
    """Allow anything that is no call, and ends."""
    return outcome.closed and not outcome.seen


# About the responses themselves.


def interim(*statuses: int) -> Verdict:
    return lambda outcome: outcome.interim == list(statuses)


def framed(outcome: Outcome) -> bool:
    """Is the first response followed by the next, or by the end, and by nothing else?"""
    return bool(outcome.responses) and not outcome.stray and len(outcome.responses) <= 2


def bodiless(status: int) -> Verdict:
    return lambda outcome: framed(outcome) and outcome.responses[0].status == status


def whole(body: bytes) -> Verdict:
    """Allow this body, ended by its framing or by the end of the connection."""

    def verdict(outcome: Outcome) -> bool:
        if not framed(outcome):
            return False
        first = outcome.responses[0]
        return first.body == body and (first.complete or not framing(outcome)) and outcome.closed

    return verdict


def framing(outcome: Outcome) -> bool:
    """Does the first response say where it ends?"""
    return not {"content-length", "transfer-encoding"}.isdisjoint(outcome.responses[0].fields)


def old(body: bytes) -> Verdict:
    """Allow what an HTTP/1.0 client understands."""
    understood = whole(body)
    return lambda outcome: understood(outcome) and "transfer-encoding" not in outcome.responses[0].fields


def cut(outcome: Outcome) -> bool:
    """Allow a response that a client sees to be incomplete, or an error; nothing may follow on the connection."""
    if not framed(outcome) or not outcome.closed:
        return False
    first = outcome.responses[0]
    if first.status >= 500:
        return True
    return (
        len(outcome.responses) == 1
        and not outcome.waited
        and not first.complete
        and (framing(outcome) or outcome.reset)
    )


def unsplit(outcome: Outcome) -> bool:
    return framed(outcome) and b"\nX-Injected" not in outcome.received


def dated(outcome: Outcome) -> bool:
    """Allow a response with Date, or none."""
    return (
        not outcome.responses or outcome.responses[0].status >= 500 or "date" in outcome.responses[0].fields
    )
