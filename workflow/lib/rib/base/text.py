"""Untrusted text: what may be shown, escaping, and secrets in URLs."""

import re

USER = r"://[^\s/?#]*@"  # user name and password in a URL
# Control characters, line breaks, marks of text direction, and other characters that nobody sees,
# such as soft hyphens and tags; surrogates, which stand for bytes that are not UTF-8. Joiners are
# missing here, because emoji need them.
INVISIBLE = (
    r"\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\u034f\u115f"
    r"\u1160\u180e\u2800\u3164\ufff9-\ufffb\ud800-\udfff\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0001-\U000e007f"
)
# Markup, invisible characters, passwords. `R&D` is fine.
UNFIT = re.compile(rf"[<>{INVISIBLE}]|&#?\w{{2,}};|{USER}")
WHY = "it is blank, or contains markup, an invisible character or a password"
_INVISIBLE = re.compile(f"[{INVISIBLE}]")
FORMULA = re.compile(r"[=+\-@\t\r]")  # first character of a cell that a spreadsheet computes
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]inf", re.IGNORECASE)


def presentable(text: str) -> bool:
    """Whether a text may be shown, on the results page for example.

    It has a visible character, and no markup, invisible character or password. `WHY` says so in
    messages.
    """
    has_visible_character = any(character.isprintable() and character != " " for character in text)
    return has_visible_character and not UNFIT.search(text)


def printable(text: str) -> str:
    """A text as one line without terminal commands: control characters become `\\x1b`, `\\n`.

    Printable text stays as it is.
    """
    return _INVISIBLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    """Two visible characters, `\\n`, for a line break."""
    return match[0].encode("unicode_escape").decode()


def printable_cell(text: str) -> str:
    """A text for a table cell: printable, and no formula for spreadsheets.

    `=1+2` becomes `'=1+2`. Numbers stay, whatever their sign: `-5`.
    """
    cell = printable(text)
    begins_like_formula = FORMULA.match(cell) is not None
    is_number = NUMBER.fullmatch(cell) is not None
    if begins_like_formula and not is_number:
        return f"'{cell}"
    return cell


def markdown(text: str) -> str:
    """A text on one line, with Markdown's characters escaped: `a_b *c*` becomes `a\\_b \\*c\\*`."""
    line = " ".join(text.split())
    special_character = r"[\\`*_\[\]<>&#|~$]"
    return re.sub(special_character, r"\\\g<0>", line)


def redacted(text: str) -> str:
    """Remove user names, passwords and query strings from the URLs in a text.

    Query strings may be signatures. `get https://me:secret@host/file?key=1 now` becomes `get
    https://[redacted]@host/file?[redacted] now`.
    """
    without_users = re.sub(USER, "://[redacted]@", text)
    # Keep a URL up to its question mark: from :// on, without another :// or a blank.
    up_to_query = r"(://(?:(?!://)[^\s?])*\?)"
    return re.sub(rf"{up_to_query}\S+", r"\1[redacted]", without_users)
