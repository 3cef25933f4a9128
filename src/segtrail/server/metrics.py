"""Counters in the text format that Prometheus reads."""

from __future__ import annotations

import threading
from collections import defaultdict

_HELP = {
    "segtrail_requests_total": "Answered requests by operation and status.",
    "segtrail_request_seconds_total": "Time spent on requests by operation.",
    "segtrail_operations_total": "Operations applied.",
    "segtrail_operation_errors_total": "Operations that could not be applied.",
    "segtrail_ingested_total": "Operations taken from offline logs.",
}


class Metrics:
    """Named counters with labels."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
        self._lock = threading.Lock()

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        """Adds to a counter."""
        with self._lock:
            self._values[name, tuple(sorted(labels.items()))] += by

    def render(self) -> str:
        """Returns all counters in the exposition format."""
        with self._lock:
            values = sorted(self._values.items())
        lines: list[str] = []
        seen = set()
        for (name, labels), value in values:
            if name not in seen:
                seen.add(name)
                lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} counter"]
            inner = ",".join(f'{key}="{text}"' for key, text in labels)
            lines.append(f"{name}{{{inner}}} {value:.10g}" if inner else f"{name} {value:.10g}")
        return "\n".join(lines) + "\n"
