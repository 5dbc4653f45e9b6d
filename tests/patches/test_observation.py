"""The packet that carries an observation: exact both ways, and an error when it is anything else."""

from __future__ import annotations

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mote.patches import ActivationMap, EditEffect, Observation, ObservationError, Receipt, read_observation
from mote.patches.observation import pack, unpack

SHAPE = (3, 16)
maps = st.builds(
    ActivationMap,
    hnp.arrays(np.int32, SHAPE),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.none() | hnp.arrays(np.float32, SHAPE, elements=st.floats(0, 100, width=32)),
)
effects = st.builds(
    EditEffect,
    st.integers(0, 9),
    st.integers(0, 9),
    st.sampled_from(["suppress", "scale", "activate"]),
    st.floats(0, 10),
    *[st.integers(0, 99)] * 3,
    st.floats(0, 9),
    st.floats(0, 9),
    st.integers(0, 99),
)
of_rows = st.dictionaries(
    st.sampled_from(["prompt", "generated"]),
    hnp.arrays(np.float32, st.tuples(st.integers(0, 4), st.just(3), st.just(2)), elements=st.floats(-9, 9, width=32)),
)
observations = st.builds(
    Observation,
    st.builds(Receipt, st.text("0123456789abcdef", min_size=64, max_size=64), st.integers(0, 10**6), st.just("0.1.0")),
    st.just((1, 2, 3)),
    st.dictionaries(st.sampled_from(["prompt", "reasoning", "answer"]), maps),
    st.lists(effects).map(tuple),
    st.dictionaries(
        st.sampled_from(["prompt", "generated"]),
        hnp.arrays(np.uint16, st.tuples(st.integers(0, 4), st.just(3), st.just(2))),
    ),
    of_rows,
    of_rows,
)


def same(a: Observation, b: Observation) -> bool:
    def arrays(x: Observation) -> dict[str, object]:
        found = {f"counts/{k}": v.counts.tolist() for k, v in x.maps.items()}
        found |= {f"w/{k}": v.weights.tolist() for k, v in x.maps.items() if v.weights is not None}
        found |= {f"weights/{k}": (v.dtype, v.tolist()) for k, v in x.row_weights.items()}
        found |= {f"logits/{k}": (v.dtype, v.tolist()) for k, v in x.row_logits.items()}
        return found | {k: (v.dtype, v.tolist()) for k, v in x.rows.items()}

    def counted(x: Observation) -> dict[str, tuple[int, int]]:
        return {role: (found.counted, found.total) for role, found in x.maps.items()}

    return (a.receipt, a.layers, a.mechanism, counted(a), arrays(a)) == (
        b.receipt,
        b.layers,
        b.mechanism,
        counted(b),
        arrays(b),
    )


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def over_http(array: np.ndarray) -> str:
    return base64.b64encode(npy(array)).decode()


@given(observations)
def test_round_trip_by_every_road(observation: Observation) -> None:
    packet = pack(observation)
    for carried in (packet, over_http(packet), {"routed_experts": over_http(packet)}):
        assert same(read_observation(carried), observation)
    assert same(read_observation(SimpleNamespace(routed_experts=packet)), observation)


@given(observations)
def test_arrays_written_otherwise_are_read_or_refused_as_numpy_does(observation: Observation) -> None:
    raw = npy(pack(observation))
    for carried in (
        raw + b"x",
        raw.replace(b"': (", b"' :(", 1),
        raw.replace(b"(", b"(+", 1).replace(b" \n", b"\n", 1),
    ):
        assert same(read_observation(base64.b64encode(carried).decode()), observation)
    for carried in (raw[:-1], raw[:100], raw.replace(b"|u1", b"|i1", 1), raw.replace(b"(", b"(9", 1)):
        with pytest.raises(ObservationError):
            read_observation(base64.b64encode(carried).decode())


@given(observations, observations)
def test_of_several_packets_the_last_counts(first: Observation, last: Observation) -> None:
    assert same(unpack(pack(first).tobytes() + pack(last).tobytes()), last)


@given(observations, st.data())
def test_a_cut_packet_is_an_error(observation: Observation, data: st.DataObject) -> None:
    packet = pack(observation).tobytes()
    with pytest.raises(ObservationError):
        unpack(packet[: data.draw(st.integers(0, len(packet) - 1))])


def test_answers_without_a_receipt() -> None:
    with pytest.raises(ObservationError, match="without the MoTE patch"):
        read_observation(SimpleNamespace(routed_experts=None))
    with pytest.raises(ObservationError, match="without the MoTE patch"):
        read_observation({"index": 0})
    with pytest.raises(ObservationError, match="enable_return_routed_experts"):
        read_observation(np.zeros((5, 3, 2), np.int32))
    with pytest.raises(ObservationError, match="no base64 array"):
        read_observation("not base64!")


def test_pickled_arrays_are_not_loaded() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ObservationError):
        read_observation(base64.b64encode(buffer.getvalue()).decode())


def test_a_header_cannot_claim_more_than_the_packet_holds() -> None:
    packet = pack(
        Observation(Receipt("0" * 64, 0, "0"), (1,), {"prompt": ActivationMap(np.ones((1, 4), np.int32), 1, 1)})
    )
    with pytest.raises(ObservationError, match="damaged"):
        unpack(packet.tobytes().replace(b"[1,4]", b"[9,9]"))
