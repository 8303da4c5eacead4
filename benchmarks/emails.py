"""E-mails as texts that do not name their class: subject and body, without headers and what mailing lists add."""

import email
import html
import re
from collections.abc import Iterator
from email.message import Message

_MARKUP = re.compile(r"(?is)<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]+>")
_TAG = re.compile(r"\[[^\]\n]{1,30}\]")
# A footer, quoted or not, would give the list's name away.
_FOOTER = re.compile(
    r"(?i)[>\s|]*(_{20,}|-{20,})\s*$|.*(mailing list|mailman|listinfo|list maintainer|unsubscri|sf\.net email|"
    r"irish linux users|@linux\.ie|@xent\.com|@example\.sourceforge|@freshrpms|@redhat\.com|thinkgeek|newbies list).*"
)
_LIST = re.compile(r"<([^<>]+)>")


def parse(data: bytes) -> Message:
    """An e-mail as it was delivered, with or without the mailbox's first line."""
    return email.message_from_bytes(data)


def list_of(message: Message) -> str | None:
    """The mailing list that sent it, by its List-Id; None without one."""
    found = _LIST.search(str(message.get("List-Id", "")))
    return found[1].strip().lower() if found else None


def text_of(message: Message) -> str:
    """Subject and body as people read them. Tags in brackets and lists' footers are taken out."""
    subject = _TAG.sub("", str(message.get("Subject", "")))
    body = "\n".join(_bodies(message))
    lines = [line.rstrip() for line in body.splitlines() if not _FOOTER.fullmatch(line)]
    return re.sub(r"\n{3,}", "\n\n", f"{' '.join(subject.split())}\n\n" + "\n".join(lines)).strip()


def _bodies(message: Message) -> Iterator[str]:
    """Its parts in plain text or, where there are none, its HTML without markup."""
    parts = [part for part in message.walk() if part.get_content_maintype() == "text"]
    plain = [part for part in parts if part.get_content_subtype() != "html"]
    for part in plain or parts:
        data = part.get_payload(decode=True)
        text = _decoded(data, part.get_content_charset()) if isinstance(data, bytes) else ""
        yield html.unescape(_MARKUP.sub(" ", text)) if part.get_content_subtype() == "html" else text


def _decoded(data: bytes, charset: str | None) -> str:
    for name in (charset, "utf-8"):
        try:
            return data.decode(name or "utf-8")
        except (LookupError, UnicodeDecodeError):
            continue
    return data.decode("latin-1")
