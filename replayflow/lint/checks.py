"""The rules at work on one function: each check looks at its nodes, and says what breaks a rule. In doubt a check says nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from replayflow.lint.calls import PATH_METHODS, PATH_METHODS_ANYWHERE, READ, broken_by
from replayflow.lint.findings import Finding, finding
from replayflow.lint.module import FUNCTIONS, Code, Module, is_asked, own_nodes
from replayflow.lint.yields import forgotten

_LOOPS = (ast.For, ast.While, ast.AsyncFor)
_MUTATORS = frozenset(
    {
        *(
            "append",
            "extend",
            "insert",
            "remove",
            "pop",
            "clear",
            "sort",
            "reverse",
            "add",
            "discard",
            "update",
            "setdefault",
        ),
        *(
            "popitem",
            "appendleft",
            "extendleft",
            "popleft",
            "rotate",
            "subtract",
            "difference_update",
            "intersection_update",
        ),
    }
)
_SET_METHODS = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy"})
_SET_OPERATORS = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
_IN_ORDER = frozenset({"list", "tuple", "iter", "enumerate", "reversed"})
"""What hands on the order of what it is given."""


@dataclass(slots=True)
class Look:
    """One function, and the way to say what is wrong with it."""

    module: Module
    code: Code
    path: str

    def says(self, node: ast.AST, rule: str, what: str, instead: str | None = None) -> Finding:
        return finding(self.path, node, rule, what, instead)

    def name(self, node: ast.AST) -> str | None:
        return self.module.qualified(node, self.code.locals)


def check(module: Module, code: Code, path: str) -> Iterator[Finding]:
    """All that is wrong with the function."""
    look = Look(module, code, path)
    for each in (_called, _read, _async, _sets, _globals, _endless, _swallowed):
        yield from each(look)
    yield from forgotten(module, code, partial(finding, path))


# ---- what is called and looked at ------------------------------------------------------------------------------


def _called(look: Look) -> Iterator[Finding]:
    for node in look.code.nodes:
        if not isinstance(node, ast.Call):
            continue
        name = look.name(node.func)
        rule = None if name is None else broken_by(name, len(node.args) + len(node.keywords))
        if name is not None and rule is not None:
            yield look.says(node, rule, f"{name.removeprefix('builtins.')}()")
        elif isinstance(node.func, ast.Attribute) and node.func.attr in PATH_METHODS and _is_path(look, node.func):
            yield look.says(node, "RFL04", f".{node.func.attr}() of a path")


def _is_path(look: Look, method: ast.Attribute) -> bool:
    """Whether it is plainly a path whose method this is."""
    receiver: ast.AST = method.value
    if method.attr in PATH_METHODS_ANYWHERE:
        return not (isinstance(receiver, ast.Name) and receiver.id in look.code.contexts)
    while isinstance(receiver, ast.Attribute | ast.BinOp):
        receiver = receiver.value if isinstance(receiver, ast.Attribute) else receiver.left
    return isinstance(receiver, ast.Call) and (look.name(receiver.func) or "").startswith("pathlib.Path")


def _read(look: Look) -> Iterator[Finding]:
    for node in look.code.nodes:
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            name = look.name(node)
            if name in READ:
                yield look.says(node, READ[name], name)


def _async(look: Look) -> Iterator[Finding]:
    function = look.code.function
    if isinstance(function, ast.AsyncFunctionDef):
        if look.code.is_orchestrator:
            yield look.says(function, "RFL08", f"orchestrator '{function.name}' is async def")
        return
    for node in look.code.nodes:
        if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith):
            within = look.module.function_of(node)
            if within is function:
                yield look.says(node, "RFL08", "await" if isinstance(node, ast.Await) else "async for and async with")


# ---- sets ------------------------------------------------------------------------------------------------------


def _sets(look: Look) -> Iterator[Finding]:
    names = _set_names(look)
    is_set = partial(_is_set, look, names)
    for node in look.code.nodes:
        if isinstance(node, ast.For) and is_set(node.iter) and any(_decides(look, each) for each in node.body):
            yield look.says(node.iter, "RFL09", "a loop over a set that asks for something")
        elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp):
            made = node.value if isinstance(node, ast.DictComp) else node.elt
            if is_set(node.generators[0].iter) and _decides(look, made):
                yield look.says(node.generators[0].iter, "RFL09", "a comprehension over a set that asks for something")
        elif is_asked(node, look.code.contexts, "map"):
            assert isinstance(node, ast.Call)  # noqa: S101 - it is asked
            for argument in node.args[1:2]:
                if is_set(argument):
                    yield look.says(argument, "RFL09", "a map over a set")


def _decides(look: Look, node: ast.AST) -> bool:
    """Whether the node asks the context for something, or yields."""
    return any(
        isinstance(each, ast.Yield | ast.YieldFrom) or (isinstance(each, ast.Name) and each.id in look.code.contexts)
        for each in ast.walk(node)
    )


def _set_names(look: Look) -> set[str]:
    """Names that are a set wherever they are bound, and parameters that are annotated as sets."""
    bound: dict[str, list[bool]] = {}
    for node in look.code.nodes:
        if isinstance(node, ast.arg) and node.annotation is not None:
            bound.setdefault(node.arg, []).append(_is_set_type(node.annotation))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            above = look.module.parents.get(node)
            is_set = False
            if isinstance(above, ast.Assign | ast.NamedExpr) or (isinstance(above, ast.AnnAssign) and above.value):
                is_set = above.value is not None and _is_set(look, set(), above.value)
            elif isinstance(above, ast.AugAssign):
                is_set = isinstance(above.op, _SET_OPERATORS)
            bound.setdefault(node.id, []).append(is_set)
    return {name for name, each in bound.items() if all(each)}


def _is_set_type(annotation: ast.AST) -> bool:
    base = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    name = base.id if isinstance(base, ast.Name) else base.attr if isinstance(base, ast.Attribute) else ""
    return name in ("set", "frozenset", "Set", "FrozenSet", "AbstractSet", "MutableSet")


def _is_set(look: Look, names: set[str], node: ast.AST) -> bool:
    """Whether the value is plainly a set, or has the order of one."""
    while True:
        if isinstance(node, ast.Set | ast.SetComp):
            return True
        if isinstance(node, ast.Name):
            return node.id in names
        if isinstance(node, ast.BinOp) and isinstance(node.op, _SET_OPERATORS):
            node = node.left
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id not in look.code.locals:
            if node.func.id in ("set", "frozenset"):
                return True
            if node.func.id not in _IN_ORDER or not node.args:
                return False
            node = node.args[0]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _SET_METHODS:
            node = node.func.value
        else:
            return False


# ---- state, loops, requests to cancel --------------------------------------------------------------------------


def _globals(look: Look) -> Iterator[Finding]:
    module, code = look.module, look.code
    declared = {name for node in code.nodes if isinstance(node, ast.Global) for name in node.names}

    def is_global(node: ast.AST) -> bool:
        while isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        return isinstance(node, ast.Name) and node.id in module.bound and node.id not in code.locals - declared

    for node in code.nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del) and node.id in declared:
            yield look.says(node, "RFL10", f"the global '{node.id}' is changed")
        elif isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            if is_global(node):
                yield look.says(node, "RFL10", f"{_text(node)} of the module is changed")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _MUTATORS:
            receiver = node.func.value
            if isinstance(receiver, ast.Name) and receiver.id in module.mutable and is_global(receiver):
                yield look.says(node, "RFL10", f"{receiver.id}.{node.func.attr}() changes what the module has")


def _endless(look: Look) -> Iterator[Finding]:
    code = look.code
    if any(is_asked(node, code.contexts, "continue_as_new") for node in code.nodes):
        return
    for node in code.nodes:
        if isinstance(node, ast.While) and isinstance(node.test, ast.Constant) and node.test.value:
            inner = list(_in_loop(node))
            if any(isinstance(each, ast.Return | ast.Raise) for each, _ in inner):
                continue
            if any(isinstance(each, ast.Break) and depth == 0 for each, depth in inner):
                continue
            if any(isinstance(each, ast.Yield | ast.YieldFrom) for each, _ in inner):
                yield look.says(node, "RFL11", "an endless loop without continue_as_new")
            else:
                yield look.says(node, "RFL11", "an endless loop without a yield", "it stops the worker: end the loop")


def _in_loop(loop: ast.While) -> Iterator[tuple[ast.AST, int]]:
    """What is in the loop, but for functions, each with the number of loops between."""
    waiting: list[tuple[ast.AST, int]] = [(each, 0) for each in loop.body]
    while waiting:
        node, depth = waiting.pop()
        yield node, depth
        if not isinstance(node, (*FUNCTIONS, ast.Lambda)):
            below = depth + isinstance(node, _LOOPS)
            waiting.extend((child, below) for child in ast.iter_child_nodes(node))


def _swallowed(look: Look) -> Iterator[Finding]:
    for node in look.code.nodes:
        if isinstance(node, ast.Try | ast.TryStar) and any(_waits(each) for each in node.body):
            for handler in node.handlers:
                if _catches_all(look, handler) and not any(map(_leaves, handler.body)):
                    what = "except:" if handler.type is None else "except BaseException:"
                    yield look.says(handler, "RFL13", f"`{what}` that does not raise again")
            for each in node.finalbody:
                if isinstance(each, ast.Return):
                    yield look.says(each, "RFL13", "a return in `finally`", "return after the try statement")
        elif isinstance(node, ast.With) and any(_waits(each) for each in node.body):
            for item in node.items:
                if _suppresses_all(look, item.context_expr):
                    yield look.says(item.context_expr, "RFL13", "suppress(BaseException)", "suppress Exception")


def _suppresses_all(look: Look, manager: ast.expr) -> bool:
    return (
        isinstance(manager, ast.Call)
        and look.name(manager.func) == "contextlib.suppress"
        and any(isinstance(each, ast.Name) and each.id == "BaseException" for each in manager.args)
    )


def _waits(node: ast.AST) -> bool:
    return any(isinstance(each, ast.Yield | ast.YieldFrom) for each in _with_own(node))


def _leaves(node: ast.AST) -> bool:
    """Whether the error, or what the code makes of it, goes on; or the orchestrator does not."""
    return any(isinstance(each, ast.Raise) for each in _with_own(node))


def _with_own(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if not isinstance(node, (*FUNCTIONS, ast.Lambda)):
        yield from own_nodes(node)


def _catches_all(look: Look, handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    several = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(each, ast.Name) and each.id == "BaseException" for each in several) and (
        "BaseException" not in look.code.locals
    )


def _text(node: ast.AST) -> str:
    attributes: list[str] = []
    while isinstance(node, ast.Attribute | ast.Subscript):
        attributes.append(f".{node.attr}" if isinstance(node, ast.Attribute) else "[...]")
        node = node.value
    return "".join([node.id if isinstance(node, ast.Name) else "", *reversed(attributes)])
