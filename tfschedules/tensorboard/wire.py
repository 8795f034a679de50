"""The bytes of an event file: built with NumPy, and read back.

An event file is a row of records, and a step with its values is one record:

    record  = uint64 length | uint32 crc of it | event | uint32 crc of the event
    event   = 09 double wall_time | 10 varint step, absent at 0 | 2A length summary
    summary = for each tag: 0A length (0A length tag | 15 float value)

Scalars are `simple_value`s, not tensors: both loaders turn them into the Scalars
tab's series, legacy readers (`EventAccumulator.Scalars`) read nothing else, and
they need no metadata at a tag's first event. Either way TensorBoard keeps float32.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.summary.writer.record_writer import RecordWriter

_FRAME = 12  # bytes of a record before its event: the length and its crc
_BLOCK = 512  # records whose checksums are computed at once: they fit in the cache


@functools.lru_cache(maxsize=16)
def _crc_terms(length: int) -> np.ndarray:
    """What each byte of a message adds to its CRC-32C: uint32 [length, 256].

    A CRC is linear: the XOR of one term for every byte at its place. The start
    value of all ones is the same as the first four bytes inverted.
    """
    term: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        term = (term >> 1) ^ (term & 1) * np.uint32(0x82F63B78)
    byte_terms, terms = term, np.empty((length, 256), np.uint32)
    for place in reversed(range(length)):
        terms[place] = term
        term = byte_terms[term & 255] ^ (term >> 8)
    terms[:4] = terms[:4, ::-1]
    return terms


def _masked_crcs(messages: np.ndarray) -> np.ndarray:
    """Masked CRC-32C of uint8 messages [n, length], length at least 4: uint32 [n].

    Example:
        >>> hex(_masked_crcs(np.frombuffer(b"123456789", np.uint8)[None])[0])
        '0xc78ab0e5'
    """
    count, length = messages.shape
    terms = _crc_terms(length).reshape(-1)
    places = 256 * np.arange(length)
    crcs = np.empty(count, np.uint32)
    for begin in range(0, count, _BLOCK):
        block = slice(begin, begin + _BLOCK)
        np.bitwise_xor.reduce(terms[messages[block] + places], axis=1, out=crcs[block])
    crcs = ~crcs
    return ((crcs >> 15) | (crcs << 17)) + np.uint32(0xA282EAD8)


@functools.lru_cache(maxsize=16)
def _template(tags: tuple[str, ...], step_bytes: int) -> tuple[np.ndarray, np.dtype]:
    """One record of zeros, uint8 [size], and where the bytes lie that vary."""
    parts = [
        summary_pb2.Summary(
            value=[summary_pb2.Summary.Value(tag=tag, simple_value=0)]
        ).SerializeToString()  # the float comes last
        for tag in tags
    ]
    summary = summary_pb2.Summary.FromString(b"".join(parts))
    event = event_pb2.Event(summary=summary).SerializeToString()
    start = b"\x09" + bytes(8) + (b"\x10" + bytes(step_bytes) if step_bytes else b"")
    length = struct.pack("<Q", len(start) + len(event))
    crc = _masked_crcs(np.frombuffer(length, np.uint8)[None]).astype("<u4").tobytes()
    record = length + crc + start + event + bytes(4)

    sizes = [len(part) for part in parts]
    value_ends = len(record) - 4 - sum(sizes) + np.cumsum(sizes)
    fields: dict[str, tuple[Any, int]] = {  # each with its offset
        "wall_time": ("<f8", _FRAME + 1),
        "step": (("u1", (step_bytes,)), _FRAME + 10),
        "crc": ("<u4", len(record) - 4),
        **{f"value {i}": ("<f4", int(end) - 4) for i, end in enumerate(value_ends)},
    }
    formats, offsets = zip(*fields.values(), strict=True)
    layout = np.dtype(
        {
            "names": list(fields),
            "formats": list(formats),
            "offsets": list(offsets),
            "itemsize": len(record),
        }
    )
    return np.frombuffer(record, np.uint8), layout


def _equal_records(
    steps: np.ndarray,
    wall_times: np.ndarray,
    values: Mapping[str, np.ndarray],
    step_bytes: int,
) -> bytes:
    """Records of steps whose varints have the same length, so that all are alike."""
    record, layout = _template(tuple(values), step_bytes)
    raw = np.tile(record, (len(steps), 1))
    records = raw.view(layout)[:, 0]
    records["wall_time"] = wall_times
    digits = (steps[:, None] >> 7 * np.arange(step_bytes)) & 0x7F
    digits[:, :-1] |= 0x80
    records["step"] = digits
    for i, column in enumerate(values.values()):
        records[f"value {i}"] = column
    records["crc"] = _masked_crcs(raw[:, _FRAME:-4])
    return raw.tobytes()


def scalar_records(
    steps: np.ndarray, wall_times: np.ndarray, values: Mapping[str, np.ndarray]
) -> bytes:
    """One record per step, byte for byte as the protos serialize.

    A varint of k bytes holds steps below 2^(7k); at step 0 the field is absent.
    """
    starts = [0, 1, *(1 << 7 * k for k in range(1, 9))]
    cuts = [*np.searchsorted(steps, starts), len(steps)]
    return b"".join(
        _equal_records(
            steps[begin:end],
            wall_times[begin:end],
            {tag: column[begin:end] for tag, column in values.items()},
            step_bytes,
        )
        for step_bytes, (begin, end) in enumerate(itertools.pairwise(cuts))
        if begin < end
    )


def event_record(event: event_pb2.Event) -> bytes:
    """Frame one event, with TensorBoard's own writer."""
    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()


def numbers_tensor(values: npt.ArrayLike) -> tensor_pb2.TensorProto:
    """A tensor of float64, of any shape."""
    array = np.asarray(values, "<f8")
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=n) for n in array.shape])
    return tensor_pb2.TensorProto(
        dtype=types_pb2.DT_DOUBLE, tensor_shape=shape, tensor_content=array.tobytes()
    )


def strings_tensor(strings: list[bytes], dims: list[int]) -> tensor_pb2.TensorProto:
    """A tensor of strings."""
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in dims])
    return tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING, tensor_shape=shape, string_val=strings
    )


def checked_series(
    steps: npt.ArrayLike,
    wall_times: npt.ArrayLike,
    values: Mapping[str, npt.ArrayLike],
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """The arrays in the types in which they are written, or an error."""
    steps, wall_times = np.asarray(steps), np.asarray(wall_times, np.float64)
    if steps.ndim != 1 or (steps.size and steps.dtype.kind not in "iu"):
        raise TypeError(
            "Argument `steps` must be a one-dimensional array of integers. "
            f"Received: dtype {steps.dtype}, shape {steps.shape}."
        )
    if not values:
        raise ValueError("Argument `values` must hold at least one tag. Received: {}.")
    with np.errstate(over="ignore"):  # beyond float32 is Inf, as TensorBoard has it
        columns = {
            tag: np.asarray(column).astype(np.float32) for tag, column in values.items()
        }
    for name, array in {"wall_times": wall_times, **columns}.items():
        if array.shape != steps.shape:
            raise ValueError(
                f"Argument `steps` has shape {steps.shape}, so {name!r} must have it "
                f"too. Received: shape {array.shape}."
            )
    if not np.isfinite(wall_times).all():
        raise ValueError(
            "Argument `wall_times` must be finite: TensorBoard cannot show a point "
            f"without its time. Received: {wall_times[~np.isfinite(wall_times)][0]}."
        )
    return steps.astype(np.int64), wall_times, columns


def version_record(now: float) -> bytes:
    """What every file begins with."""
    return event_record(event_pb2.Event(wall_time=now, file_version="brain.Event:2"))


VERSION_SIZE = len(version_record(1.0))  # the same at every time


def is_bare(data: bytes) -> bool:
    """Whether a file has no more than its version, which may be cut off."""
    return len(data) <= VERSION_SIZE and all(
        event.file_version for event in whole_events(data)
    )


def whole_events(data: bytes) -> Iterator[event_pb2.Event]:
    """The whole events of a file, up to the first that is cut or garbled.

    Checksums are left alone: TensorBoard's check is 15 µs a record.
    """
    for begin, end in _records(data):
        try:
            yield event_pb2.Event.FromString(data[begin:end])
        except DecodeError:
            return


def whole_events_from_the_end(data: bytes) -> Iterator[event_pb2.Event]:
    """The same, the last first, to read a few of many; garbled ones are passed over."""
    for begin, end in reversed([*_records(data)]):
        with contextlib.suppress(DecodeError):
            yield event_pb2.Event.FromString(data[begin:end])


def _records(data: bytes) -> Iterator[tuple[int, int]]:
    """Where whole records begin and end."""
    place = 0
    while place + _FRAME <= len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        begin, end = place + _FRAME, place + _FRAME + length
        if end + 4 > len(data):
            return
        yield begin, end
        place = end + 4
