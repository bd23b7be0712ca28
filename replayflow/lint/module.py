"""One file as the rules see it: its tree with parents, what its names stand for, and which functions are orchestrators' code.

Nothing is imported and nothing recurses: any file that Python can parse can be looked at, however deep it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_CONTEXT = "OrchestrationContext"
_KINDS = ("orchestrator", "activity", "entity")
BUILTINS = frozenset({"open", "input", "hash", "id"})


@dataclass(slots=True)
class Code:
    """A function that runs as an orchestrator's code. `contexts` are the names under which it has the context."""

    function: Function
    contexts: set[str]
    is_orchestrator: bool
    """Whether it is registered as one, and not called by one."""
    nodes: list[ast.AST] = field(default_factory=list)
    """All that is in its body, functions inside it, too, in the order of the lines."""
    locals: set[str] = field(default_factory=set)
    """Names that it, a function inside it, or one around it, binds by anything but an import."""
    values: set[str] = field(default_factory=set)
    """Those of them that are no functions by a `def`."""


class Module:
    """A parsed file."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.parents: dict[ast.AST, ast.AST] = {}
        self.imports: dict[str, str] = {}
        self.functions: dict[str, list[Function]] = {}
        for node in ast.walk(tree):
            for child in ast.iter_child_nodes(node):
                self.parents[child] = node
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    self.imports[alias.asname or top] = alias.name if alias.asname else top
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self.imports[alias.asname or alias.name] = f"{'.' * node.level}{node.module or ''}.{alias.name}"
            elif isinstance(node, FUNCTIONS):
                self.functions.setdefault(node.name, []).append(node)
        self.bound = {name for name, _ in _bindings(tree.body)}
        self.mutable = {name for name, value in _bindings(tree.body) if _is_mutable(value)}
        self._alias()

    def _alias(self) -> None:
        """`now = datetime.now` at the top of a module is another name for the same."""
        for statement in self.tree.body:
            if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                target = statement.targets[0]
                if isinstance(target, ast.Name) and isinstance(statement.value, ast.Name | ast.Attribute):
                    name = self.qualified(statement.value)
                    if name is not None and "." in name:
                        self.imports[target.id] = name
                        self.bound.discard(target.id)

    def qualified(self, node: ast.AST, local: set[str] | frozenset[str] = frozenset()) -> str | None:
        """The full name that a name or a chain of attributes stands for; None where it is no imported or built-in one."""
        attributes: list[str] = []
        while isinstance(node, ast.Attribute):
            attributes.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id in local:
            return None
        root = self.imports.get(node.id)
        if root is None and node.id in BUILTINS and node.id not in self.bound and node.id not in self.functions:
            root = f"builtins.{node.id}"
        return None if root is None else ".".join([root, *reversed(attributes)])

    # ---- whose code is it

    def codes(self) -> list[Code]:
        """The orchestrators of the file, and what they call with their context, in the order of the lines."""
        registered = self._registered_by_call()
        found: dict[ast.AST, Code] = {}
        for function in (function for several in self.functions.values() for function in several):
            decorated = self._decoration(function)
            if decorated in ("activity", "entity"):
                continue
            context = self._annotated_context(function)
            is_orchestrator = decorated == "orchestrator" or function in registered
            if is_orchestrator and context is None:
                context = _parameter(function, 1 if self._is_method(function) else 0)
            if context is not None:
                found[function] = Code(function, {context}, is_orchestrator)
        waiting = list(found.values())
        while waiting:
            code = waiting.pop()
            self._look_into(code)
            for helper, context in self._called_with_context(code):
                if helper not in found and self._decoration(helper) is None:
                    found[helper] = Code(helper, {context}, is_orchestrator=False)
                    waiting.append(found[helper])
        inner = {node for code in found.values() for node in code.nodes if isinstance(node, FUNCTIONS)}
        own = [code for code in found.values() if code.function not in inner or code.is_orchestrator]
        return sorted(own, key=lambda code: (code.function.lineno, code.function.col_offset))

    def helper(self, call: ast.Call, code: Code) -> Function | None:
        """The function of this file that the code calls, by its name or as a method of `self`; None where it cannot be told."""
        called = call.func
        if isinstance(called, ast.Name):
            if called.id in self.imports or called.id in code.values:
                return None
            scopes = set(self._scopes_of(call))
            present = (each for each in self.functions.get(called.id, ()) if not self._is_method(each))
            several = [each for each in present if self.function_of(each) in scopes]
        elif (
            isinstance(called, ast.Attribute)
            and isinstance(called.value, ast.Name)
            and called.value.id in ("self", "cls")
        ):
            several = [each for each in self.functions.get(called.attr, ()) if self._is_method(each)]
        else:
            return None
        return several[0] if len(several) == 1 else None

    def is_generator(self, function: Function) -> bool:
        """Whether the function itself yields."""
        return any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own_nodes(function))

    def function_of(self, node: ast.AST) -> ast.AST | None:
        """The innermost function, or lambda, around the node."""
        above = self.parents.get(node)
        while above is not None and not isinstance(above, (*FUNCTIONS, ast.Lambda)):
            above = self.parents.get(above)
        return above

    def _scopes_of(self, node: ast.AST) -> Iterator[ast.AST | None]:
        """The functions around the node, and None for the module."""
        scope = self.function_of(node)
        while scope is not None:
            yield scope
            scope = self.function_of(scope)
        yield None

    def _is_method(self, function: Function) -> bool:
        return isinstance(self.parents.get(function), ast.ClassDef)

    def _decoration(self, function: Function) -> str | None:
        """As what the function is registered: `@app.orchestrator`, with or without arguments, whatever the app is called."""
        for decorator in function.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if isinstance(called, ast.Attribute) and called.attr in _KINDS:
                return called.attr
        return None

    def _registered_by_call(self) -> set[Function]:
        """Functions that are registered by `app.orchestrator(...)(function)` or `app.orchestrator(function)`."""
        found: set[Function] = set()
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Name):
                continue
            called = node.func.func if isinstance(node.func, ast.Call) else node.func
            if isinstance(called, ast.Attribute) and called.attr == "orchestrator":
                several = self.functions.get(node.args[0].id, [])
                found.update(several if len(several) == 1 else ())
        return found

    def _annotated_context(self, function: Function) -> str | None:
        for parameter in [*function.args.posonlyargs, *function.args.args][:2]:
            annotation = parameter.annotation
            if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
                name = annotation.value.strip()
            elif isinstance(annotation, ast.Name):
                name = self.imports.get(annotation.id, annotation.id)
            else:
                name = annotation.attr if isinstance(annotation, ast.Attribute) else ""
            if name.rpartition(".")[2] == _CONTEXT:
                return parameter.arg
        return None

    def _look_into(self, code: Code) -> None:
        """What is in the function, and what its names are. Activities inside it are not its code, nor orchestrators, which are looked at alone."""
        waiting: list[ast.AST] = [code.function]
        recorded = {node.id for node in _recorded(code.function, code.contexts) if isinstance(node, ast.Name)}
        while waiting:
            node = waiting.pop()
            passed_over = _recorded_by(node, code.contexts)
            for child in ast.iter_child_nodes(node):
                if child is passed_over or (isinstance(child, FUNCTIONS) and child.name in recorded):
                    continue  # what `ctx.record` calls may do what it likes: its result is recorded
                if isinstance(child, FUNCTIONS) and self._decoration(child) is not None:
                    code.locals.add(child.name)
                    continue
                if node is code.function and child in code.function.decorator_list:
                    continue
                code.nodes.append(child)
                waiting.append(child)
        code.nodes.sort(key=lambda each: (getattr(each, "lineno", 0), getattr(each, "col_offset", 0)))
        around: ast.AST | None = self.function_of(code.function)
        outer: list[ast.AST] = []
        while around is not None:
            outer += own_nodes(around)
            around = self.function_of(around)
        for node in (*code.nodes, *outer):
            bound = set(_bound_by(node))
            code.locals |= bound
            if not isinstance(node, FUNCTIONS):
                code.values |= bound

    def _called_with_context(self, code: Code) -> Iterator[tuple[Function, str]]:
        for node in code.nodes:
            if isinstance(node, ast.Call):
                helper = self.helper(node, code)
                for n, argument in enumerate(node.args if helper is not None else ()):
                    if isinstance(argument, ast.Name) and argument.id in code.contexts and helper is not None:
                        name = _parameter(helper, n + self._is_method(helper))
                        if name is not None:
                            yield helper, name


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """What is in the function, but for what is in functions inside it."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(node))


def is_asked(node: ast.AST, contexts: set[str], *names: str) -> bool:
    """Whether the node is a call of one of these methods of a context."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in names
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in contexts
    )


def _recorded(function: ast.AST, contexts: set[str]) -> Iterator[ast.AST]:
    """What the function has recorded: the first arguments of `ctx.record(...)`."""
    for node in ast.walk(function):
        found = _recorded_by(node, contexts)
        if found is not None:
            yield found


def _recorded_by(node: ast.AST, contexts: set[str]) -> ast.AST | None:
    if isinstance(node, ast.Call) and node.args and is_asked(node, contexts, "record"):
        return node.args[0]
    return None


def _parameter(function: Function, place: int) -> str | None:
    several = [*function.args.posonlyargs, *function.args.args]
    return several[place].arg if place < len(several) else None


def _bound_by(node: ast.AST) -> Iterator[str]:
    """The names that the node itself binds, but for imports."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
        yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
        if node.name is not None:
            yield node.name
    elif isinstance(node, ast.MatchMapping) and node.rest is not None:
        yield node.rest


def _bindings(body: list[ast.stmt]) -> Iterator[tuple[str, ast.AST | None]]:
    """The names that are assigned at the top of a module, with what they are assigned."""
    for statement in body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    yield target.id, statement.value
        elif isinstance(statement, ast.AnnAssign | ast.AugAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, statement.value


def _is_mutable(value: ast.AST | None) -> bool:
    if isinstance(value, ast.Call):
        called = value.func
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        return name in ("list", "dict", "set", "deque", "defaultdict", "Counter", "OrderedDict", "bytearray")
    return isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)
