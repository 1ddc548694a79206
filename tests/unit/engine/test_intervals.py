"""Interval arithmetic against trying it: change an input, see which outputs change."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from occluscope.engine.incremental.fields import WHOLE_FROM, Field
from occluscope.engine.incremental.intervals import Spans

small = st.integers(1, 4)


@given(st.integers(1, 25), st.integers(0, 24), st.integers(1, 12), small, small, st.integers(0, 4), small)
def test_a_kernel_touches_no_output_outside_its_span(
    length: int, start: int, extent: int, kernel: int, stride: int, padding: int, dilation: int
) -> None:
    start = min(start, length - 1)
    stop = min(start + extent, length)
    outputs = (length + 2 * padding - (kernel - 1) * dilation - 1) // stride + 1
    if outputs < 1:
        return
    spans = Spans(np.array([start]), np.array([stop])).through_kernel(kernel, stride, padding, dilation, outputs)
    touched = [
        output
        for output in range(outputs)
        if any(start <= output * stride - padding + step * dilation < stop for step in range(kernel))
    ]
    if touched:
        assert spans.start[0] <= touched[0]
        assert touched[-1] < spans.stop[0]
    if dilation == 1 and touched:
        assert (spans.start[0], spans.stop[0]) == (touched[0], touched[-1] + 1)
    assert 0 <= spans.start[0] <= outputs
    assert 0 <= spans.stop[0] <= outputs


@given(
    st.integers(2, 20),
    st.integers(0, 19),
    st.integers(1, 10),
    st.integers(0, 5),
    st.sampled_from(["reflect", "edge", "wrap"]),
)
def test_padding_that_copies_spreads_a_change(length: int, start: int, extent: int, width: int, mode: str) -> None:
    width = min(width, length - 1)
    start = min(start, length - 1)
    stop = min(start + extent, length)
    source = np.pad(np.arange(length), width, mode=mode)  # type: ignore[call-overload]
    spans = Spans(np.array([start]), np.array([stop])).through_source(source)
    changed = np.flatnonzero((source >= start) & (source < stop))
    assert (spans.start[0], spans.stop[0]) == (changed[0], changed[-1] + 1)


def test_union_leaves_out_what_is_empty() -> None:
    first = Spans(np.array([3, 5, 2]), np.array([6, 5, 4]))
    second = Spans(np.array([8, 1, 9]), np.array([9, 4, 9]))
    union = first.union(second)
    assert (union.start.tolist(), union.stop.tolist()) == ([3, 1, 2], [9, 4, 4])


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), min_size=1, max_size=6))
def test_rectangles_of_one_size_hold_every_span(spans: list[tuple[int, int]]) -> None:
    start = np.array([first for first, _ in spans])
    stop = np.minimum(start + [extent for _, extent in spans], 31)
    place = Spans(start, stop).uniform(31)
    assert (place.offsets >= 0).all()
    assert (place.offsets + place.size <= 31).all()
    inside = (place.offsets <= start) & (stop <= place.offsets + place.size)
    assert (inside | (stop <= start)).all()


def test_a_large_rectangle_becomes_the_whole_map() -> None:
    def field(extent: int) -> Field:
        spans = Spans(np.array([0]), np.array([extent]))
        return Field.of(spans, spans, (10, 10))

    assert not field(8).is_whole
    assert field(9).is_whole
    assert 0.64 < WHOLE_FROM < 0.81
