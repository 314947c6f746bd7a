from bellwire.delivery.place import Place, decode_places, encode_places, on_nodes, places_key, surplus

ONE, TWO, THREE = Place("a", "n1", 1.0), Place("b", "n2", 2.0), Place("c", "n1", 3.0)


def test_what_is_kept_is_read_again() -> None:
    assert decode_places(encode_places((ONE, TWO))) == (ONE, TWO)


def test_what_another_program_wrote_counts_for_nothing() -> None:
    assert decode_places(b"\xc1") == decode_places(b"\x01") == ()


def test_a_key_does_not_tell_whose_it_is() -> None:
    assert places_key("ada@example.org") != places_key("bob@example.org")
    assert "ada" not in places_key("ada@example.org")
    assert places_key("\udc80")


def test_places_are_found_by_nodes() -> None:
    assert on_nodes((ONE, TWO, THREE), {"n1"}) == [ONE, THREE]


def test_the_oldest_have_to_go_for_one_more() -> None:
    assert surplus((THREE, ONE, TWO), 4) == []
    assert surplus((THREE, ONE, TWO), 3) == [ONE]
    assert surplus((THREE, ONE, TWO), 1) == [ONE, TWO, THREE]
