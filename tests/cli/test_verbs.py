"""The verbs of ``segtrail``, apart from what they do."""

import sys
from types import SimpleNamespace

import pytest

from segtrail import cli


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_an_interrupt_at_any_time_ends_a_verb_quietly(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "importlib", SimpleNamespace(import_module=interrupted))
    monkeypatch.setattr(sys, "argv", ["segtrail", verb])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 130
