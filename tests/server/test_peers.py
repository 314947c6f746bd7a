from bellwire.server.peers import LEASE_SECONDS, Peers


def test_a_node_joins_when_it_is_first_heard_and_leaves_when_it_says_so() -> None:
    peers = Peers()
    assert peers.heard("a", 0.0)
    assert not peers.heard("a", 1.0)
    assert "a" in peers
    assert peers.left("a")
    assert not peers.left("a")
    assert peers.ids == frozenset()


def test_a_node_that_is_silent_for_its_lease_leaves() -> None:
    peers = Peers()
    peers.heard("a", 0.0)
    peers.heard("b", 1.0)
    assert peers.expired(LEASE_SECONDS) == []
    assert peers.expired(LEASE_SECONDS + 0.5) == ["a"]
    assert peers.ids == {"b"}
    assert peers.heard("a", 20.0)


def test_who_could_not_hear_gives_everybody_another_lease() -> None:
    peers = Peers()
    peers.heard("a", 0.0)
    peers.renew(100.0)
    assert peers.expired(100.0 + LEASE_SECONDS) == []
    assert peers.expired(100.1 + LEASE_SECONDS) == ["a"]
