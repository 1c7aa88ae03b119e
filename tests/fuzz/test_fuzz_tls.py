"""Whatever arrives on a port with TLS: HTTP in it means what it means without, and all else ends well.

The examples are the same in every run, but for the keys; ``make fuzz`` is for finding new ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pki import Pki
from test_fuzz_properties import CUTS, SEQUENCES, Valid, mutations
from tls_agreement import Damage, TlsMachines, check_damaged, check_encrypted, check_raw, check_tls, seeds

# The validator warns of methods that it does not know.
pytestmark = pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")

BOUNDED = settings(
    max_examples=100, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
VERSION = st.integers(0, 1)
DAMAGES = st.lists(
    st.builds(Damage, st.integers(0, 900), st.integers(0, 3), st.integers(0, 255)), min_size=1, max_size=3
)


@pytest.fixture(scope="module")
def machines(pki: Pki) -> Iterator[TlsMachines]:
    made = TlsMachines(pki)
    yield made
    made.close()


@given(sequence=SEQUENCES, version=VERSION, cuts=CUTS, goodbye=st.booleans())
@BOUNDED
def test_valid_requests_mean_what_they_mean_without(
    machines: TlsMachines, sequence: list[Valid], version: int, cuts: list[int], goodbye: bool
) -> None:
    check_encrypted(machines, b"".join(request.wire for request in sequence), version, cuts, goodbye)


@given(data=mutations(), version=VERSION, cuts=CUTS, goodbye=st.booleans())
@BOUNDED
def test_mutations_of_them_are_answered_as_without(
    machines: TlsMachines, data: bytes, version: int, cuts: list[int], goodbye: bool
) -> None:
    check_encrypted(machines, data, version, cuts, goodbye)


@given(version=VERSION, cuts=CUTS, damages=DAMAGES)
@settings(BOUNDED, max_examples=200)
def test_damaged_records_reach_no_application(
    machines: TlsMachines, version: int, cuts: list[int], damages: list[Damage]
) -> None:
    check_damaged(machines, GET * 3, version, cuts, damages)


@given(data=st.binary(max_size=200), cuts=CUTS)
@BOUNDED
def test_any_bytes_end_the_same_however_they_arrive(
    machines: TlsMachines, data: bytes, cuts: list[int]
) -> None:
    check_raw(machines.encrypted, data, cuts)


@given(data=st.data(), cuts=CUTS)
@BOUNDED
def test_recorded_handshakes_with_mutations_end_the_same_however_they_arrive(
    machines: TlsMachines, data: st.DataObject, cuts: list[int]
) -> None:
    recorded = bytearray(check_encrypted(machines, GET, data.draw(VERSION), ()))
    for _ in range(data.draw(st.integers(0, 3))):
        at, length = data.draw(st.integers(0, len(recorded))), data.draw(st.integers(0, 3))
        recorded[at : at + length] = data.draw(st.binary(max_size=3))
    check_raw(machines.encrypted, bytes(recorded), cuts)


def test_what_fuzzing_begins_with_and_has_found(machines: TlsMachines) -> None:
    found = sorted((Path(__file__).parent / "corpus").glob("tls-*"))
    for data in (*seeds(machines, [GET, GET[:9], GET + b"\0"]), *(path.read_bytes() for path in found)):
        check_tls(machines, data)
