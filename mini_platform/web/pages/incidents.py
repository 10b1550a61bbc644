"""Current incidents as the overview shows them; those of a dataset's files are on one line.

Not here: detection of incidents (`operations/detection.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from mini_platform.operations.incidents import Incident
from mini_platform.rows.wording import plural
from mini_platform.web.pages.rendering import link


@dataclass(frozen=True)
class Line:
    """An incident, or several of a dataset's files: a sentence, advice, a link, and how many more there are."""

    kind: str
    level: str
    dataset: str | None
    sentence: str
    advice: str
    link: str
    more: str = ""


def lines(incidents: Sequence[Incident], links_url: str) -> list[Line]:
    """Return what to show of incidents, in their order; of several files of a dataset the newest is named.

    Args:
        incidents: sorted by kind and dataset.
        links_url: prefix of the URLs of pages, which is removed: here they are relative.
    """
    result = []
    for (dataset, status), group in groupby(incidents, key=lambda incident: (incident.dataset, incident.alike)):
        alike = list(group)
        if status and len(alike) > 1:
            more = plural(len(alike) - 1, "file")
            files = link("/files", [("dataset", dataset), ("status", status)])
            result.append(_line(alike[-1], files, f"And {more} more."))
        else:
            result += [_line(one, one.link.removeprefix(links_url)) for one in alike]
    return result


def _line(incident: Incident, address: str, more: str = "") -> Line:
    level = "bad" if incident.level == "problem" else "warn"
    sentence = incident.detail or incident.message.removeprefix(f"{incident.dataset}: ")
    return Line(incident.kind, level, incident.dataset, sentence, incident.advice, address, more)
