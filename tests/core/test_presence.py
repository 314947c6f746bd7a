import msgspec

from bellwire import PRESENCE_DIFF, PRESENCE_STATE, PresenceDiff, PresenceState


def test_a_diff_leads_from_one_state_to_the_next() -> None:
    state = PresenceState("r", {"ada": [1], "bob": [None, None]})
    diff = PresenceDiff("r", joined={"carl": ["x"]}, changed={"bob": [None]}, left=["ada"])
    assert state.after(diff) == PresenceState("r", {"bob": [None], "carl": ["x"]})


def test_a_diff_of_nothing_is_false() -> None:
    assert not PresenceDiff("r")
    assert PresenceDiff("r", left=["ada"])
    assert PresenceDiff("r", changed={"ada": []})


def test_what_travels_is_plain_json() -> None:
    assert PRESENCE_STATE.payload_types == (PresenceState,)
    assert PRESENCE_DIFF.payload_types == (PresenceDiff,)
    text = msgspec.json.encode(PresenceDiff("r", joined={"ada": [{"mood": "calm"}]}))
    assert msgspec.json.decode(text) == {"room": "r", "joined": {"ada": [{"mood": "calm"}]}, "changed": {}, "left": []}
