"""URLs of the same database for other roles."""

from urllib.parse import urlsplit

from conftest import at


def name_of(url: str) -> str:
    """The name of the database."""
    return url.split("?")[0].rpartition("/")[2]


def as_role(url: str, role: str, database: str) -> str:
    """`url` for another role: the password goes where the old one was."""
    parts = urlsplit(at(url, database))
    host = parts.netloc.rpartition("@")[2]
    query = "&".join(part for part in parts.query.split("&") if not part.startswith(("user=", "password=")))
    return parts._replace(netloc=f"{role}:secret@{host}", query=query).geturl()
