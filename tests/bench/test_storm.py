import pytest
from bench.storm import HALF_OPEN, NEVER, Comeback, broadcast, come_back


def back(clients: int, connect_us: float, *, busy: float = 0.0, broker_us: float = 0.0, seed: int = 1) -> Comeback:
    return come_back(clients, connect_us=connect_us, refuse_us=100, broker_us=broker_us, busy=busy, seed=seed)


def test_one_who_comes_back_waits_for_his_own_delay_and_his_connection() -> None:
    found = back(1, 1_000)
    assert 0.5 <= found.seconds - 0.001 <= 1.5
    assert (found.attempts, found.refused, found.half) == (1, 0, found.seconds)


def test_as_many_as_the_node_can_take_meanwhile_are_not_held_up() -> None:
    few = back(1_000, 300)
    assert few.refused == 0
    assert few.seconds < 1.6


def test_more_take_as_long_as_their_connections_do_and_those_who_are_refused() -> None:
    found = back(20_000, 1_000)
    assert found.refused > 0
    assert 0.5 + 20.0 + found.refused * 0.0001 <= found.seconds < 40
    assert found.attempts == pytest.approx(1 + found.refused / 20_000)
    assert 0.3 < found.half / found.seconds < 0.9


def test_a_node_that_is_busy_beside_takes_longer() -> None:
    assert back(5_000, 1_000, busy=0.5).seconds > 1.5 * back(5_000, 1_000).seconds


def test_a_broker_that_has_more_to_do_is_what_all_wait_for() -> None:
    assert back(2_000, 100, broker_us=5_000).seconds == pytest.approx(10.5, rel=0.1)


def test_who_would_wait_too_long_comes_again() -> None:
    found = back(HALF_OPEN, 100, broker_us=50_000)
    assert found.refused > 0
    assert found.seconds > HALF_OPEN * 0.05


def test_a_node_that_has_to_refuse_more_than_it_can_is_told() -> None:
    found = come_back(20_000, connect_us=2_000, refuse_us=2_000)
    assert found.seconds == NEVER


def test_nobody_who_comes_back_takes_no_time() -> None:
    assert back(0, 300).seconds == 0


def test_a_message_to_everyone_takes_what_its_deliveries_take() -> None:
    found = broadcast(10_000, 1, delivery_us=10, told_us=0, busy=0.0)
    assert [found.seconds, found.fastest] == pytest.approx([0.1, 0.1])


def test_nodes_deliver_at_the_same_time_and_are_told_one_after_the_other() -> None:
    found = broadcast(100_000, 10, delivery_us=10, told_us=1_000, busy=0.0)
    assert found.seconds == pytest.approx(0.11, rel=0.05)
    assert found.fastest == pytest.approx(0.101, rel=0.05)


def test_other_work_comes_between_its_batches() -> None:
    alone, beside = (broadcast(100_000, 4, delivery_us=10, told_us=0, busy=share) for share in (0.0, 0.5))
    assert beside.seconds == pytest.approx(2 * alone.seconds, rel=0.2)


def test_a_node_that_has_more_to_do_than_it_can_is_never_done() -> None:
    assert back(10, 300, busy=1.0).seconds == broadcast(10, 2, delivery_us=10, told_us=0, busy=1.5).seconds == NEVER


def test_the_same_seed_gives_the_same() -> None:
    assert back(3_000, 500, seed=7) == back(3_000, 500, seed=7) != back(3_000, 500, seed=8)
