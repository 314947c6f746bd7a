"""Errors in the form that was asked for."""

import json

import click
import pytest

from bellwire.cli.told import told


def test_an_error_is_clicks_to_tell() -> None:
    with pytest.raises(click.ClickException, match="no luck"), told(as_json=False):
        raise click.ClickException("no luck")


def test_or_it_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(click.exceptions.Exit) as ended, told(as_json=True):
        raise click.BadParameter("it is none", param_hint="--url")
    assert ended.value.exit_code == 2
    said, errors = capsys.readouterr()
    assert (json.loads(said), errors) == ({"ok": False, "errors": ["Invalid value for --url: it is none"]}, "")
