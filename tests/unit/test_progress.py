"""The time that is left, as the progress bar tells it."""

import time

import pytest

from digitq.progress import Pace


def test_slow_images_at_the_end_are_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of 28x28 come first, then 600 large photos, which two workers read in 12 s."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace, left = Pace(), 60_000 + 600
    for rows in [5000] * 12 + [32] * 18 + [24]:
        now += 0.1 if rows == 5000 else 0.64
        left -= rows
        seconds = pace.end_of(left, rows) - now
        if rows == 32 and left < 500:
            assert seconds == pytest.approx(0.02 * left, rel=0.5)
    assert left == seconds == 0
