"""Parser of typed queries: terms to find, and terms to exclude.

    a dog -beach -"a busy street"          a minus sign or exclamation mark before a word
    a dog NOT a beach                      NOT in capital letters
    a dog without a beach, street or park  clear words: without, but not, except, minus, …
    2:a dog + a ball - 0.5:grass           a sum of terms, with weights
    a dog + image:ball.jpg - concept:17    images, items and concepts as terms

A text is a sum if it has a plus sign between spaces, a weight or a reference. Only there, a minus
sign may stand between spaces and excludes all words up to the next sign.

Text in double quotes is searched as written. So is wording that may or may not exclude something
("a no parking sign", "a dog - a beach"), with a note and, if both sides are clear, a suggestion.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sieve.model.words.text import COMPOUNDS, says_something

MAX_QUERY_CHARACTERS = 1000
MAX_TERMS = 16
"""Maximum number of terms to find, and of terms to exclude."""
MIN_WEIGHT, MAX_WEIGHT = 0.01, 100.0
TermKind = Literal["text", "item", "image", "concept"]

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
_CLEAR_WORD = rf"(?<![\w'-])(?:{'|'.join(_CLEAR_WORDS)})(?![\w'-]):?"
_CLEAR = re.compile(
    rf"(?P<minus>(?<!\S)[-!](?=[\"'(]|[^\W\d_]))|{_CLEAR_WORD}"
    rf"|(?P<aside>[,;.:(]) ?(?:not|no){_IDIOM}(?![\w'-])",
    re.IGNORECASE,
)
_WEIGHT = re.compile(r"(\d+(?:\.\d+)?)[:×*](?=[^\W\d_]|\")|(\d+\.\d+) (?=[^\W\d_]|\")")
_NAMED = re.compile(r"(item|image|concept):(?:\"([^\"]+)\"|([^\s\",;:]+))", re.IGNORECASE)
_START = r"(?:\d+(?:\.\d+)?[:×*](?=[^\W\d_]|\")|(?:item|image|concept):(?=[^\s,;:]))"
"""Start of a term with a weight, or of a reference."""
_SUM = re.compile(rf"(?<=\S) \+ (?=\S)|(?<![^\s(,;!-]){_START}", re.IGNORECASE)
_OPERATOR = re.compile(rf"(?P<plus>(?<!\S)\+ )|(?<!\S)[-!] ?(?=\S)|{_CLEAR_WORD}", re.IGNORECASE)
_NEXT_TERM = re.compile(rf"(?: ?[,;] ?| )(?:and )?(?={_START})", re.IGNORECASE)
_IMAGE_FILE = re.compile(r"\S+\.(?:jpe?g|png|webp|gif|bmp|tiff?|avif|heic)", re.IGNORECASE)
_UNCLEAR = re.compile(
    rf"(?<![\w'-])(?:{'|'.join(_UNCLEAR_WORDS)})(?![\w'-])"
    r"|(?<!\S)--?(?!\S)|(?<!\S)[-!](?=\d)"
    r"|(?<![\w'-])(?P<free>[^\W\d_]+)-free(?![\w'-])",
    re.IGNORECASE,
)
_QUOTED = re.compile(r'(?<![^\s(!,;:×*-])"([^"]*)(?:"(?![^\s),.;:!?])|$)')
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
class Term:
    """One term of a query; whether it is found or excluded is not part of it."""

    value: str
    """Text; or id of an item, name of an image, or number or name of a concept."""
    kind: TermKind = "text"
    weight: float = 1.0
    """From `MIN_WEIGHT` to `MAX_WEIGHT`, with two decimal places."""

    @property
    def is_plain(self) -> bool:
        """Whether it is a text of weight 1."""
        return self.kind == "text" and self.weight == 1

    def print(self, quoted: bool = False) -> str:
        """Return the term as it is typed, with its words in quotes if `quoted`."""
        weight = "" if self.weight == 1 else f"{self.weight:g}:"
        kind = "" if self.kind == "text" else f"{self.kind}:"
        if kind:
            simple = r"[0-9a-f]{16}|\d+" if quoted else r"\w[\w.-]*(?<=\w)"
            quoted = not re.fullmatch(simple, self.value, re.ASCII)
        return f'{weight}{kind}"{self.value}"' if quoted else f"{weight}{kind}{self.value}"

    def __str__(self) -> str:
        kind = "" if self.kind == "text" else f"{self.kind} "
        weight = "" if self.weight == 1 else f"{self.weight:g} × "
        return f"{weight}{kind}“{shortened(self.value)}”"


@dataclass(frozen=True)
class ParsedQuery:
    """A typed query: what to find and what to exclude.

    `str()` gives a query that parses to the same terms.
    """

    find: tuple[Term, ...] = ()
    exclude: tuple[Term, ...] = ()
    notes: tuple[str, ...] = ()
    """Explanations of the parse, for the user."""
    suggestion: ParsedQuery | None = None
    """Another reading, if the wording is ambiguous."""

    @property
    def text(self) -> str:
        """Text to find, as printed if it is not a single text; may be empty."""
        is_one = len(self.find) == 1 and self.find[0].is_plain
        return self.find[0].value if is_one else self.find_field

    @property
    def without(self) -> tuple[str, ...]:
        """Values of the terms to exclude."""
        return tuple(term.value for term in self.exclude)

    @property
    def find_field(self) -> str:
        """The text for the *Find* field, quoted if it would be split otherwise."""
        return print_terms(self.find)

    @property
    def without_field(self) -> str:
        """The text for the *without* field, separated by commas."""
        plain = ", ".join(term.print() for term in self.exclude)
        quoted = ", ".join(term.print(quoted=True) for term in self.exclude)
        return plain if _phrases(plain) == self.exclude else quoted

    @property
    def suggested_fields(self) -> dict[str, str] | None:
        """The texts of the *Find* and *without* fields for the other reading, if there is one."""
        other = self.suggestion
        return other and {"query": other.find_field, "without": other.without_field}

    def check_text(self) -> None:
        """Raise a ValueError if there is nothing to find."""
        if any(term.kind != "text" or says_something(term.value) for term in self.find):
            return
        if self.exclude:
            raise ValueError(
                "nothing to search for: the query only excludes "
                f"{' and '.join(map(str, self.exclude))}; enter something to find as well"
            )
        if self.find:
            raise ValueError(f"{self.find[0]} has no words to search for; enter some")
        raise ValueError("nothing to search for: give a text, an image or an item")

    def __str__(self) -> str:
        excluded = [f"-{term.print(quoted=True)}" for term in self.exclude]
        plain = " ".join([self.text, *excluded] if self.find else excluded)
        if _split(plain) == (self.find, self.exclude):
            return plain
        return " ".join([print_terms(self.find, quoted=True), *excluded])


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
    >>> parse_query("a dog + 0.5:item:00c0ffee00c0ffee").find[1]
    Term(value='00c0ffee00c0ffee', kind='item', weight=0.5)
    """
    notes: list[str] = []
    text, without = _tidy(text, notes), _tidy(without, notes)
    find, inline = _split(text)
    phrases = _phrases(without)
    exclude = _distinct((*inline, *phrases))
    if len(find) == 1 and find[0].is_plain and exclude:
        find = _plain_term(_unquoted(find[0].value).strip(" ,;:"))
    for terms, what in ((find, "terms"), (exclude, "exclusions")):
        if len(terms) > MAX_TERMS:
            notes.append(f"Only the first {MAX_TERMS} {what} were used.")
    find, exclude = find[:MAX_TERMS], exclude[:MAX_TERMS]
    if without and not phrases:
        notes.append(f"“{without[:40]}” names nothing to exclude.")
    parsed = ParsedQuery(find, exclude)
    is_listed = all(term.is_plain for term in exclude) and parsed.without != (without,)
    if exclude and (inline or is_listed):
        notes.append(f"Read as {describe(find, exclude)}.")
    if _SUM.search(_mask(text)):
        return ParsedQuery(find, exclude, tuple(notes))
    if _minus_goes_on(text):
        notes.append('A minus sign excludes one word; quote several: -"two words".')
    unclear, suggestion = _other_reading(text, exclude)
    if unclear:
        notes.append(f"“{unclear}” was searched as written, not read as an exclusion.")
    return ParsedQuery(find, exclude, tuple(notes), suggestion)


def print_terms(terms: tuple[Term, ...], quoted: bool = False) -> str:
    """Return terms to find as a text that parses to them, in quotes if needed or `quoted`."""
    plain = " + ".join(term.print() for term in terms)
    if not quoted and _split(plain) == (terms, ()):
        return plain
    return " + ".join(term.print(quoted=True) for term in terms)


def describe(find: Iterable[Term], exclude: Iterable[Term]) -> str:
    """Format a query for a sentence: “a dog” without “a beach” or “a street”."""
    found = " + ".join(map(str, find))
    excluded = " or ".join(map(str, exclude))
    return " ".join([*filter(None, [found]), *([f"without {excluded}"] if excluded else [])])


def shortened(text: str) -> str:
    """Shorten a text so that it fits into a sentence."""
    return text if len(text) <= 60 else f"{text[:59]}…"


def _split(text: str) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
    """Split a tidy text into the terms to find and those to exclude."""
    mask = _mask(text)
    if _SUM.search(mask):
        return _split_sum(text, mask)
    found: list[str] = []
    excluded: list[Term] = []
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
        return _plain_term(" ".join(text[slice(*whole.span(1))].split()) if whole else text), ()
    found.append(text[at:])
    return _plain_term(_unquoted("".join(found)).strip(" ,;:")), _distinct(excluded)


def _split_sum(text: str, mask: str) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
    """Split a sum; each sign or clear word applies up to the next."""
    found: list[Term] = []
    excluded: list[Term] = []
    at, excludes = 0, False
    for operator in [*_OPERATOR.finditer(mask), None]:
        end = operator.start() if operator else len(text)
        if excludes:
            excluded += _phrases(text[at:end])
        else:
            cuts = [part.span() for part in _NEXT_TERM.finditer(mask, at, end)]
            starts = [at, *(stop for _, stop in cuts)]
            for start, stop in zip(starts, [*(cut for cut, _ in cuts), end], strict=True):
                found += _term(text[start:stop].strip(" ,;:"))
        if operator:
            at, excludes = operator.end(), operator["plus"] is None
    return _distinct(found), _distinct(excluded)


def _plain_term(text: str) -> tuple[Term, ...]:
    return (Term(text),) if text else ()


def _term(text: str, clean: bool = False) -> tuple[Term, ...]:
    """Parse one term; none if it is empty.

    A text to `clean`, which is excluded, must say something, and loses a leading preposition unless
    it is in quotes.
    """
    plain = text.translate(_PLAIN)
    weight, start = 1.0, 0
    if given := _WEIGHT.match(plain):
        weight, start = round(float(given[1] or given[2]), 2), given.end()
        weight = min(max(weight, MIN_WEIGHT), MAX_WEIGHT)
    if named := _NAMED.fullmatch(plain, start):
        kind: TermKind = named[1].lower()  # pyright: ignore[reportAssignmentType]
        value = " ".join(text[slice(*named.span(2 if named[2] else 3))].split())
        return (Term(value, kind, weight),) if value else ()
    phrase = _unquoted(text[start:])
    if clean and not _QUOTED.fullmatch(plain, start):
        phrase = _TRAILING.sub("", _LEADING.sub("", phrase)).strip(_TRIMMED)
    if not phrase or (clean and not says_something(phrase)):
        return ()
    is_file = _IMAGE_FILE.fullmatch(plain, start)
    return (Term(phrase, "image" if is_file else "text", weight),)


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


def _other_reading(text: str, excluded: tuple[Term, ...]) -> tuple[str, ParsedQuery | None]:
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
    find, inline = _split(" ".join(other.split()))
    exclude = _distinct((*inline, *excluded))[:MAX_TERMS]
    found = " ".join(term.value for term in find)
    words = set(re.findall(r"\w+", found.lower())) - {"a", "an", "the", "any", "some"}
    suggestion = ParsedQuery(find, exclude) if words and inline else None
    return text[match.start() : match.end()].strip(), suggestion


def _phrases(text: str) -> tuple[Term, ...]:
    """Split what is excluded into its terms."""
    mask = _COMPOUND.sub(lambda match: _HIDDEN * len(match[0]), _mask(text))
    found: list[Term] = []
    at = 0
    for start, end in [*(one.span() for one in _SEPARATOR.finditer(mask)), (len(text), 0)]:
        found += _term(text[at:start].strip(_TRIMMED).lstrip("-!"), clean=True)
        at = end
    return _distinct(found)


def _mask(text: str) -> str:
    """Replace operators by ASCII and hide quoted text; the length stays the same."""
    plain = text.translate(_PLAIN).replace(_HIDDEN, " ")
    return _QUOTED.sub(lambda match: match[0].replace(match[1], _HIDDEN * len(match[1]), 1), plain)


def _unquoted(text: str) -> str:
    return " ".join(text.translate(_UNQUOTED).split())


def _distinct(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Drop repeated terms."""
    first: dict[tuple[str, str], Term] = {}
    for term in terms:
        first.setdefault((term.kind, term.value.casefold()), term)
    return tuple(first.values())


def _tidy(text: str, notes: list[str]) -> str:
    text = " ".join(text.translate(_INVISIBLE).split())
    if len(text) > MAX_QUERY_CHARACTERS:
        notes.append(f"Only the first {MAX_QUERY_CHARACTERS:,} characters of the text were read.")
    return text[:MAX_QUERY_CHARACTERS].strip()
