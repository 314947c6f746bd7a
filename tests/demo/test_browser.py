"""The demo in a real browser, against a real server process."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.process import proxy_process
from tests.demo.chromium import BINARY, Browser, Process, Tab, launch
from tests.ports import free_port

pytestmark = [
    pytest.mark.chromium,
    pytest.mark.skipif(BINARY is None, reason="Chromium is not installed"),
]

WRITTEN = "<b>hi</b> & <script>alert(1)</script> 5 < 6"


def serve(port: int) -> Process:
    """The command that `make demo` runs."""
    env = {**os.environ, "PORT": str(port), "PYTHONUNBUFFERED": "1"}
    return Process([sys.executable, "-m", "bellwire", "demo"], rf"http://127\.0\.0\.1:{port}", env=env)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with launch(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    chromium.complaints.clear()
    yield chromium
    assert chromium.complaints == []


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = free_port()
    with serve(port) as process:
        process.said()
        yield f"http://127.0.0.1:{port}/"


def come_in(browser: Browser, url: str, name: str, *, width: int = 1280, height: int = 800) -> Tab:
    """A person of this name at the page, connected and in the room."""
    tab = browser.tab(url, browser.profile(), width=width, height=height)
    tab.until("document.querySelector('dialog[open]')")
    tab.write("#name", name)
    tab.enter()
    until_in(tab)
    return tab


def until_in(tab: Tab, timeout: float = 10) -> None:
    tab.until("document.querySelector('[data-state=connected] #desk:not([disabled])')", timeout)


def say(tab: Tab, text: str) -> None:
    tab.write("#draft", text)
    tab.enter()


def test_two_tabs_chat(browser: Browser, url: str, tmp_path: Path) -> None:
    ada, grace = come_in(browser, url, "Ada"), come_in(browser, url, "Grace", width=390, height=844)
    ada.until_text("#people", "Grace")
    ada.until_text("#state", "Connected · WebSocket")

    ada.write("#draft", "I am just")
    grace.until_text("#typing", "Ada\u2069 is writing")
    say(ada, WRITTEN)
    grace.until_text(".message:not(.own) .text", WRITTEN)
    assert grace.text("#typing") == ""
    ada.until("document.querySelector('.message.own.sent')")
    say(grace, "<3 you two")
    ada.until_text(".message:not(.own) .text", "<3 you two")
    assert ada.texts(".message .text") == grace.texts(".message .text") == [WRITTEN, "<3 you two"]
    assert ada.texts(".message.own .text") == [WRITTEN]
    assert ada.texts(".message:not(.own) .author") == ["Grace"]
    assert ada.texts("#messages :is(b, script)") == grace.texts("#messages :is(b, script)") == []

    for name, tab in (("desktop", ada), ("phone", grace)):
        picture = tmp_path / f"{name}.png"
        tab.screenshot(picture)
        assert picture.stat().st_size > 10_000

    late = come_in(browser, url, "Late")
    assert late.texts(".message .text") == [WRITTEN, "<3 you two"], "the room's history"
    late.close()
    grace.close()
    ada.until("document.querySelectorAll('#people li').length === 1")
    assert ada.texts("#people bdi") == ["Ada"]
    ada.close()


def test_the_tabs_of_one_browser_are_one_person(browser: Browser, url: str) -> None:
    grace = come_in(browser, f"{url}#tabs", "Grace")
    profile = browser.profile()
    first = browser.tab(f"{url}#tabs", profile)
    first.until("document.querySelector('dialog[open]')")
    first.write("#name", "Ada")
    first.enter()
    grace.until_text("#people", "Ada")
    second = browser.tab(f"{url}#tabs", profile)
    until_in(second)
    grace.until_text("#people", "2 tabs")
    assert grace.texts("#people bdi") == ["Grace", "Ada"]
    second.close()
    grace.until("!document.getElementById('people').textContent.includes('2 tabs')")
    assert grace.texts("#people bdi") == ["Grace", "Ada"]
    first.close()
    grace.until("document.querySelectorAll('#people li').length === 1")
    grace.close()


def test_two_people_of_one_name_can_be_told_apart(browser: Browser, url: str) -> None:
    one, other = come_in(browser, f"{url}#twins", "Sam"), come_in(browser, f"{url}#twins", "Sam")
    one.until("document.querySelectorAll('#people .tag').length === 2")
    tags = one.texts("#people .tag")
    assert len(set(tags)) == 2
    say(one, "me")
    other.until_text(".message .byline .tag", tags[0].strip())
    one.close()
    other.close()


def test_rooms_are_opened_and_forgotten(browser: Browser, url: str) -> None:
    ada, grace = come_in(browser, url, "Ada"), come_in(browser, url, "Grace")
    ada.write("#room-name", "R&D  Lab")
    ada.enter()
    ada.until_text("#room-title", "r&d lab")
    until_in(ada)
    assert ada.evaluate("decodeURIComponent(location.hash)") == "#r&d lab"
    grace.until_text("#rooms", "r&d lab")
    say(grace, "still in the lobby")
    ada.until_text("#rooms .badge", "1")
    assert ada.texts(".message") == []
    ada.click("#leave")
    ada.until_text("#room-title", "lobby")
    ada.until_text(".message .text", "still in the lobby")
    grace.until("!document.getElementById('rooms').textContent.includes('r&d lab')")
    ada.close()
    grace.close()


def test_a_refusal_shows_its_reason(browser: Browser, url: str) -> None:
    tab = browser.tab(url, browser.profile())
    tab.until("document.querySelector('dialog[open]')")
    tab.write("#name", "Ada\u202e")
    tab.enter()
    tab.until("document.body.dataset.state === 'refused'")
    assert "choose a name" in tab.text("#name-fault")
    assert "choose a name" in tab.text("#notice")
    assert tab.evaluate("getComputedStyle(document.querySelector('.empty')).visibility") == "hidden"
    tab.write("#name", "Ada")
    tab.enter()
    until_in(tab)

    say(tab, "\x85")  # which Python takes for a blank, and JavaScript does not
    tab.until_text(".message.failed .fault", "nothing in this message but blanks")
    assert "$" not in tab.texts(".message.failed .fault")[0]  # where in the payload it was: for those who look
    assert tab.evaluate("document.querySelector('.message.failed .fault').title") == "$.text"
    tab.close()


def test_the_page_tells_of_a_server_that_is_away_and_resumes_by_itself(browser: Browser) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    with serve(port) as process:
        process.said()
        ada, grace = come_in(browser, f"{url}#tea", "Ada"), come_in(browser, f"{url}#tea", "Grace")
        say(ada, "before")
        grace.until_text(".message .text", "before")
    ada.until("document.body.dataset.state === 'reconnecting'")
    assert "Reconnecting" in ada.text("#state")
    assert "away" in ada.text("#notice")
    assert ada.evaluate("document.getElementById('desk').disabled") is True
    with serve(port) as process:
        process.said()
        for tab in (ada, grace):
            until_in(tab, timeout=20)
        ada.until("document.querySelectorAll('#people li').length === 2")
        say(grace, "after")
        ada.until_text(".message .text", "after")
        assert ada.texts(".message .text") == ["before", "after"]
        assert ada.evaluate("document.getElementById('notice').hidden") is True
    ada.close()
    grace.close()


def test_a_page_that_was_away_gets_what_it_missed_and_says_so(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    with serve(port) as process, proxy_process(port) as proxy:
        process.said()
        ada = come_in(browser, f"http://127.0.0.1:{proxy.port}/#tea", "Ada")
        grace = come_in(browser, f"http://127.0.0.1:{port}/#tea", "Grace")
        say(grace, "before")
        ada.until_text(".message .text", "before")
        proxy.command("hold")
        proxy.command("reset")
        ada.until("document.body.dataset.state === 'reconnecting'")
        for count, text in enumerate(("one", "two"), 2):
            say(grace, text)
            grace.until(f"document.querySelectorAll('.message.own.sent').length === {count}")
        proxy.command("pass")
        proxy.command("reset")
        until_in(ada, timeout=20)
        ada.until_text(".divider", "You were away: 2 messages came meanwhile")
        assert ada.texts(".message .text") == ["before", "one", "two"]
        assert ada.evaluate("document.getElementById('notice').hidden") is True
        picture = tmp_path / "back.png"
        ada.screenshot(picture)
        assert picture.stat().st_size > 10_000
        say(ada, "back")
        grace.until_text(".message .text", "back")
        ada.close()
        grace.close()


def test_a_message_that_the_server_never_answered_is_told_and_can_be_sent_again(browser: Browser) -> None:
    port = free_port()
    with serve(port) as process:
        process.said()
        ada = come_in(browser, f"http://127.0.0.1:{port}/", "Ada")
        process.freeze()
        say(ada, "into the void")
        ada.until("document.querySelector('.message.own.pending')")
        process.kill()
        ada.until("document.querySelector('.message.own.lost')")
    with serve(port) as process:
        process.said()
        ada.until_text(".message.failed .fault", "Not sent", timeout=20)
        ada.click(".message.failed .fault button")
        ada.until("document.querySelector('.message.own.sent')")
        assert ada.texts(".message .text") == ["into the void"]
        assert ada.texts(".fault:not(:empty)") == []
        late = come_in(browser, f"http://127.0.0.1:{port}/", "Late")
        assert late.texts(".message .text") == ["into the void"]
    ada.close()
    late.close()
