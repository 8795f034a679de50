"""Event files, read back with TensorBoard's own readers and its own server."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
from event_files import accumulated
from hypothesis import given, settings, strategies as st
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.compat.tensorflow_stub import errors
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import (
    PyRecordReader_New,
    masked_crc32c,
)
from tensorboard.summary.writer.record_writer import RecordWriter
from written_events import NOW, TAGS, png, steps_of, write

from tfschedules.tensorboard import EventWriter, last_step, wire

pytestmark = pytest.mark.any_backend


def events(path: Path | str) -> list[event_pb2.Event]:
    """All events of a file, through the reader that verifies every checksum."""
    reader, found = PyRecordReader_New(str(path)), []
    while True:
        try:
            reader.GetNext()
        except errors.OutOfRangeError:
            return found
        found.append(event_pb2.Event.FromString(reader.curr_event))


# ------------------------------------------------------------------------- bytes


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_records_are_byte_for_byte_those_of_the_protos(data):
    steps = sorted(
        data.draw(
            st.sets(
                st.one_of(
                    st.integers(0, 300),
                    st.integers(0, 2**63 - 1),
                    st.sampled_from(
                        [2 ** (7 * k) + d for k in range(9) for d in (-1, 0)]
                    ),
                ),
                min_size=1,
                max_size=20,
            )
        )
    )
    tags = data.draw(
        st.lists(st.text(max_size=200), min_size=1, max_size=5, unique=True)
    )
    exactly = {"min_size": len(steps), "max_size": len(steps)}
    numbers = st.floats(width=32)
    times = data.draw(st.lists(st.floats(1e-300, 1e300), **exactly))
    values = {tag: data.draw(st.lists(numbers, **exactly)) for tag in tags}

    expected = io.BytesIO()
    for place, step in enumerate(steps):
        event = event_pb2.Event(wall_time=times[place], step=step)
        for tag in tags:
            event.summary.value.add(tag=tag, simple_value=values[tag][place])
        RecordWriter(expected).write(event.SerializeToString())

    made = wire.scalar_records(*wire.checked_series(steps, times, values))
    assert made == expected.getvalue()


@pytest.mark.parametrize("length", [4, 5, 8, 131, 1000])
@pytest.mark.parametrize("count", [1, 511, 512, 513])
def test_checksums_are_tensorboards(length, count):
    messages = np.random.default_rng(length).integers(0, 256, (count, length), np.uint8)
    some = [0, count // 2, count - 1]
    crcs = wire._masked_crcs(messages)
    assert [int(crcs[i]) for i in some] == [
        masked_crc32c(messages[i].tobytes()) for i in some
    ]


# ----------------------------------------------------------------------- scalars


def test_every_step_is_read_back_once_with_all_its_values(tmp_path):
    steps = np.arange(12_345)
    values = write(tmp_path, steps)
    read = accumulated(tmp_path)
    assert set(read.Tags()["scalars"]) == set(TAGS)
    for tag in TAGS:
        points = read.Scalars(tag)
        assert [point.step for point in points] == steps.tolist()
        np.testing.assert_array_equal(
            [point.value for point in points], values[tag].astype(np.float32)
        )
        assert [point.wall_time for point in points] == (NOW + steps * 0.5).tolist()


def test_one_event_a_step_after_the_version(tmp_path):
    with EventWriter(tmp_path) as writer:
        writer.scalars([7, 9], [NOW, NOW + 1], {"a": [1, 2], "b": [3, 4]})
    version, first, second = events(writer.path)
    assert version.file_version == "brain.Event:2"
    assert abs(version.wall_time - time.time()) < 60
    assert (first.step, second.step) == (7, 9)
    assert [(v.tag, v.simple_value) for v in second.summary.value] == [
        ("a", 2),
        ("b", 4),
    ]


def test_a_step_of_four_values_stays_below_200_bytes(tmp_path):
    tags = ["learning_rate", "momentum", "weight_decay", "loss"]
    with EventWriter(tmp_path) as writer:
        empty = Path(writer.path).stat().st_size
        steps = np.arange(10**9, 10**9 + 50)
        writer.scalars(steps, NOW + steps, {f"schedule/{t}": np.ones(50) for t in tags})
        assert (Path(writer.path).stat().st_size - empty) / 50 <= 200


def test_nan_and_infinities_are_kept_and_too_large_becomes_infinite(tmp_path):
    values = [np.nan, np.inf, -np.inf, 1e300, -0.0]
    with EventWriter(tmp_path) as writer:
        writer.scalars(np.arange(5), np.full(5, NOW), {"loss": values})
    read = [point.value for point in accumulated(tmp_path).Scalars("loss")]
    np.testing.assert_array_equal(read, [np.nan, np.inf, -np.inf, np.inf, -0.0])


def test_unicode_and_odd_tags_come_back(tmp_path):
    tags = ("schedule/学習率", 'a "quoted" <b>', "Äé/🙂")
    write(tmp_path, [0, 1], tags)
    assert set(accumulated(tmp_path).Tags()["scalars"]) == set(tags)


def test_blocks_of_any_size_and_changing_tags_go_on(tmp_path):
    with EventWriter(tmp_path) as writer:
        writer.scalars(range(3), [NOW] * 3, {"a": [1, 2, 3]})
        writer.scalars([], [], {"a": []})
        writer.scalars(np.arange(3, 4, dtype=np.uint8), [NOW], {"a": [4], "b": [0]})
        writer.scalars(np.int32([200]), [NOW], {"b": [1]})
    assert steps_of(tmp_path, "a") == [0, 1, 2, 3]
    assert steps_of(tmp_path, "b") == [3, 200]


# ------------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([5, 6], "Received: step 5 after step 5"),
        ([4], "Received: step 4 after step 5"),
        ([6, 8, 7], "Received: step 7 after step 8"),
        ([6, 6], "Received: step 6 after step 6"),
        ([-3, 6], "Received: step -3 after step 5"),
    ],
)
def test_steps_never_go_back(tmp_path, steps, message):
    with EventWriter(tmp_path) as writer:
        writer.scalars([0, 5], [NOW, NOW], {"a": [1, 2]})
        with pytest.raises(ValueError, match=message):
            writer.scalars(steps, [NOW] * len(steps), {"a": np.ones(len(steps))})
        writer.scalars([6], [NOW], {"a": [3]})
    assert steps_of(tmp_path, "a") == [0, 5, 6]


@pytest.mark.parametrize(
    ("steps", "times", "values", "error", "message"),
    [
        ([0.0, 1.0], [1, 2], {"a": [1, 2]}, TypeError, "must be .* integers.*float64"),
        ([True], [1], {"a": [1]}, TypeError, "integers.*bool"),
        ([[0]], [[1]], {"a": [[1]]}, TypeError, r"one-dimensional.*shape \(1, 1\)"),
        ([0, 1], [1], {"a": [1, 2]}, ValueError, r"'wall_times' must .*shape \(1,\)"),
        ([0, 1], [1, 2], {"a": [1]}, ValueError, r"'a' must .*shape \(1,\)"),
        ([0], [np.nan], {"a": [1]}, ValueError, "`wall_times` must be finite.*nan"),
        ([0], [1], {}, ValueError, "`values` must hold at least one tag"),
        ([-1], [1], {"a": [1]}, ValueError, "from 0 on. Received: step -1"),
    ],
)
def test_wrong_series_are_refused_and_write_nothing(
    tmp_path, steps, times, values, error, message
):
    with EventWriter(tmp_path) as writer:
        before = Path(writer.path).read_bytes()
        with pytest.raises(error, match=message):
            writer.scalars(steps, times, values)
        assert Path(writer.path).read_bytes() == before


def test_a_closed_writer_says_so_and_closes_again(tmp_path):
    writer = EventWriter(tmp_path)
    writer.close()
    writer.close()
    writer.flush()
    assert writer.closed
    with pytest.raises(ValueError, match=r"is closed\. Make a new one"):
        writer.scalars([0], [NOW], {"a": [1]})


# --------------------------------------------------------------- image and text


def test_image_and_text_carry_their_plugins(tmp_path):
    picture = png()
    with EventWriter(tmp_path) as writer:
        writer.image("range_test", picture, 3, 2, step=99)
        writer.text("report", "**fünf** `1e-3`", step=99)
    read = accumulated(tmp_path)
    assert set(read.Tags()["tensors"]) == {"range_test", "report"}
    assert set(read.PluginTagToContent("images")) == {"range_test"}
    assert set(read.PluginTagToContent("text")) == {"report"}
    (image,) = read.Tensors("range_test")
    assert image.step == 99
    assert list(image.tensor_proto.string_val) == [b"3", b"2", picture]
    (text,) = read.Tensors("report")
    assert list(text.tensor_proto.string_val) == ["**fünf** `1e-3`".encode()]
    kinds = [
        event.summary.value[0].metadata.data_class for event in events(writer.path)[1:]
    ]
    assert kinds == [
        summary_pb2.DATA_CLASS_BLOB_SEQUENCE,
        summary_pb2.DATA_CLASS_TENSOR,
    ]


def test_images_may_follow_at_the_last_step_but_not_go_back(tmp_path):
    with EventWriter(tmp_path) as writer:
        writer.scalars([0, 5], [NOW, NOW], {"a": [1, 2]})
        writer.image("curve", png(), 3, 2, step=5)
        writer.scalars([6], [NOW], {"a": [3]})
        with pytest.raises(ValueError, match="step 4 after step 5 of 'curve'"):
            writer.image("curve", png(), 3, 2, step=4)
    assert last_step(tmp_path) == 6


def test_wrong_images_are_refused(tmp_path):
    with EventWriter(tmp_path) as writer:
        with pytest.raises(TypeError, match=r"`png` must be bytes.*Received: str"):
            writer.image("curve", "picture.png", 3, 2, step=0)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="must be a PNG picture"):
            writer.image("curve", b"GIF89a", 3, 2, step=0)
        with pytest.raises(ValueError, match="`width` must be >= 1"):
            writer.image("curve", png(), 0, 2, step=0)
        with pytest.raises(ValueError, match="`step` must be >= 0"):
            writer.text("report", "text", step=-1)
