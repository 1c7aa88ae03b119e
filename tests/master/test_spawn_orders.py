"""Orders wait for their turn, so that a mold's channel never overflows, however many workers are wanted."""

from prefork.channel import Channel
from prefork.master.plan import Worker
from prefork.master.spawn_orders import UNANSWERED, SpawnOrders
from prefork.master.worker_states import State


def test_orders_wait_for_answers_and_those_not_wanted_any_more_are_dropped() -> None:
    sent: list[int] = []
    orders = SpawnOrders(lambda worker, channel: sent.append(worker.id))
    workers = [Worker(number, number, 1, number, 0.0, 120.0) for number in range(UNANSWERED + 3)]
    ends = []
    for worker in workers:
        ours, theirs = Channel.pair()
        ends.append((ours, theirs))
        orders.add(worker, theirs)
        orders.give()
    assert sent == list(range(UNANSWERED))

    workers[5].state = State.BOOTING  # it said hello
    orders.give()
    assert sent[UNANSWERED:] == [UNANSWERED]

    workers[-2].state = State.DOOMED  # a stop came first
    orders.give()
    assert ends[-2][1].fileno() == -1
    workers[6].state = State.LOST
    orders.give()
    assert sent[UNANSWERED:] == [UNANSWERED, UNANSWERED + 2]
    for ours, _ in ends:
        ours.close()


def test_a_mold_s_channel_holds_the_orders_that_may_be_unanswered() -> None:
    ours, theirs = Channel.pair()
    carried, other = Channel.pair()
    for number in range(UNANSWERED):
        assert ours.send("spawn", [carried.fileno()], slot=number, cell=number)
    for channel in (ours, theirs, carried, other):
        channel.close()
