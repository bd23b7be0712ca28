"""explain: what an error code means, from the docstring of its class; and what a rule of `lint` is about, from its table."""

from __future__ import annotations

import dataclasses
import inspect

import click

from replayflow import errors
from replayflow.cli import output
from replayflow.cli.options import json_option
from replayflow.errors import InvalidArgumentError
from replayflow.lint import RULES, Rule


@click.command()
@click.argument("code", required=False)
@json_option
def explain(code: str | None, as_json: bool) -> None:
    """Explain an error code; without one, list them all."""
    rule = None if code is None else RULES.get(code.upper())
    if rule is not None:
        _rule(rule, as_json)
    elif code is not None:
        _one(_found(code), as_json)
    elif as_json:
        output.document({"errors": [_document(error) for error in errors.every()]})
    else:
        rows = [(_code(error), error.__name__, _text(error).partition("\n")[0]) for error in errors.every()]
        output.table(output.console(), ("code", "error", "meaning"), rows, whole=2, cuts_last=False)


def _found(code: str) -> type[BaseException]:
    by_name = {error.__name__.casefold(): error for error in errors.every()}
    found = errors.find(code) or by_name.get(code.casefold())
    if found is None:
        raise InvalidArgumentError(f"no error has the code {code!r:.40}; `replayflow explain` lists all codes")
    return found


def _one(error: type[BaseException], as_json: bool) -> None:
    if as_json:
        output.document(_document(error))
        return
    click.echo(f"{click.style(_code(error), bold=True)} {error.__name__}\n\n{_text(error)}")


def _rule(rule: Rule, as_json: bool) -> None:
    if as_json:
        output.document(dataclasses.asdict(rule))
    else:
        click.echo(f"{click.style(rule.code, bold=True)} {rule.title}\n\n{rule.why}; {rule.instead}")


def _document(error: type[BaseException]) -> dict[str, str]:
    return {"code": _code(error), "type": error.__name__, "meaning": _text(error)}


def _code(error: type[BaseException]) -> str:
    return str(error.__dict__["code"])


def _text(error: type[BaseException]) -> str:
    return inspect.cleandoc(error.__doc__ or "")
