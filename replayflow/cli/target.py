"""MODULE:NAME: from what a user wrote to the app, or the orchestrator, in it.

1. The working directory is importable. A file is imported under its own stem with its folder on the path, so that the processes of a pool
   find it, too, and so that its `__main__` guard holds.
2. What the user's module prints while it is imported goes to stderr.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from replayflow.cli.failures import ImportFailedError
from replayflow.core.definitions import OrchestratorDefinition
from replayflow.errors import InvalidArgumentError, ReplayflowError
from replayflow.registry import App, app_of

_PACKAGE = str(Path(__file__).parent.parent)


def load_app(target: str) -> App:
    """The app that the target names, or the only one of its module.

    Raises:
        InvalidArgumentError: there is none; the message says what there is.
    """
    module, name = _imported(target)
    if name is None:
        app: App = _only(apps_in(module), "App", "Apps", target)
        return app
    found = _attribute(module, name)
    if isinstance(found, App):
        return found
    what = _description(module, name, found)
    raise InvalidArgumentError(f"{target} is {what}, and an App is wanted here; {_offer(apps_in(module), target)}")


def load_orchestrator(target: str) -> tuple[App, OrchestratorDefinition]:
    """The orchestrator that the target names, or the only one of its module, and the app to run it with.

    Raises:
        InvalidArgumentError: there is none; the message says what there is.
    """
    module, name = _imported(target)
    if name is None:
        definition = _only(_orchestrators_in(module), "orchestrator", "orchestrators", target)
        return _app_for(module, definition), definition
    found = _attribute(module, name)
    definition = _definition(module, name, found)
    if definition is None:
        what = _description(module, name, found)
        raise InvalidArgumentError(
            f"{target} is {what}, and an orchestrator is wanted here; {_offer(_orchestrators_in(module), target)}"
        )
    return _app_for(module, definition), definition


def split(target: str) -> tuple[str, str | None]:
    """Module and name. A colon that belongs to a path (`C:\\flows.py`) parts nothing."""
    module, colon, name = target.rpartition(":")
    if not colon or "/" in name or "\\" in name or name.endswith(".py"):
        return target, None
    if not module or not name:
        raise InvalidArgumentError(
            f"'{target}' is half a target; write MODULE:NAME, such as flows:app or flows/orders.py:app"
        )
    return module, name


def apps_in(module: ModuleType) -> dict[str, App]:
    """The apps of the module by the first name that each has there."""
    found: dict[int, tuple[str, App]] = {}
    for name, value in vars(module).items():
        if isinstance(value, App):
            found.setdefault(id(value), (name, value))
    return dict(found.values())


# ---- importing -------------------------------------------------------------------------------------------------


def _imported(target: str) -> tuple[ModuleType, str | None]:
    text, name = split(target)
    path = Path(text)
    is_file = text.endswith(".py") or (path.is_file() and not text.isidentifier())
    if is_file and not path.is_file():
        raise InvalidArgumentError(f"there is no file {text} (in {Path.cwd()})")
    folder = path.absolute().parent if is_file else Path.cwd()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    module = _import(path.stem if is_file else text)
    if is_file and not _is_from(module, path):
        raise InvalidArgumentError(
            f"{text} cannot be imported as '{path.stem}': that is the name of {getattr(module, '__file__', 'a built-in module')}; "
            "rename the file, or name it as part of its package: package.module:NAME"
        )
    return module, name


def _import(name: str) -> ModuleType:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except ReplayflowError as error:
        error.add_note(f"at {_place(error)}, while '{name}' was imported")
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise InvalidArgumentError(
                f"there is no module '{error.name}', neither in {Path.cwd()} nor among what is installed; "
                "a file is named by its path: flows/orders.py:app"
            ) from None
        text = f"the module '{name}' cannot be imported: {type(error).__name__}: {error}"
        raise ImportFailedError(text, _trace(error)) from None


def _is_from(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve() == path.resolve()


def _trace(error: BaseException) -> str:
    """The traceback with the user's frames alone, and those of the causes."""
    whole = traceback.TracebackException.from_exception(error)
    each: traceback.TracebackException | None = whole
    while each is not None:
        each.stack = traceback.StackSummary.from_list([frame for frame in each.stack if _is_users(frame.filename)])
        each = each.__cause__ or each.__context__
    return "".join(whole.format())


def _place(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "its import"


def _is_users(file: str) -> bool:
    return not file.startswith((_PACKAGE, "<frozen importlib")) and "importlib" not in Path(file).parts


# ---- choosing --------------------------------------------------------------------------------------------------


def _attribute(module: ModuleType, name: str) -> Any:
    """The attribute, or the orchestrator that is registered under the name."""
    try:
        return reduce(getattr, name.split("."), module)
    except AttributeError:
        for app in apps_in(module).values():
            if name in app.orchestrators:
                return app.orchestrators[name].fn
    present = [*apps_in(module), *_orchestrators_in(module)]
    raise InvalidArgumentError(
        f"the module '{module.__name__}' has no '{name}'; it has {', '.join(present) or 'no App and no orchestrator'}"
    )


def _definition(module: ModuleType, name: str, found: Any) -> OrchestratorDefinition | None:
    matching = [d for app in _apps_with(module, found) for d in app.orchestrators.every() if d.fn is found]
    return next((d for d in matching if d.name == name), matching[0] if matching else None)


def _app_for(module: ModuleType, definition: OrchestratorDefinition) -> App:
    """The largest app that has the orchestrator: one that includes another can run what both call."""
    apps = [app for app in _apps_with(module, definition.fn) if definition.name in app.orchestrators]
    return max(apps, key=lambda app: len(app.orchestrators) + len(app.activities) + len(app.entities))


def _apps_with(module: ModuleType, fn: Any) -> list[App]:
    first = app_of(fn)
    return [*apps_in(module).values(), *([] if first is None else [first])]


def _orchestrators_in(module: ModuleType) -> dict[str, OrchestratorDefinition]:
    """The orchestrators of the module's apps; where it defines some itself, those alone."""
    apps = list(apps_in(module).values())
    apps += [app for value in list(vars(module).values()) if callable(value) and (app := app_of(value)) is not None]
    every = {d.name: d for app in apps for d in app.orchestrators.values()}
    own = {name: d for name, d in every.items() if d.fn.__module__ == module.__name__}
    return own or every


def _only(found: dict[str, Any], what: str, whats: str, target: str) -> Any:
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise InvalidArgumentError(f"{target} has no {what}; name a module that has one, as MODULE:NAME")
    raise InvalidArgumentError(f"{target} has several {whats}; say which one: {_targets(found, target)}")


def _offer(found: Iterable[str], target: str) -> str:
    names = _targets(found, split(target)[0])
    return f"there is {names}" if names else "the module has none"


def _targets(names: Iterable[str], module: str) -> str:
    return ", ".join(f"{module}:{name}" for name in names)


def _description(module: ModuleType, name: str, found: Any) -> str:
    if isinstance(found, App):
        return "an App"
    if inspect.iscoroutinefunction(found) and not _is_activity(module, found):
        return "`async def` (an orchestrator is a plain generator function: write `def`, and `yield` where you would await)"
    if _is_activity(module, found):
        return "an activity"
    if _definition(module, name, found) is not None:
        return "an orchestrator"
    if inspect.isgeneratorfunction(found):
        return "a generator function that is registered with no app (decorate it with @app.orchestrator)"
    return f"a {type(found).__name__}"


def _is_activity(module: ModuleType, found: Callable[..., Any]) -> bool:
    return any(d.fn is found for app in _apps_with(module, found) for d in app.activities.values())
