"""What the core has to know of user code: names, functions, and how their values are rebuilt.

The registry makes `Definition`s from decorated functions; an `Environment` is what all contexts of one engine share.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from replayflow.codec import Codec
from replayflow.core.entity.definition import EntityDefinition
from replayflow.core.ids import plain
from replayflow.core.limiter import Quota, Rate
from replayflow.core.versions import VersioningOptions, of_version, version_key
from replayflow.errors import FailureDetails, UnknownNameError, VersionMismatchError
from replayflow.retry import RetryPolicy, RetryValues, stored_duration

Executor = Literal["async", "thread", "process", "transaction"]
"""Where an activity runs; "transaction" is said with `transactional=True`."""


@dataclass(frozen=True, slots=True)
class ActivityDefinition:
    """An activity as it was registered: its function, and the defaults of its calls."""

    name: str
    fn: Callable[..., Any]
    executor: Executor
    takes_context: bool
    takes_input: bool
    input_type: Any
    result_type: Any
    retry: RetryPolicy | None = None
    timeout: timedelta | None = None
    heartbeat_timeout: timedelta | None = None
    concurrency: int | None = None
    rate: Rate | None = None
    key: Callable[[Any], Hashable] | None = None
    stands_for: Callable[..., Any] | None = None
    """In a test: the function that orchestrators call it by, where another runs in its place."""
    """By what part of the input `concurrency` and `rate` are counted."""
    quota: Quota | None = None

    @property
    def is_limited(self) -> bool:
        """Whether its runs may have to wait for each other."""
        return self.concurrency is not None or self.rate is not None or self.quota is not None


@dataclass(frozen=True, slots=True)
class OrchestratorDefinition:
    """An orchestrator as it was registered."""

    name: str
    fn: Callable[..., Any]
    takes_input: bool
    input_type: Any
    result_type: Any
    version: str | None = None
    # What messages call its values: put together once, and handed over with every one.
    input_title: str = field(init=False, repr=False, compare=False)
    result_title: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_title", f"input of orchestrator '{self.name}'")
        object.__setattr__(self, "result_title", f"result of orchestrator '{self.name}'")


class Orchestrators(dict[str, OrchestratorDefinition]):
    """Orchestrators by name; of a name with several versions this is the newest, and `versions` has all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[str, dict[str | None, OrchestratorDefinition]] = {}

    def add(self, definition: OrchestratorDefinition) -> None:
        """The definition has its place, beside those of other versions of its name."""
        versions = self.versions.setdefault(definition.name, {})
        versions[definition.version] = definition
        newest = max(versions.values(), key=lambda each: (version_key(each.version), each.version or ""))
        self[definition.name] = newest

    def __delitem__(self, name: str) -> None:
        """No version of the name is left."""
        super().__delitem__(name)
        del self.versions[name]

    def every(self) -> Iterable[OrchestratorDefinition]:
        """All definitions, newer versions of a name before older ones."""
        for name, newest in self.items():
            yield newest
            others = [each for each in self.versions[name].values() if each is not newest]
            yield from sorted(others, key=lambda each: (version_key(each.version), each.version or ""), reverse=True)

    def of_function(self, fn: Callable[..., Any]) -> OrchestratorDefinition | None:
        """The newest definition that is made of the function."""
        # By equality: a bound method is another object each time that it is looked up.
        newest = next((definition for definition in self.values() if definition.fn == fn), None)
        return newest or next((definition for definition in self.every() if definition.fn == fn), None)

    def serving(self, name: str, version: str | None) -> OrchestratorDefinition | None:
        """The code of instances of that name and version: of their own version, else without one; for those without one, else the oldest."""
        definition = self.get(name)
        if definition is None or definition.version == version:
            return definition
        versions = self.versions[name]
        found = versions.get(version) or versions.get(None)
        if found is None and not version:
            found = min(versions.values(), key=lambda each: (version_key(each.version), each.version or ""))
        return found

    def default_version(self, name: str, preferred: str | None, fn: Callable[..., Any] | None = None) -> str | None:
        """The version of an instance of the name that is started without one.

        That of the function, where it is started by function; by name `preferred`, where there is code for it, else the newest.
        """
        definition = self.get(name) if fn is None else self.of_function(fn)
        if definition is None or (fn is not None and definition.version is not None):
            return None if definition is None else definition.version
        serving = None if preferred is None else self.serving(name, preferred)
        if serving is not None and (fn is None or serving.fn == fn):
            return preferred
        return definition.version


@dataclass(slots=True)
class CallPlan:
    """All that a call of one activity or orchestrator needs, worked out once."""

    name: str
    input_title: str
    """What messages call the input."""
    decode: Callable[..., Any]
    retry: RetryValues | None = None
    predicate: Callable[[FailureDetails], bool] | None = None
    timeout_microseconds: int | None = None
    version: str | None = None


@dataclass(slots=True)
class Environment:
    """The codec and the definitions that every context of one engine uses."""

    codec: Codec
    activities: Mapping[str, ActivityDefinition]
    orchestrators: Orchestrators
    plans: dict[object, CallPlan] = field(default_factory=dict)
    """How to call what was called before, by function or name."""
    entities: Mapping[str, EntityDefinition] = field(default_factory=dict)
    versioning: VersioningOptions | None = None

    def serving(self, name: str, version: str | None) -> OrchestratorDefinition | VersionMismatchError | None:
        """The code that runs instances of the name and version, or why this worker runs none of them; None where no code bears the name."""
        definition = self.orchestrators.get(name)
        if definition is None:
            return None
        if self.versioning is not None:
            mismatch = self.versioning.mismatch(name, version)
            if mismatch is not None:
                return mismatch
        if definition.version == version:
            return definition
        return self.orchestrators.serving(name, version) or version_mismatch(self.orchestrators, name, version)

    def default_version(self, name: str, fn: Callable[..., Any] | None = None) -> str | None:
        """The version of an instance that is started here without one."""
        preferred = None if self.versioning is None else self.versioning.default_version
        return self.orchestrators.default_version(name, preferred, fn)

    def activity(self, called: Callable[..., Any] | str) -> CallPlan:
        """How to call the activity, given as function or as name. A name that is not registered here may be known to another worker.

        Raises:
            UnknownNameError: the function is not registered.
        """
        plan = self.plans.get(called)
        return plan if plan is not None else self._plan(called, self.activities, "activity")

    def orchestrator(self, called: Callable[..., Any] | str) -> CallPlan:
        """How to call the orchestrator as a sub-orchestration; as for `activity`."""
        key = ("orchestrator", called)
        plan = self.plans.get(key)
        return plan if plan is not None else self._plan(called, self.orchestrators, "orchestrator")

    def _plan(
        self, called: Callable[..., Any] | str, definitions: Mapping[str, ActivityDefinition] | Orchestrators, what: str
    ) -> CallPlan:
        definition: ActivityDefinition | OrchestratorDefinition | None
        if isinstance(called, str):
            definition = definitions.get(called)
            if definition is None:
                called = plain(called)
                return CallPlan(called, f"input of {what} '{called}'", self.codec.decoder(Any))
        else:
            if isinstance(definitions, Orchestrators):
                definition = definitions.of_function(called)
            else:
                definition = next((d for d in definitions.values() if called in (d.fn, d.stands_for)), None)
            if definition is None:
                name = getattr(called, "__name__", repr(called))
                raise UnknownNameError(
                    f"{name!r} is not registered as {'an' if what[0] in 'ao' else 'a'} {what} with this app: "
                    f"decorate it with @app.{what}, or include the app that has it"
                )
        retry = definition.retry if isinstance(definition, ActivityDefinition) else None
        plan = CallPlan(
            name=definition.name,
            input_title=f"input of {what} '{definition.name}'",
            decode=self.codec.decoder(definition.result_type),
            retry=None if retry is None else retry.values(),
            predicate=None if retry is None else retry.predicate,
            timeout_microseconds=stored_duration(definition.timeout)
            if isinstance(definition, ActivityDefinition) and definition.timeout is not None
            else None,
            version=self.default_version(definition.name, None if isinstance(called, str) else called)
            if isinstance(definition, OrchestratorDefinition)
            else None,
        )
        self.plans[called if what == "activity" else ("orchestrator", called)] = plan
        return plan


def version_mismatch(orchestrators: Orchestrators, name: str, version: str | None) -> VersionMismatchError:
    """That the name has code, and none for the version."""
    present = ", ".join(f"'{each}'" for each in sorted(filter(None, orchestrators.versions[name]), key=version_key))
    return VersionMismatchError(
        f"the app has no code for instances of '{name}' {of_version(version)}; it has the versions {present}: "
        f"register it beside them, @app.orchestrator(name='{name}', version='{version}'), or without a version for all that have no code of their own"
    )
