"""The channel between reader and recogniser: order, waiting, dropping, ends and errors."""

from __future__ import annotations

import threading

import pytest

from streamer.channel import Channel, ChannelClosed, Drops, Policy

PATIENCE_S = 10.0  # a test that hangs fails after so long; nothing is measured with it


def run(target, *args) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, daemon=True)
    thread.start()
    return thread


def finish(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "a thread hangs in the channel"


def wait_until_waiting(channel: Channel) -> None:
    """Return once some thread waits inside the channel."""
    condition = channel._changed
    for _ in range(10_000_000):
        with condition:
            if condition._waiters:  # type: ignore[attr-defined]
                return
    raise AssertionError("no thread came to wait")


def test_items_come_out_in_order_and_the_end_is_seen():
    channel: Channel[int] = Channel(5, Policy.WAIT)
    for item in range(5):
        assert channel.put(item)
    channel.close()
    assert list(channel) == [0, 1, 2, 3, 4]
    with pytest.raises(ChannelClosed):
        channel.get()


@pytest.mark.parametrize("capacity", [1, 2, 7])
def test_waiting_channel_loses_nothing_between_threads(capacity):
    channel: Channel[int] = Channel(capacity, Policy.WAIT)
    longest = 0

    def produce():
        for item in range(5000):
            assert channel.put(item)
        channel.close()

    thread = run(produce)
    received = []
    for item in channel:
        received.append(item)
        longest = max(longest, len(channel))
    finish(thread)
    assert received == list(range(5000))
    assert longest <= capacity
    assert channel.drops.snapshot() == {}


def test_many_producers_and_consumers_lose_no_wake_up():
    channel: Channel[int] = Channel(1, Policy.WAIT)
    received: list[int] = []
    producers = [run(lambda k=k: [channel.put(k * 1000 + i) for i in range(500)]) for k in range(3)]
    consumers = [run(lambda: received.extend(channel)) for _ in range(3)]
    finish(*producers)
    channel.close()
    finish(*consumers)
    assert sorted(received) == sorted(k * 1000 + i for k in range(3) for i in range(500))


def test_full_live_channel_drops_the_oldest_and_counts():
    drops = Drops()
    channel: Channel[int] = Channel(4, Policy.DROP_OLDEST, drops=drops)
    for item in range(10):
        assert channel.put(item)
    channel.close()
    assert list(channel) == [6, 7, 8, 9]
    assert drops.snapshot() == {"buffer full": 6}


def test_what_must_not_be_dropped_is_kept_in_its_place():
    channel: Channel[object] = Channel(3, Policy.DROP_OLDEST, droppable=lambda item: isinstance(item, int))
    for item in [0, 1, "back", 2, 3, 4]:
        channel.put(item)
    channel.close()
    assert list(channel) == ["back", 3, 4]
    assert channel.drops.snapshot() == {"buffer full": 3}


def test_live_channel_full_of_what_must_stay_drops_the_new_item_without_waiting():
    channel: Channel[object] = Channel(2, Policy.DROP_OLDEST, droppable=lambda item: isinstance(item, int))
    for item in ["a", "b", 1, 2]:
        assert channel.put(item)
    channel.close()
    assert list(channel) == ["a", "b"]
    assert channel.drops.snapshot() == {"buffer full": 2}


def test_what_must_stay_waits_for_room_among_its_like():
    channel: Channel[object] = Channel(1, Policy.DROP_OLDEST, droppable=lambda item: isinstance(item, int))
    channel.put("a")
    thread = run(channel.put, "b")
    wait_until_waiting(channel)
    assert channel.get() == "a"
    finish(thread)
    assert channel.get() == "b"


def test_error_of_the_producer_is_raised_after_what_it_had_put():
    channel: Channel[int] = Channel(4, Policy.WAIT)
    channel.put(1)
    channel.close(ValueError("disk on fire"))
    items = iter(channel)
    assert next(items) == 1
    with pytest.raises(ValueError, match="disk on fire"):
        next(items)


def test_first_close_counts():
    channel: Channel[int] = Channel(4, Policy.WAIT)
    channel.close()
    channel.close(ValueError("too late"))
    assert list(channel) == []


def test_close_wakes_a_waiting_consumer():
    channel: Channel[int] = Channel(1, Policy.WAIT)
    received: list[list[int]] = []
    thread = run(lambda: received.append(list(channel)))
    wait_until_waiting(channel)
    channel.close()
    finish(thread)
    assert received == [[]]


def test_cancel_frees_a_waiting_producer():
    channel: Channel[int] = Channel(1, Policy.WAIT)
    channel.put(0)
    results: list[bool] = []
    thread = run(lambda: results.append(channel.put(1)))
    wait_until_waiting(channel)
    channel.cancel()
    finish(thread)
    assert results == [False]
    assert channel.put(2) is False


def test_cancel_forgets_what_is_queued_and_a_pending_error():
    channel: Channel[int] = Channel(4, Policy.WAIT)
    channel.put(1)
    channel.close(ValueError("nobody is there to see it"))
    channel.cancel()
    assert list(channel) == []


def test_get_gives_up_after_its_timeout():
    channel: Channel[int] = Channel(1, Policy.WAIT)
    with pytest.raises(TimeoutError):
        channel.get(timeout=0.001)
    channel.put(3)
    assert channel.get(timeout=0.001) == 3


def test_channel_needs_room():
    with pytest.raises(ValueError, match="at least one"):
        Channel(0, Policy.WAIT)
