"""Text that others wrote: what may be shown, escaping in Markdown, and the secrets of URLs."""

import re

USER = r"://[^\s/?#]*@"  # with password, of a URL
# Markup, control and other invisible characters, passwords. `R&D` is text, and emoji are made with joiners.
UNFIT = re.compile(
    r"[<>\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\u034f\u115f\u1160\u180e\u2800\u3164\ufff9-\ufffb\ud800-\udfff]|&#?\w{2,};|"
    + USER
)
WHY = "it is blank, or contains markup, an invisible character or a password"


def presentable(text: str) -> bool:
    """Whether a text may be shown; if not, `WHY` says why."""
    return any(map(str.isprintable, text.replace(" ", ""))) and not UNFIT.search(text)


def markdown(text: str) -> str:
    """Escape a text for one line of Markdown, in which it is shown as it is."""
    return re.sub(r"[\\`*_\[\]<>&#|~$]", r"\\\g<0>", " ".join(text.split()))


def redacted(text: str) -> str:
    """Remove user names, passwords and query strings, which may be signatures, from the URLs in a text."""
    return re.sub(r"(://(?:(?!://)[^\s?])*\?)\S+", r"\1[redacted]", re.sub(USER, "://[redacted]@", text))
