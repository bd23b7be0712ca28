"""The rules: what an orchestrator must not do, and what it does instead. This table is the one place where they are told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its code, what it is about, why it matters, and what to write instead."""

    code: str
    title: str
    why: str
    instead: str


_ACTIVITY = "call an activity, or ctx.record(...) for what is small and quick"

RULES: dict[str, Rule] = {
    rule.code: rule
    for rule in (
        Rule(
            "RFL00",
            "unreadable file",
            "what cannot be parsed cannot be checked",
            "mend the syntax, or leave the file out",
        ),
        Rule("RFL01", "wall clock", "the time is another at every replay", "use ctx.current_utc_datetime"),
        Rule(
            "RFL02",
            "chance",
            "it comes out otherwise at every replay, or in every process",
            "use ctx.random, which is seeded per execution, or ctx.record(...)",
        ),
        Rule("RFL03", "random UUID", "it is another at every replay", "use ctx.new_uuid()"),
        Rule("RFL04", "input or output", "it happens again at every replay, and may answer otherwise", _ACTIVITY),
        Rule(
            "RFL05",
            "environment",
            "it may be another on the machine, or the day, of the replay",
            "pass it as input, call an activity, or ctx.record(...)",
        ),
        Rule("RFL06", "sleep", "it holds up the worker, and is forgotten in a crash", "yield ctx.create_timer(...)"),
        Rule(
            "RFL07",
            "threads and event loops",
            "what runs beside the orchestrator is not recorded",
            "call activities, and wait with when_all or when_any",
        ),
        Rule(
            "RFL08",
            "async",
            "an orchestrator is a generator, which the engine drives",
            "write def, and yield where you would await; what has to await belongs in an activity",
        ),
        Rule(
            "RFL09", "order of a set", "a set has another order in every process", "go over sorted(...), or over a list"
        ),
        Rule(
            "RFL10",
            "global state",
            "a replay changes it again, and finds what others have left there",
            "keep it in local variables, in the input of continue_as_new, or in an entity",
        ),
        Rule(
            "RFL11",
            "endless loop",
            "its history grows, and every replay with it",
            "end a round with ctx.continue_as_new(...) and return",
        ),
        Rule(
            "RFL12", "forgotten yield", "a task is a promise, not its result", "write `yield` or `yield from` before it"
        ),
        Rule(
            "RFL13",
            "swallowed request to cancel",
            "OrchestrationCancelled is a BaseException, so that nobody swallows it by accident",
            "catch Exception, or raise again at the end",
        ),
    )
}
