"""Turns a function, or a whole script, into a task. The component is made by componentize-py: CPython with its standard
library, without threads and without network. Pure Python packages beside app.py are built in.

In app.py, whose name `WitWorld` is what componentize-py looks for:

    WitWorld = taskmaster.task(function)        # params -> result
    WitWorld = taskmaster.script("report")      # report.py as a program: stdin, sys.argv, print
"""

import ast
import contextlib
import importlib
import importlib.util
import io
import json
import sys
import traceback

import wit_world
from componentize_py_types import Err
from wit_world.imports import host


class Permanent(Exception):
    """An error for which trying again is of no use. Every other one is tried again as often as `retries` say."""


def progress(fraction, note=""):
    """How far the task is, from 0 to 1."""
    host.progress(fraction, note)


def partial(value):
    """A first part of the result."""
    host.partial(json.dumps(value))


def log(*values):
    """A line for the task's log."""
    host.log(" ".join(map(str, values)))


def add(document):
    """Adds a task, a task document, when this one is done. Its id."""
    return host.add(json.dumps(document))


def then(document):
    """When this one is done, it goes on as that task."""
    host.then(json.dumps(document))


def is_cancelled():
    """Whether somebody has cancelled the task."""
    return host.is_cancelled()


def task(function):
    """The task that gives a function its params, and what the function returns as the result."""
    return _task(lambda params: json.dumps(function(json.loads(params))))


def script(name):
    """The task that runs `name`.py as a program. Params are its stdin, or `{"args": [...], "stdin": ...}`; what it prints
    is the result, what it writes to stderr the task's log."""
    loader = importlib.util.find_spec(name).loader
    before = set(sys.modules)
    for imported in _imports(loader.get_source(name)):
        importlib.import_module(imported)
    # Modules of the library import others only when they are used, as argparse does for its messages. Two steps are
    # enough for what they are used for; what is not there on this platform is not wanted either.
    for _ in range(2):
        loaded = set(sys.modules) - before
        before |= loaded
        for module in loaded:
            with contextlib.suppress(Exception):
                for imported in _imports(sys.modules[module].__loader__.get_source(module)):
                    with contextlib.suppress(Exception):
                        importlib.import_module(imported)
    code = loader.get_code(name)
    return _task(lambda params: _run(code, name, params))


def _imports(source):
    """What a source imports, wherever in it. There are no files when it runs: it must be in memory by then."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def _run(code, name, text):
    params = json.loads(text)
    args = []
    if isinstance(params, dict) and "args" in params:
        args = [str(arg) for arg in params["args"]]
        params = params.get("stdin")
        text = json.dumps(params)
    stdin = params if isinstance(params, str) else "" if params is None else text
    printed = io.StringIO()
    before = sys.argv, sys.stdin
    sys.argv, sys.stdin = [name + ".py", *args], io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8")
    try:
        with contextlib.redirect_stdout(printed):
            exec(code, {"__name__": "__main__", "__file__": name + ".py"})
    except SystemExit as end:
        if isinstance(end.code, str):
            raise RuntimeError(end.code) from None
        if end.code in (64, 65):
            raise Permanent(f"exit code {end.code}") from None
        if end.code:
            raise RuntimeError(f"exit code {end.code}") from None
    finally:
        sys.argv, sys.stdin = before
    return printed.getvalue()


def _task(run_text):
    class WitWorld(wit_world.WitWorld):
        def run(self, params):
            try:
                return run_text(params)
            except Permanent as error:
                raise Err(host.Error_Permanent(str(error))) from None
            # Everything: what is not caught here is a trap without a word of Python's.
            except BaseException:
                raise Err(host.Error_Retryable(traceback.format_exc())) from None

    return WitWorld
