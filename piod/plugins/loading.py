"""Loading one plugin, so that whatever is wrong with it stays its own problem.

A plugin is loaded in a thread of its own with a deadline: it may raise anything,
leave with SystemExit, or hang. It sees the same process as piod, though: code
that ends the process, or corrupts it, cannot be kept from doing so.
"""

from __future__ import annotations

import asyncio
import importlib.machinery
import importlib.util
import inspect
import itertools
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, MappingProxyType, ModuleType
from typing import TypeAlias

from piod.calibrations.protocols.protocol import CalibrationProtocol
from piod.jobs.job import Job
from piod.plugins.rules import problem_with, problem_with_protocol

log = logging.getLogger(__name__)

LOAD_TIMEOUT_S = 10.0
"""Wall time that one plugin may take."""

_VARIABLES = {
    "name": "__plugin_name__",
    "version": "__plugin_version__",
    "description": "__plugin_summary__",
    "author": "__plugin_author__",
    "homepage": "__plugin_homepage__",
}
_MAX_TEXT = 1000
_NOTHING: Mapping[str, str] = MappingProxyType({})
_numbers = itertools.count(1)

Added: TypeAlias = type[Job] | type[CalibrationProtocol]
"""What a plugin may add."""


@dataclass(frozen=True)
class Loaded:
    """What came of loading one plugin.

    ``kinds``: its jobs, ``protocols``: its calibration protocols, each of which passed the
    rules. ``problems``: what was refused or failed, in words. ``about``: what its module says
    of itself. ``modules``: what it brought into ``sys.modules``.
    """

    kinds: tuple[type[Job], ...] = ()
    problems: tuple[str, ...] = ()
    about: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    modules: tuple[str, ...] = ()
    protocols: tuple[type[CalibrationProtocol], ...] = ()


def load_file(path: Path) -> Loaded:
    """Run the plugin file ``path`` as a module with a name of its own."""
    name = f"piod_plugin_{next(_numbers)}_{path.stem}"
    try:
        spec = importlib.util.spec_from_loader(name, _FileLoader(name, str(path)))
        if spec is None or spec.loader is None:
            raise ImportError(f"{path.name} cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses of the plugin look their module up here
        spec.loader.exec_module(module)
        found = _added_by(module, own=lambda where: where == name)
        return _judged(found, (), _about(module), (name,))
    except BaseException as error:  # a plugin may raise anything, SystemExit too
        sys.modules.pop(name, None)
        log.info("the plugin %s cannot be loaded", path.name, exc_info=True)
        return Loaded(problems=(_told(error, str(path)),))


def load_entries(package: str, entries: Iterable[tuple[str, str]]) -> Loaded:
    """Load the entry points (name, value) of the installed ``package``.

    An entry point names a module, whose jobs and protocols are added, or one of them.
    """
    from importlib.metadata import EntryPoint  # heavy, and rarely needed

    before = set(sys.modules)
    added: list[Added] = []
    problems: list[str] = []
    about: Mapping[str, str] = _NOTHING
    roots: set[str] = set()
    for name, value in entries:
        root = value.partition(":")[0].partition(".")[0].strip()
        roots.add(root)
        try:
            found: object = EntryPoint(name, value, "").load()
            if isinstance(found, ModuleType):
                added += _added_by(found, own=_within(found.__name__))
                about = about or _about(found)
            elif isinstance(found, type) and issubclass(found, Job | CalibrationProtocol):
                added.append(found)
            else:
                problems.append(
                    f"the entry point {name} = {value} is neither a module nor a job, "
                    "nor a calibration protocol"
                )
        except BaseException as error:  # as above
            log.info("the plugin %s cannot be loaded", package, exc_info=True)
            problems.append(f"the entry point {name} = {value} failed: {_told(error)}")
    brought = [
        module
        for module in set(sys.modules) - before
        if module.partition(".")[0] in roots  # others may import at the same time
    ]
    return _judged(dict.fromkeys(added), problems, about, brought)


def forget(loaded: Loaded) -> None:
    """Let a later load of the same plugin see its new code; jobs that run keep theirs."""
    for module in loaded.modules:
        sys.modules.pop(module, None)


async def load_within(
    what: str, load: Callable[[], Loaded], timeout_s: float = LOAD_TIMEOUT_S
) -> Loaded:
    """What ``load`` returns, from a thread of its own; or that ``what`` took too long.

    Nobody waits for the thread when the daemon ends. What a plugin prints while
    it is loaded goes to stderr: stdout is the daemon's.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Loaded] = loop.create_future()

    def finish(loaded: Loaded) -> None:
        if not done.done():
            done.set_result(loaded)

    def work() -> None:
        try:
            loaded = load()
        except BaseException as error:  # a plugin may raise anything, even while it is looked at
            log.info("the plugin %s cannot be loaded", what, exc_info=True)
            loaded = Loaded(problems=(_told(error),))
        try:
            loop.call_soon_threadsafe(finish, loaded)
        except RuntimeError:
            pass  # the loop is closed: it took too long and the daemon has ended since

    with redirect_stdout(sys.stderr):
        threading.Thread(target=work, name=f"load {what}", daemon=True).start()
        try:
            return await asyncio.wait_for(done, timeout_s)
        except TimeoutError:
            return Loaded(problems=(f"it was not loaded within {timeout_s:g} s",))


class _FileLoader(importlib.machinery.SourceFileLoader):
    """Without ``__pycache__``: it would be taken for a file replaced within a second."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _within(package: str) -> Callable[[str], bool]:
    return lambda where: where == package or where.startswith(f"{package}.")


def _added_by(module: ModuleType, own: Callable[[str], bool]) -> list[Added]:
    """The jobs and protocols that ``module`` defines itself; a base without a name is none."""
    return [
        value
        for value in list(vars(module).values())
        if isinstance(value, type) and own(value.__module__) and _is_added(value)
    ]


def _is_added(value: type) -> bool:
    if issubclass(value, Job):
        return hasattr(value, "job_name") or not inspect.isabstract(value)
    return issubclass(value, CalibrationProtocol) and hasattr(value, "name")


def _judged(
    added: Iterable[Added],
    problems: Iterable[str],
    about: Mapping[str, str],
    modules: Iterable[str],
) -> Loaded:
    """What follows the rules, and what is wrong with the others."""
    kinds: list[type[Job]] = []
    protocols: list[type[CalibrationProtocol]] = []
    said = list(problems)
    for one in added:
        if issubclass(one, Job):
            problem = problem_with(one)
            if problem is None:
                kinds.append(one)
        else:
            problem = problem_with_protocol(one)
            if problem is None:
                protocols.append(one)
        if problem is not None:
            said.append(problem)
    return Loaded(tuple(kinds), tuple(said), about, tuple(modules), tuple(protocols))


def _about(module: ModuleType) -> dict[str, str]:
    said = {key: vars(module).get(variable) for key, variable in _VARIABLES.items()}
    return {key: str(value)[:_MAX_TEXT] for key, value in said.items() if value is not None}


def _told(error: BaseException, path: str | None = None) -> str:
    """``error`` in one line, and the line of the file ``path`` that it came from."""
    text = traceback.format_exception_only(error)[-1].strip()[:_MAX_TEXT]
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    return f"{text} (line {lines[-1]})" if lines else text
