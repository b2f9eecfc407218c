"""Parser of typed queries: what to find, and what to exclude.

    a dog -beach -"a busy street"          a minus sign or exclamation mark before a word
    a dog NOT a beach                      NOT in capital letters
    a dog without a beach, street or park  clear words: without, but not, except, minus, …

Text in double quotes is searched as written. So is wording that may or may not exclude something
("a no parking sign", "a dog - a beach"), with a note and, if both sides are clear, a suggestion.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sieve.model.words.text import COMPOUNDS, says_something

MAX_QUERY_CHARACTERS = 1000
MAX_EXCLUSIONS = 16

_ARTICLE = "an?|the|any|some"
_RELATION = (
    "on|in|at|near|by|with|beside|under|inside|next to|wearing|having|holding|containing|showing"
)
_NEGATED = "(?:is|are|was|were|does|do|did|has|have)(?: not|n't)"
# "no one" and "not only" exclude nothing; "no parking sign" names a thing.
_IDIOM = (
    r"(?! (?:only|just|yet|very|so|too|quite|even|one|longer|matter|sooner|man's land)\b"
    r"| (?:[\w-]+ ){0,3}(?:signs?|symbols?|notices?|stickers?|zones?|logos?|icons?)\b)"
)
_CLEAR_WORDS = (
    r"(?:(?:but|and|yet) )?(?:without|w/o)(?! (?:an? |any )?(?:doubt|question|fail|borders)\b)",
    r"(?:(?:but|and) )?(?:excluding|exclude|excepting|except)(?: for)?",
    r"devoid of|free of|lacking",
    r"minus(?! (?:signs?|symbols?|degrees|\d))",
    rf"(?:but|and) (?:not|no){_IDIOM}",
    "(?:(?:but|and) )?(?:with|(?:that |which |who )?(?:has|have|having|contains?|containing|shows?|"
    rf"showing)|(?:where )?there (?:is|are)) no{_IDIOM}",
    "(?:with )?neither(?=.* nor )",
    rf"(?:that|which|who) {_NEGATED}(?: (?:have|contain|show|include|wear))?",
    rf"{_NEGATED}(?= (?:{_ARTICLE}|{_RELATION})\b)",
    rf"(?-i:(?<!DO )NOT){_IDIOM}",
    rf"not(?= (?:{_ARTICLE}|{_RELATION}|\w+ing)\b)",
)
_UNCLEAR_WORDS = (
    "no|not|sans|never|avoid(?:ing)?|omit(?:ting)?|missing",
    "rather than|instead of|other than|apart from|aside from|anything but",
    _NEGATED,
)
_CLEAR = re.compile(
    r"(?P<minus>(?<!\S)[-!](?=[\"'(]|[^\W\d_]))"
    rf"|(?<![\w'-])(?:{'|'.join(_CLEAR_WORDS)})(?![\w'-]):?"
    rf"|(?P<aside>[,;.:(]) ?(?:not|no){_IDIOM}(?![\w'-])",
    re.IGNORECASE,
)
_UNCLEAR = re.compile(
    rf"(?<![\w'-])(?:{'|'.join(_UNCLEAR_WORDS)})(?![\w'-])"
    r"|(?<!\S)--?(?!\S)|(?<!\S)[-!](?=\d)"
    r"|(?<![\w'-])(?P<free>[^\W\d_]+)-free(?![\w'-])",
    re.IGNORECASE,
)
_QUOTED = re.compile(r'(?<![^\s(!,;-])"([^"]*)(?:"(?![^\s),.;:!?])|$)')
_OPERAND = re.compile(r"'[^']+'|\([^()]*\)|\S+")
_SEPARATOR = re.compile(
    r" ?[,;|] ?(?:(?:and/or|and|or|nor) )?| (?:and/or|and|or|nor|&) |(?<=[^\W\d_])/(?=[^\W\d_])",
    re.IGNORECASE,
)
_LEADING = re.compile(
    rf"^(?:(?:without|not|no|neither|any|{_RELATION}) |[-!])+(?=\S)", re.IGNORECASE
)
_TRAILING = re.compile(
    r"(?: on| please| (?:in|on) (?:it|them|the (?:image|photo|picture)s?))+$", re.IGNORECASE
)
_CONJUNCTION = re.compile(r" (?:and|or|nor|&) ", re.IGNORECASE)
_COLOUR = "(?:black|white|red|blue|green|yellow|orange|brown|pink|purple|gr[ae]y|gold|silver)"
_COMPOUND = re.compile(
    rf"\b(?:{_COLOUR} and {_COLOUR}|salt and pepper|fish and chips|bed and breakfast|"
    rf"(?:{'|'.join(COMPOUNDS)})s?)\b",
    re.IGNORECASE,
)
_HIDDEN = "\ue000"  # replaces characters that cannot be operators
_TRIMMED = " .!?,;:()'"
_QUOTES = "“”„‟«»″＂"
_PLAIN = str.maketrans(
    dict.fromkeys("−–—‐‑‒﹣－", "-") | dict.fromkeys(_QUOTES, '"') | dict.fromkeys("’‘ʼ", "'")
)
_UNQUOTED = str.maketrans(dict.fromkeys(_QUOTES + '"', " "))
_INVISIBLE = dict.fromkeys([0x200B, 0x2060, 0xFEFF, 0x200E, 0x200F, *range(0x202A, 0x202F)])


@dataclass(frozen=True)
class ParsedQuery:
    """A typed query: what to find and what to exclude.

    `str()` gives a query that parses to the same `text` and `without`.
    """

    text: str
    """Text to find; may be empty."""
    without: tuple[str, ...] = ()
    """Phrases to exclude; none contains a double quote."""
    notes: tuple[str, ...] = ()
    """Explanations of the parse, for the user."""
    suggestion: ParsedQuery | None = None
    """Another reading, if the wording is ambiguous."""

    @property
    def find_field(self) -> str:
        """The text for the *Find* field, quoted if it would be split otherwise."""
        if _split(self.text) == (self.text, ()):
            return self.text
        return f'"{self.text}"'

    @property
    def without_field(self) -> str:
        """The exclusions for the *without* field, separated by commas."""
        plain = ", ".join(self.without)
        quoted = ", ".join(f'"{phrase}"' for phrase in self.without)
        return plain if _phrases(plain) == self.without else quoted

    @property
    def suggested_fields(self) -> dict[str, str] | None:
        """The texts of the *Find* and *without* fields for the other reading, if there is one."""
        other = self.suggestion
        return other and {"query": other.find_field, "without": other.without_field}

    def check_text(self) -> None:
        """Raise a ValueError if there is nothing to find."""
        if says_something(self.text):
            return
        if self.without:
            raise ValueError(
                f"nothing to search for: the query is read as {describe('', self.without)}; "
                "enter something to find as well"
            )
        if self.text:
            raise ValueError(f"“{shortened(self.text)}” has no words to search for; enter some")
        raise ValueError("nothing to search for: give a text, an image or an item")

    def __str__(self) -> str:
        excluded = [f'-"{phrase}"' for phrase in self.without]
        plain = " ".join([self.text, *excluded] if self.text else excluded)
        if _split(plain) == (self.text, self.without):
            return plain
        return " ".join([f'"{self.text}"', *excluded])


def parse_query(text: str, without: str = "") -> ParsedQuery:
    """Parse a typed query.

    Parameters
    ----------
    text : str
        What to find; exclusions in it ("a dog -beach", "a dog without a beach") are split off.
    without : str
        What to exclude: a phrase, or several separated by commas, "or" or "and".

    Examples
    --------
    >>> parse_query("a dog but not on a beach").without
    ('a beach',)
    >>> parse_query("a dog", "beach, street or park").without
    ('beach', 'street', 'park')
    """
    notes: list[str] = []
    text, without = _tidy(text, notes), _tidy(without, notes)
    found, inline = _split(text)
    excluded = _distinct((*inline, *_phrases(without)))
    found = _unquoted(found).strip(" ,;:") if excluded else found
    if len(excluded) > MAX_EXCLUSIONS:
        notes.append(f"Only the first {MAX_EXCLUSIONS} exclusions were used.")
        excluded = excluded[:MAX_EXCLUSIONS]
    if without and not _phrases(without):
        notes.append(f"“{without[:40]}” names nothing to exclude.")
    if excluded and (inline or excluded != (without,)):
        notes.append(f"Read as {describe(found, excluded)}.")
    if _minus_goes_on(text):
        notes.append('A minus sign excludes one word; quote several: -"two words".')
    unclear, suggestion = _other_reading(text, excluded)
    if unclear:
        notes.append(f"“{unclear}” was searched as written, not read as an exclusion.")
    return ParsedQuery(found, excluded, tuple(notes), suggestion)


def describe(text: str, without: Iterable[str]) -> str:
    """Format a query for a sentence: “a dog” without “a beach” or “a street”."""
    parts = [f"“{text}”"] if text else []
    excluded = " or ".join(f"“{phrase}”" for phrase in without)
    return " ".join([*parts, *([f"without {excluded}"] if excluded else [])])


def shortened(text: str) -> str:
    """Shorten a text so that it fits into a sentence."""
    return text if len(text) <= 60 else f"{text[:59]}…"


def _split(text: str) -> tuple[str, tuple[str, ...]]:
    """Split a tidy text into what to find and the phrases to exclude."""
    mask = _mask(text)
    found: list[str] = []
    excluded: list[str] = []
    at = 0
    while match := _CLEAR.search(mask, at):
        found.append(text[at : match.start()])
        following = _CLEAR.search(mask, match.end())
        at = following.start() if following else len(text)
        if match["minus"]:
            at = min(at, _operand_end(mask, match.end()))
        elif match["aside"]:
            at = _aside_end(mask, match, at)
        excluded += _phrases(text[match.end() : at])
    if not excluded:
        whole = _QUOTED.fullmatch(text.translate(_PLAIN))
        return (" ".join(text[slice(*whole.span(1))].split()) if whole else text), ()
    found.append(text[at:])
    return _unquoted("".join(found)).strip(" ,;:"), _distinct(excluded)


def _operand_end(mask: str, start: int) -> int:
    """Return the end of what a minus sign excludes: a word, a compound, quotes or parentheses."""
    if re.compile(rf"(?:{_ARTICLE}) ", re.IGNORECASE).match(mask, start):
        return len(mask)
    operand = _COMPOUND.match(mask, start) or _OPERAND.match(mask, start)
    return operand.end() if operand else start


def _aside_end(mask: str, cue: re.Match[str], end: int) -> int:
    """Return the end of "(no beach)" and of "no hat" in "a woman, no hat, smiling"."""
    if cue["aside"] == "(":
        return min(end, mask.find(")", cue.end(), end) + 1 or end)
    if _CONJUNCTION.search(mask, cue.end(), end):
        return end
    return end if (comma := mask.find(",", cue.end(), end)) < 0 else comma


def _minus_goes_on(text: str) -> bool:
    """Return whether plain words follow a word with a minus sign: `-sandy beach`."""
    mask = _mask(text)
    for match in _CLEAR.finditer(mask):
        end = _operand_end(mask, match.end())
        if match["minus"] and mask[match.end()] not in "\"'(" and re.match(r" [\w']", mask[end:]):
            return _CLEAR.match(mask, end + 1) is None
    return False


def _other_reading(text: str, excluded: tuple[str, ...]) -> tuple[str, ParsedQuery | None]:
    """Return wording that may be an exclusion, and the query if it is one."""
    mask = _mask(text)
    if not _split(text)[1] and (dangling := _CLEAR.search(mask)):
        return text[dangling.start() : dangling.end()].strip(" ,;.:("), None
    match = _UNCLEAR.search(_CLEAR.sub(lambda clear: _HIDDEN * len(clear[0]), mask))
    if match is None:
        return "", None
    if match["free"]:
        other = f"{text[: match.start()]}{text[match.end() :]} -{match['free']}"
    else:
        before = re.sub(r" (?:with|has|have|and|but) $", "", text[: match.start()])
        other = f"{before} without {text[match.end() :]}"
    found, inline = _split(" ".join(other.split()))
    without = _distinct((*inline, *excluded))[:MAX_EXCLUSIONS]
    words = set(re.findall(r"\w+", found.lower())) - {"a", "an", "the", "any", "some"}
    suggestion = ParsedQuery(found, without) if words and inline else None
    return text[match.start() : match.end()].strip(), suggestion


def _phrases(text: str) -> tuple[str, ...]:
    """Split what is excluded into its phrases."""
    mask = _COMPOUND.sub(lambda match: _HIDDEN * len(match[0]), _mask(text))
    found: list[str] = []
    at = 0
    for separator in _SEPARATOR.finditer(mask):
        found.append(_phrase(text[at : separator.start()]))
        at = separator.end()
    return _distinct([*found, _phrase(text[at:])])


def _phrase(text: str) -> str:
    """Clean one phrase; one that is not in quotes also loses a leading preposition."""
    text = text.strip(_TRIMMED).lstrip("-!")
    quoted = _QUOTED.fullmatch(text.translate(_PLAIN))
    phrase = _unquoted(text)
    if not quoted:
        phrase = _TRAILING.sub("", _LEADING.sub("", phrase)).strip(_TRIMMED)
    return phrase if says_something(phrase) else ""


def _mask(text: str) -> str:
    """Replace operators by ASCII and hide quoted text; the length stays the same."""
    plain = text.translate(_PLAIN).replace(_HIDDEN, " ")
    return _QUOTED.sub(lambda match: match[0].replace(match[1], _HIDDEN * len(match[1]), 1), plain)


def _unquoted(text: str) -> str:
    return " ".join(text.translate(_UNQUOTED).split())


def _distinct(phrases: Iterable[str]) -> tuple[str, ...]:
    """Drop empty and repeated phrases."""
    return tuple({phrase.casefold(): phrase for phrase in reversed([*phrases]) if phrase}.values())[
        ::-1
    ]


def _tidy(text: str, notes: list[str]) -> str:
    text = " ".join(text.translate(_INVISIBLE).split())
    if len(text) > MAX_QUERY_CHARACTERS:
        notes.append(f"Only the first {MAX_QUERY_CHARACTERS:,} characters of the text were read.")
    return text[:MAX_QUERY_CHARACTERS].strip()
