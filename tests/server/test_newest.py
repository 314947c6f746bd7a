from bellwire.server.newest import Newest


def test_the_newest_are_kept_as_many_as_there_may_be() -> None:
    newest: Newest[int, str] = Newest(3, 1_000)
    for n in range(5):
        newest.put(n, str(n), 1)
    assert [newest.get(n) for n in range(5)] == [None, None, "2", "3", "4"]
    assert (len(newest), newest.size) == (3, 3)


def test_the_newest_are_kept_as_far_as_their_bytes_go() -> None:
    newest: Newest[str, str] = Newest(100, 10)
    for key, size in (("a", 4), ("b", 4), ("c", 2)):
        newest.put(key, key, size)
    assert (len(newest), newest.size) == (3, 10)
    newest.put("d", "d", 5)
    assert [newest.get(key) for key in "abcd"] == [None, None, "c", "d"]
    assert newest.size == 7


def test_the_newest_is_kept_however_large_it_is() -> None:
    newest: Newest[str, str] = Newest(100, 10)
    newest.put("a", "a", 1)
    newest.put("b", "b", 50)
    assert (newest.get("a"), newest.get("b"), newest.size) == (None, "b", 50)
    newest.put("c", "c", 1)
    assert (newest.get("b"), newest.get("c"), newest.size) == (None, "c", 1)


def test_what_is_put_again_is_replaced_and_counts_once() -> None:
    newest: Newest[str, str] = Newest(2, 10)
    for value in ("first", "second", "third"):
        newest.put("a", value, 4)
    assert (newest.get("a"), len(newest), newest.size) == ("third", 1, 4)
    newest.put("b", "b", 4)
    newest.put("a", "fourth", 4)
    newest.put("c", "c", 2)
    assert (newest.get("a"), newest.get("b"), newest.get("c")) == (None, "b", "c")
