"""Rich text: harmless tags stay, nothing that a browser would run does, and no input takes long."""

import time
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from bellwire import Event, EventRefused, RichText
from bellwire.guard import sanitise
from bellwire.guard.sanitise import SCHEMES, TAGS, build_cleaner, rich_text
from bellwire.guard.schema import PayloadReader
from tests.guard.test_sanitise import Item


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("", ""),
        ("hello & you", "hello &amp; you"),
        ("<p>Hello <b>you</b></p>", "<p>Hello <b>you</b></p>"),
        ("<b>never closed", "<b>never closed</b>"),
        ("</div>a</b>", "a"),
        ("<script>steal()</script>hi", "hi"),
        ("<style>p{}</style>x", "x"),
        ("<img src=x onerror=alert(1)>x", "x"),
        ('<b class="c" id="i" style="s" onclick="x()">b</b>', "<b>b</b>"),
        (
            '<a href="https://x.org/?a=1&b=2" title="t" target="_blank" rel="opener">l</a>',
            '<a href="https://x.org/?a=1&amp;b=2" title="t" rel="noopener noreferrer">l</a>',
        ),
        ('<a href="javascript:alert(1)">l</a>', '<a rel="noopener noreferrer">l</a>'),
        ('<a href="java\tscript:alert(1)">l</a>', '<a rel="noopener noreferrer">l</a>'),
        ('<a href="data:text/html,x">l</a>', '<a rel="noopener noreferrer">l</a>'),
        ('<a href="/logout">l</a>', '<a rel="noopener noreferrer">l</a>'),
        ('<a href="//evil.org">l</a>', '<a rel="noopener noreferrer">l</a>'),
        ("<b>\xa0</b>&nbsp;", "<b>\xa0</b>\xa0"),
        ("a < b", "a &lt; b"),
    ],
)
def test_rich_text(text: str, clean: str) -> None:
    assert rich_text(text) == clean


class _Page(HTMLParser):
    """What a browser would find in it."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.others: list[str] = []
        self.feed(html)
        self.close()

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    @override
    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    @override
    def handle_decl(self, decl: str) -> None:
        self.others.append(decl)

    @override
    def handle_pi(self, data: str) -> None:
        self.others.append(data)

    @override
    def unknown_decl(self, data: str) -> None:
        self.others.append(data)

    @property
    def faults(self) -> Iterator[str]:
        """What has no place in rich text."""
        yield from self.others
        for tag, attributes in self.tags:
            if tag not in TAGS:
                yield tag
            for name, value in attributes.items():
                if tag != "a" or name not in ("href", "title", "rel"):
                    yield f"{tag} {name}"
                if name == "href" and urlsplit(value or "").scheme not in SCHEMES:
                    yield f"{tag} {name}={value}"
            if tag == "a" and attributes.get("rel") != "noopener noreferrer":
                yield "a link without rel"


def test_what_is_looked_for_would_be_found() -> None:
    page = _Page('<script><b onclick=x></script><a href="javascript:x">l</a><!--c--><svg onload=x><a href=x>')
    assert {"script", "svg", "svg onload", "c", "a href=javascript:x", "a link without rel"} <= set(page.faults)


PIECES = [
    *("<", ">", "</", "/>", "<!--", "-->", "<![CDATA[", "]]>", "<?", '"', "'", "`", "=", " ", "\n", "\t", "\0"),
    *("a", "b", "p", "script", "style", "svg", "math", "mtext", "mglyph", "table", "noscript", "template", "title"),
    *("textarea", "iframe", "object", "img", "input", "form", "select", "annotation-xml", "foreignObject", "xmp"),
    *("href=", "src=", "onerror=", "onload=", "style=", "xlink:href=", "srcdoc=", "rel=", "title=", "id="),
    *("javascript:", "JaVaScRiPt:", "data:text/html,", "vbscript:", "https://x.org", "mailto:a@b", "//x.org"),
    *("&", ";", "alert(1)", "&lt;", "&#60;", "&#x3c;", "&colon;", "&Tab;", "&nbsp;", "\xa0", "\ufeff", "🎉"),
]
HTML = st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text()


@given(HTML)
def test_nothing_in_it_can_run(text: str) -> None:
    clean = rich_text(text)
    assert list(_Page(clean).faults) == []
    assert rich_text(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">',
        '<svg></p><style><a id="</style><img src=1 onerror=alert(1)>">',
        '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
        "<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
        "<svg><annotation-xml><foreignobject><style><!--</style><p id='--><img src=x onerror=alert(1)>'>",
        '<a href="&#106;avascript&colon;alert(1)">x</a>',
        "<scr<script>ipt>alert(1)</script>",
        "<b/onmouseover=alert(1)>x",
        "<textarea></textarea><script>alert(1)</script>",
    ],
)
def test_what_has_fooled_others(text: str) -> None:
    assert list(_Page(rich_text(text)).faults) == []


@given(HTML, st.sampled_from(["<i>" * 501, "x" * 16_385, "".join(f"<b a{n}>" for n in range(80))]))
def test_what_is_too_long_for_the_parser_has_no_tags(text: str, more: str) -> None:
    assert "<" not in rich_text(text + more)


@pytest.mark.parametrize(
    "text",
    [
        "<p>" + "".join(f"<b a{n}>" for n in range(500)) + "<p>x" * 499,
        "<p>" + "<b><i><u><s><em><tt>" * 3 + "<p>x" * 475,
        "<p>" + "<B a><b/x><b\n>" * 20 + "<p>x" * 430,
        "<p>" + "".join(f"<nobr a{n}><svg><desc>" for n in range(150)) + "<p>x" * 40,
    ],
)
def test_tags_that_are_opened_over_and_over_are_not_given_to_the_parser(text: str) -> None:
    started = time.process_time()
    assert len(rich_text(text)) < 4 * len(text)
    assert time.process_time() - started < 0.2  # the first takes half a second with it, and makes 1.7 MB


@pytest.mark.parametrize("piece", ["<b>", "<p>", "<b><p>", "<blockquote>", "<ul><li>", "<a href=x>", "<b a>", "&"])
def test_short_of_the_limits_the_parser_is_quick(piece: str) -> None:
    text = piece * (sanitise.PARSER_MAX_CHARACTERS // len(piece))
    started = time.process_time()
    for tags in (500, 100, 60, 30):
        rich_text("<" + text[: tags * len(piece)])
    assert time.process_time() - started < 0.5


# --- in payloads


class Article(msgspec.Struct):
    title: str
    body: Annotated[RichText, msgspec.Meta(max_length=20)]
    notes: list[RichText] = []


def test_it_is_cleaned_wherever_it_stands_and_nothing_else_is() -> None:
    reader = PayloadReader(Event("write", Article, Item))
    payload = '["write",{"title":"<i>","body":"<b>x<script>","notes":["<i>y"]},{"raw":"<i>","text":"<i>z"}]'
    article, item = reader.read(payload)
    assert article == Article("<i>", "<b>x</b>", ["<i>y</i>"])
    assert item == Item("<i>", "z")


def test_its_length_is_checked_before() -> None:
    reader = PayloadReader(Event("write", Article))
    with pytest.raises(EventRefused, match="length <= 20"):
        reader.read('["write",{"title":"","body":"<script>123456789</script>"}]')
    (article,) = reader.read('["write",{"title":"","body":"<h1><h2><h3><h4>"}]')
    assert len(article.body) > 20


def test_alone() -> None:
    clean = build_cleaner(RichText)
    assert clean is not None
    assert clean("<b>x") == "<b>x</b>"
