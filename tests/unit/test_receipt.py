"""What is remembered under a key, packed and unpacked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain.receipt import FORMAT, Receipt, pack, unpack, unpack_record

RECEIPTS = st.builds(
    Receipt, st.integers(0, 1 << 53), st.integers(0, 1 << 53), st.binary(max_size=255), st.binary(max_size=300)
)


@given(RECEIPTS, st.binary(min_size=1, max_size=255))
def test_what_is_packed_comes_back(receipt: Receipt, entry_id: bytes) -> None:
    assert unpack(pack(receipt)) == receipt
    assert unpack_record(pack(receipt) + entry_id + bytes([len(entry_id)])) == (receipt, entry_id)


@given(RECEIPTS, st.integers(1, 18))
def test_what_is_cut_off_is_refused(receipt: Receipt, missing: int) -> None:
    packed = pack(receipt._replace(reply=b""))
    with pytest.raises(ValueError, match="a receipt of"):
        unpack(packed[:-missing])


@pytest.mark.parametrize("data", [b"", b"\0", b"\3ab", bytes([FORMAT + 1]) + bytes(30), b"[1]"])
def test_what_is_no_receipt_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(data)
    with pytest.raises(ValueError):
        unpack_record(data)
