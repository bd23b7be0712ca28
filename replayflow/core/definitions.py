"""What the core has to know of user code: names, functions, and how their values are rebuilt.

The registry makes `Definition`s from decorated functions; an `Environment` is what all contexts of one engine share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from replayflow.codec import Codec
from replayflow.core.entity_definition import EntityDefinition
from replayflow.errors import FailureDetails, UnknownNameError
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


@dataclass(frozen=True, slots=True)
class OrchestratorDefinition:
    """An orchestrator as it was registered."""

    name: str
    fn: Callable[..., Any]
    takes_input: bool
    input_type: Any
    result_type: Any
    version: str | None = None


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
    orchestrators: Mapping[str, OrchestratorDefinition]
    plans: dict[object, CallPlan] = field(default_factory=dict)
    """How to call what was called before, by function or name."""
    entities: Mapping[str, EntityDefinition] = field(default_factory=dict)

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
        self,
        called: Callable[..., Any] | str,
        definitions: Mapping[str, ActivityDefinition] | Mapping[str, OrchestratorDefinition],
        what: str,
    ) -> CallPlan:
        definition: ActivityDefinition | OrchestratorDefinition | None
        if isinstance(called, str):
            definition = definitions.get(called)
            if definition is None:
                return CallPlan(called, f"input of {what} '{called}'", self.codec.decoder(Any))
        else:
            # By equality: a bound method is another object each time that it is looked up.
            definition = next((d for d in definitions.values() if d.fn == called), None)
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
            version=definition.version if isinstance(definition, OrchestratorDefinition) else None,
        )
        self.plans[called if what == "activity" else ("orchestrator", called)] = plan
        return plan
