"""Forgotten yields: a task that is used as if it were its result, and work that never begins.

A call that is not yielded is no fault by itself: an activity runs from the call on, whether or not anybody waits for it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Protocol

from replayflow.lint.findings import Finding
from replayflow.lint.module import FUNCTIONS, Code, Module, is_asked

TASKS = (
    "call_activity",
    "call_sub_orchestrator",
    "call_entity",
    "create_timer",
    "wait_for_external_event",
    "map",
    "lock_entities",
)
WAITS = ("create_timer", "wait_for_external_event", "lock_entities")
"""Tasks that do nothing but be waited for."""
TASK_ATTRIBUTES = frozenset(
    {"result", "exception", "is_complete", "is_failed", "cancel", "title", "id", "name", "label"}
)
_TAKES_PAYLOAD = (
    "call_activity",
    "call_sub_orchestrator",
    "call_entity",
    "signal_entity",
    "send_event",
    "continue_as_new",
    "set_custom_status",
)
_IDENTITY = (ast.Is, ast.IsNot, ast.In, ast.NotIn)


class Says(Protocol):
    """Makes a finding of a node, a rule, what is there, and what to write instead."""

    def __call__(self, node: ast.AST, code: str, what: str, instead: str | None = None) -> Finding: ...


def forgotten(module: Module, code: Code, says: Says) -> Iterator[Finding]:
    """The tasks that are used before they are yielded, and the generators that nobody runs."""
    for node in code.nodes:
        if not isinstance(node, ast.Call):
            continue
        above = module.parents.get(node)
        if is_asked(node, code.contexts, *TASKS):
            asked = f"ctx.{_method(node)}(...)"
            use = _misuse(module, code, node)
            if use is not None:
                yield says(node, "RFL12", f"the task of {asked} {use}")
            elif isinstance(above, ast.Expr) and is_asked(node, code.contexts, *WAITS):
                yield says(node, "RFL12", f"nothing waits for {asked}")
            elif isinstance(above, ast.Assign) and len(above.targets) == 1 and isinstance(above.targets[0], ast.Name):
                yield from _uses(module, code, above.targets[0].id, asked, says)
        elif _is_generator(module, code, node):
            called = "ctx.saga(...)" if is_asked(node, code.contexts, "saga") else f"{_called(node)}(...)"
            if isinstance(above, ast.Expr):
                yield says(node, "RFL12", f"{called} is a generator that never runs", "write `yield from` before it")
            elif isinstance(above, ast.Yield):
                yield says(node, "RFL12", f"{called} is a generator and no task", "write `yield from`")


def _uses(module: Module, code: Code, name: str, asked: str, says: Says) -> Iterator[Finding]:
    """Where the name, which is bound once and to a task, is used as if it were the result."""
    nodes = [node for node in code.nodes if isinstance(node, ast.Name) and node.id == name]
    if sum(not isinstance(node.ctx, ast.Load) for node in nodes) != 1:
        return
    for node in nodes:
        use = _misuse(module, code, node) if isinstance(node.ctx, ast.Load) else None
        if use is not None:
            yield says(
                node, "RFL12", f"'{name}', the task of {asked}, {use}", "yield it first: `yield` gives its result"
            )


def _misuse(module: Module, code: Code, node: ast.expr) -> str | None:
    """What is done with the task that only its result would bear; None for all else."""
    above = module.parents.get(node)
    match above:
        case ast.Subscript() if above.value is node:
            return "is indexed"
        case ast.Attribute() if above.attr not in TASK_ATTRIBUTES and not above.attr.startswith("_"):
            return f"has no .{above.attr}"
        case ast.BinOp() | ast.UnaryOp() | ast.AugAssign():
            return "is calculated with"
        case ast.BoolOp():
            return "is always true"
        case ast.If() | ast.While() | ast.IfExp() | ast.Assert() if above.test is node:
            return "is always true"
        case ast.FormattedValue():
            return "is put into a text"
        case ast.For() | ast.comprehension() if above.iter is node:
            return "is iterated"
        case ast.Compare() if not all(isinstance(op, _IDENTITY) for op in above.ops):
            others = [above.left, *above.comparators]
            is_plain = any(isinstance(other, ast.Constant) and other.value is not None for other in others)
            return "is compared" if is_plain else None
        case ast.withitem() if above.context_expr is node:
            return "is entered"
        case ast.Call() if node in above.args[1:] and is_asked(above, code.contexts, *_TAKES_PAYLOAD):
            return "is passed as input"
        case ast.Call() if node in above.args and is_asked(
            above, code.contexts, "continue_as_new", "set_custom_status"
        ):
            return "is passed as input"
        case ast.Return():
            within = module.function_of(node)
            if isinstance(within, FUNCTIONS) and within is code.function:
                return "is returned" if code.is_orchestrator or module.is_generator(within) else None
            return None
        case _:
            return None


def _is_generator(module: Module, code: Code, call: ast.Call) -> bool:
    """Whether the call makes a generator that works with the context."""
    if is_asked(call, code.contexts, "saga"):
        return True
    helper = module.helper(call, code)
    takes_context = any(isinstance(argument, ast.Name) and argument.id in code.contexts for argument in call.args)
    return helper is not None and takes_context and module.is_generator(helper)


def _method(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else _method(call)
