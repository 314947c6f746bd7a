"""Safe text out of what people type: `plain_text`, `rich_text`, and cleaners for whole payloads that contain it."""

import html
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias, get_origin

import msgspec
import nh3
from msgspec import inspect

from bellwire.core.events import TextKind, text_kind, walk_types

__all__ = ["SCHEMES", "TAGS", "Cleaner", "build_cleaner", "plain_text", "rich_text"]

Cleaner: TypeAlias = Callable[[Any], Any]
"""Takes a validated value, returns it cleaned; Structs and containers may be the same object."""

PARSER_MAX_CHARACTERS: Final = 16_384
PARSER_MAX_TAGS: Final = 500
PARSER_MAX_REOPENED: Final = 4_000
"""What the HTML parser is given at most; its time grows with the square of tags, attributes and entities.

The third is for tags such as ``<b>``: one that is still open where a paragraph ends is opened again in the next, so
that of 6 kB the parser can make 2 MB. No more than three with the same name and attributes are ("the Noah's Ark
clause", HTML section 13.2.4.3).

Measured with nh3 0.3.8: at these limits up to 9 ms, but 1,000,000 bytes of ``<div>`` or ``&`` take
many seconds, and the event loop would stand still for as long.
"""

TAGS: Final = frozenset(
    (
        *("a", "b", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6"),
        *("hr", "i", "ins", "li", "ol", "p", "pre", "s", "strong", "sub", "sup", "u", "ul"),
    )
)
"""The tags of rich text: none from which a script could run, and none that loads anything."""

SCHEMES: Final = frozenset(("http", "https", "mailto"))
"""Where a link in rich text may lead. One without a scheme leads somewhere on the page's own site: it loses that."""

_clean_rich: Final = nh3.Cleaner(
    tags=set(TAGS),
    clean_content_tags={"script", "style"},
    attributes={"a": {"href", "title"}},
    url_schemes=set(SCHEMES),
    url_relative="deny",
    link_rel="noopener noreferrer",
).clean

_REOPENED = re.compile(r"<(b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u)(?=[\s/>])(>?)", re.IGNORECASE)
_TAG = re.compile(r"<[A-Za-z/!?][^<>]*>")
_LONG_NUMBER = re.compile(r"&#(?=[0-9]{8}|[xX][0-9a-fA-F]{8})")


def plain_text(text: str) -> str:
    """Return ``text`` without tags, and with ``<``, ``>`` and ``&`` as entities.

    ``text`` is read as HTML: a tag disappears, the content of ``<script>`` and ``<style>`` with it, and
    an entity that is there already stays one. The result contains no ``<``, and cleaning it again
    changes nothing. Time is linear in the length for any input.
    """
    if "<" not in text:
        return _escape(text) if "&" in text or ">" in text else text
    if not _is_soon_parsed(text):
        return _escape(_TAG.sub("", text))  # what a nested tag leaves behind is escaped
    return _spaced(nh3.clean(text, tags=set()))


def rich_text(text: str) -> str:
    """Return ``text``, read as HTML, with no tags but `TAGS` and no attributes but ``href`` and ``title`` of links.

    A tag that is not in the list disappears, the content of ``<script>`` and ``<style>`` with it, and so does the
    address of a link whose scheme is not in `SCHEMES`. Links are given ``rel="noopener noreferrer"``. Tags that were
    left open are closed, so that the result can stand inside other HTML; it can be longer than ``text``. If that is
    longer than the parser is given, or has more tags, they all disappear, as in `plain_text`.
    """
    if "<" not in text or not _is_soon_parsed(text):
        return plain_text(text)
    return _spaced(_clean_rich(text))


def _is_soon_parsed(text: str) -> bool:
    tags = text.count("<")
    if len(text) > PARSER_MAX_CHARACTERS or tags > PARSER_MAX_TAGS:
        return False
    bare: dict[str, int] = {}
    reopened = 0
    for name, end in _REOPENED.findall(text):
        if end:
            bare[name.lower()] = bare.get(name.lower(), 0) + 1
        else:  # it may have attributes, each time others
            reopened += 1
    return tags * (reopened + sum(min(3, count) for count in bare.values())) <= PARSER_MAX_REOPENED


def _spaced(html: str) -> str:
    # The parser's output spells a no-break space as an entity; it is an ordinary character here.
    return html.replace("&nbsp;", "\xa0")


_CLEANERS: Final[dict[TextKind, Callable[[str], str]]] = {"plain": plain_text, "rich": rich_text}


def _escape(text: str) -> str:
    if "&" in text:
        # A character number of eight digits and more names no character (Unicode ends at 0x10FFFF),
        # and int() refuses those of more than 4,300.
        text = html.unescape(_LONG_NUMBER.sub("&amp;#", text))
    return html.escape(text, quote=False)


def build_cleaner(type_: Any) -> Cleaner | None:
    """Return a function that cleans every `PlainText` and `RichText` in a value of ``type_``, None if there is none.

    It goes through Structs (frozen ones too), dataclasses, TypedDicts, NamedTuples, lists, tuples, sets,
    dicts (keys and values), optional values and unions, where the value's own type decides. The value
    must have been validated against ``type_``, and must belong to the caller alone: it is changed in
    place where it can be.
    """
    info = inspect.type_info(type_)
    kind = text_kind(info)
    if kind is not None:
        return _CLEANERS[kind]
    table = _Tables().of(info)
    if not table:
        return None
    return lambda value: _clean(table, value)


# A table has the cleaner of each run-time type that a value of the described type can have. Values of
# other types (None in an optional field) have nothing to clean.
_Table: TypeAlias = dict[type, Cleaner]

# The fields of a class that have something to clean.
_Fields: TypeAlias = list[tuple[str, _Table]]


def _clean(table: _Table, value: Any) -> Any:
    cleaner = table.get(type(value))
    return value if cleaner is None else cleaner(value)


class _Tables:
    """Builds the table of a type; one for every class, so that a type may contain itself."""

    def __init__(self) -> None:
        self._known: dict[int, _Table] = {}

    def of(self, info: inspect.Type) -> _Table:
        known = self._known.get(id(info))
        if known is not None:
            return known
        table = self._known[id(info)] = {}
        if any(map(text_kind, walk_types(info))):
            self._fill(table, info)
        return table

    def _fill(self, table: _Table, info: inspect.Type) -> None:
        match info:
            case inspect.Metadata(type=inner):
                kind = text_kind(info)
                table.update(self.of(inner) if kind is None else {str: _CLEANERS[kind]})
            case inspect.UnionType(types=types):
                for member in types:
                    table.update(self.of(member))
            case inspect.TypedDictType(fields=fields):
                self._fill_class(table, dict, _typed_dict, fields)
            case inspect.StructType(cls=cls, fields=fields):
                cls = get_origin(cls) or cls
                make = _hashed_struct if cls.__struct_config__.cache_hash else _struct
                self._fill_class(table, cls, make, fields)
            case inspect.DataclassType(cls=cls, fields=fields):
                self._fill_class(table, cls, _attributes, fields)
            case inspect.NamedTupleType(cls=cls, fields=fields):
                self._fill_class(table, cls, _named_tuple, fields)
            case _:
                self._fill_container(table, info)

    def _fill_class(
        self,
        table: _Table,
        cls: Any,
        make: Callable[[_Fields], Cleaner],
        fields: Iterable[inspect.Field],
    ) -> None:
        # The table is complete before the fields are looked at: one of them may be of this class again.
        dirty: _Fields = []
        table[get_origin(cls) or cls] = make(dirty)
        dirty.extend((field.name, inner) for field in fields if (inner := self.of(field.type)))

    def _fill_container(self, table: _Table, info: inspect.Type) -> None:
        match info:
            case inspect.DictType(key_type=key, value_type=value):
                table[dict] = _dict(self.of(key), self.of(value))
            case inspect.TupleType(item_types=types):
                table[tuple] = _tuple([self.of(item) for item in types])
            case inspect.ListType(item_type=item):
                table[list] = _items(list, self.of(item))
            case inspect.VarTupleType(item_type=item):
                table[tuple] = _items(tuple, self.of(item))
            case inspect.SetType(item_type=item):
                table[set] = _items(set, self.of(item))
            case inspect.FrozenSetType(item_type=item):
                table[frozenset] = _items(frozenset, self.of(item))
            case _:
                raise TypeError(
                    f"PlainText or RichText inside of {type(info).__name__} is not supported: use a Struct field"
                )


def _struct(fields: _Fields) -> Cleaner:
    def clean(value: Any) -> Any:
        for name, table in fields:
            msgspec.structs.force_setattr(value, name, _clean(table, getattr(value, name)))
        return value

    return clean


def _hashed_struct(fields: _Fields) -> Cleaner:
    # It remembers the hash of the old text (cache_hash=True): make a new one.
    return lambda value: msgspec.structs.replace(value, **_cleaned(fields, value))


def _attributes(fields: _Fields) -> Cleaner:
    def clean(value: Any) -> Any:
        for name, table in fields:
            object.__setattr__(value, name, _clean(table, getattr(value, name)))  # frozen ones too
        return value

    return clean


def _named_tuple(fields: _Fields) -> Cleaner:
    return lambda value: value._replace(**_cleaned(fields, value))


def _cleaned(fields: _Fields, value: Any) -> dict[str, Any]:
    return {name: _clean(table, getattr(value, name)) for name, table in fields}


def _typed_dict(fields: _Fields) -> Cleaner:
    def clean(value: dict[str, Any]) -> dict[str, Any]:
        for name, table in fields:
            if name in value:
                value[name] = _clean(table, value[name])
        return value

    return clean


def _dict(keys: _Table, values: _Table) -> Cleaner:
    return lambda value: {_clean(keys, key): _clean(values, item) for key, item in value.items()}


def _tuple(items: list[_Table]) -> Cleaner:
    return lambda value: tuple(_clean(table, item) for table, item in zip(items, value, strict=True))


def _items(make: Callable[[Iterable[Any]], Any], items: _Table) -> Cleaner:
    return lambda value: make(_clean(items, item) for item in value)
