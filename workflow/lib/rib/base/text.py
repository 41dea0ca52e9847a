"""Text that others wrote: what may be shown and how, escaping in Markdown, the secrets of URLs."""

import re

USER = r"://[^\s/?#]*@"  # with password, of a URL
# Control characters, line breaks, those that turn the direction of text, and others that nobody
# sees, such as soft hyphens and tags; half characters, which stand for bytes that are not UTF-8.
# Emoji are made with joiners, which stay.
INVISIBLE = (
    r"\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\u034f\u115f"
    r"\u1160\u180e\u2800\u3164\ufff9-\ufffb\ud800-\udfff\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0001-\U000e007f"
)
# Markup, invisible characters, passwords. `R&D` is text.
UNFIT = re.compile(rf"[<>{INVISIBLE}]|&#?\w{{2,}};|{USER}")
WHY = "it is blank, or contains markup, an invisible character or a password"
_INVISIBLE = re.compile(f"[{INVISIBLE}]")
FORMULA = re.compile(r"[=+\-@\t\r]")  # how a cell begins that a spreadsheet computes
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]inf", re.IGNORECASE)


def presentable(text: str) -> bool:
    """Whether a text may be shown; if not, `WHY` says why."""
    has_visible_character = any(character.isprintable() and character != " " for character in text)
    return has_visible_character and not UNFIT.search(text)


def printable(text: str) -> str:
    """A text as one line that a terminal can't take for commands.

    Characters of commands are escaped: `\\x1b`, `\\n`. Others stay as they are. So does a text that
    is printable already.
    """
    return _INVISIBLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    """The characters of a match as escapes of Python, such as `\\n`."""
    return match[0].encode("unicode_escape").decode()


def printable_cell(text: str) -> str:
    """A text for a cell of a table, printable and no formula that a spreadsheet would compute.

    `=1+2` becomes `'=1+2`. Numbers are no formulas, whatever their sign: `-5` stays.
    """
    cell = printable(text)
    begins_like_formula = FORMULA.match(cell) is not None
    is_number = NUMBER.fullmatch(cell) is not None
    if begins_like_formula and not is_number:
        return f"'{cell}"
    return cell


def markdown(text: str) -> str:
    """Escape a text for one line of Markdown, in which it is shown as it is.

    `a_b *c*` becomes `a\\_b \\*c\\*`.
    """
    line = " ".join(text.split())
    special_character = r"[\\`*_\[\]<>&#|~$]"
    return re.sub(special_character, r"\\\g<0>", line)


def redacted(text: str) -> str:
    """Remove user names, passwords and query strings from the URLs in a text.

    Query strings may be signatures. `get https://me:secret@host/file?key=1 now` becomes
    `get https://[redacted]@host/file?[redacted] now`.
    """
    without_users = re.sub(USER, "://[redacted]@", text)
    # A URL up to its question mark is kept: from :// on, without another :// or a blank.
    up_to_query = r"(://(?:(?!://)[^\s?])*\?)"
    return re.sub(rf"{up_to_query}\S+", r"\1[redacted]", without_users)
