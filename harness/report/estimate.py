"""How long cells will take on a lab: the rounds of controls and the cells, played through on paper; pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from harness.config.controls import REVIVAL_CONTROLS
from harness.errors import InfrastructureError
from harness.model import Cell, ClientKind, Control
from harness.report.costs import TABLE, CellKind, KindCost, RunCosts, own_costs, read_table
from harness.report.phases import WORK

BRING_UP, GUEST, RESIZE, END = "bring-up", "start of the guest", "another size of the device", "end"
# What reads the whole device takes longer on a larger one; the rest of it, connecting and settling, does not.
_BY_SIZE = frozenset({"verify", "compare", "exposure", "repair", "begin"})
_FIXED_SHARE = 0.3
# Seconds of overhead that are taken to have gone as estimated, so that the first cells do not decide alone.
_PRIOR_SECONDS = 60.0
# A step that took longer than so many times what was estimated was none of its kind: a lab was rebuilt.
_AT_MOST = 4.0
_NO_FIGURES = 30.0
# So many kinds of cells are named in a summary.
_PARTS_SHOWN = 20


class Costs:
    """What cells cost under one accelerator, from the costs of stored runs.

    ``own`` are those of this machine: a kind of cell that they have costs what it cost here, any other what it cost
    elsewhere, times how much slower this machine was with the kinds that are in both.
    """

    def __init__(self, table: Iterable[RunCosts], own: Iterable[RunCosts] = (), accelerator: str = "tcg") -> None:
        table, self._own_runs = tuple(table), tuple(own)
        same = tuple(one for one in table if one.accelerator == accelerator)
        self.accelerator = accelerator
        #: Whether figures of the accelerator that is used are known.
        self.known = bool(same or self._own_runs)
        self._runs = same or table
        self._own = [kind for run in self._own_runs for kind in run.kinds]
        # Those of the newest schema first: a cell cost less when less was looked at.
        newest = sorted(self._runs, key=lambda one: -one.schema)
        self._elsewhere = [kind for run in newest for kind in run.kinds]
        self._current = [kind for run in newest if run.schema == newest[0].schema for kind in run.kinds]
        self.ratio = self._machine_ratio()

    @property
    def basis(self) -> str:
        """What an estimate rests on, as the rest of a sentence."""
        attempts = sum(kind.attempts for kind in (*self._elsewhere, *self._own))
        text = f"by the phases of {attempts} stored attempts in {len(self._runs) + len(self._own_runs)} runs"
        if not self.known and self.accelerator == "hardware":
            return f"{text}, all of them on virtual machines: on real ones it takes another time"
        if not self.known:
            return f"{text}, none of them under {self.accelerator.upper()}: it takes less"
        if self._own_runs:
            return f"{text}, {len(self._own_runs)} of them here"
        return f"{text} on another machine"

    def attempt(self, cell: Cell, mib: float) -> dict[str, float]:
        """Seconds by phase of one attempt at ``cell`` on a device of ``mib`` MiB."""
        own = _matching(CellKind.of(cell), self._own, exact=True)
        found = own or _matching(CellKind.of(cell), self._current, self._elsewhere)
        if not found:
            return {WORK: float(cell.seconds), "the rest": _NO_FIGURES}
        spent = _mean(found, mib, cell.migrations)
        if not own:
            spent = {name: seconds * self.ratio for name, seconds in spent.items()}
        return {**spent, WORK: max(0.0, cell.seconds + spent.get(WORK, 0.0))}

    def of_lab(self, name: str) -> float:
        """Seconds that a lab takes for ``name``: BRING_UP, GUEST, RESIZE or END."""
        field_of: Mapping[str, Callable[[RunCosts], float | None]] = {
            BRING_UP: lambda one: one.bring_up,
            GUEST: lambda one: one.guest,
            RESIZE: lambda one: one.resize,
            END: lambda one: one.end,
        }
        for runs in (self._own_runs, self._runs):
            if known := [seconds for one in runs if (seconds := field_of[name](one)) is not None]:
                return sum(known) / len(known)
        return _NO_FIGURES / 2

    def _machine_ratio(self) -> float:
        here = there = 0.0
        for one in self._own:
            if found := _matching(one.kind, self._current, exact=True):
                here += one.attempts * sum(one.seconds.values())
                there += one.attempts * sum(_mean(found, one.mib, one.moves).values())
        return here / there if here > 0 and there > 0 else 1.0


def costs_here(runs: Path, accelerator: str) -> Costs:
    """What cells cost on this machine under ``accelerator``, as far as runs below ``runs`` tell.

    :class:`~harness.errors.InfrastructureError` where the table that comes with the harness cannot be read.
    """
    try:
        table = read_table()
    except (OSError, ValidationError) as error:
        raise InfrastructureError(f"the table of costs {TABLE} cannot be read: {error}") from error
    return Costs(table, own_costs(runs, accelerator), accelerator)


def _matching(kind: CellKind, *costs: Sequence[KindCost], exact: bool = False) -> list[KindCost]:
    """The costs of the kind, or of the kinds that are most like it; the first of ``costs`` that have some as like."""
    family = kind.disturbance.partition(".")[0]
    alike: tuple[Callable[[CellKind], bool], ...] = (
        lambda one: one == kind,
        lambda one: (
            (one.client, one.filesystem, one.workload, one.disturbance)
            == (kind.client, kind.filesystem, kind.workload, kind.disturbance)
        ),
        lambda one: (one.client, one.workload, one.disturbance) == (kind.client, kind.workload, kind.disturbance),
        lambda one: (one.client, one.filesystem, one.disturbance) == (kind.client, kind.filesystem, kind.disturbance),
        lambda one: (one.client, one.disturbance) == (kind.client, kind.disturbance),
        lambda one: (one.client, one.disturbance.partition(".")[0]) == (kind.client, family),
        lambda one: one.client == kind.client,
        lambda one: True,
    )
    for like in alike[:1] if exact else alike:
        for some in costs:
            if found := [one for one in some if like(one.kind)]:
                return found
    return []


def _mean(costs: Sequence[KindCost], mib: float, moves: float) -> dict[str, float]:
    """The mean of ``costs`` by attempt, for a device of ``mib`` MiB and so many migrations."""
    attempts = sum(one.attempts for one in costs)
    spent: dict[str, float] = {}
    for one in costs:
        size = mib / one.mib if one.mib else 1.0
        for name, seconds in one.seconds.items():
            if name in _BY_SIZE:
                seconds *= _FIXED_SHARE + (1 - _FIXED_SHARE) * size
            elif name == WORK and moves and one.moves:
                seconds *= moves / one.moves
            spent[name] = spent.get(name, 0.0) + seconds * one.attempts / attempts
    return spent


# --------------------------------------------------------------------------- what is to come


@dataclass(frozen=True)
class RoundsState:
    """Where the rounds of controls of a lab stand.

    ``waiting``: the controls of a round under way.  ``since``: seconds since all controls were played, None before the
    first time.  ``cells``: how many cells were played since.  ``revived``: whether a node came back since.  ``sizes``:
    the sizes of the device in MiB on which changes were planted.
    """

    waiting: tuple[Cell, ...] = ()
    since: float | None = None
    cells: int = 0
    revived: bool = False
    sizes: frozenset[float] = frozenset()


@dataclass(frozen=True)
class Step:
    """One thing that will be done: its name in a summary, its seconds by phase, what of them is given.

    ``place`` is the name in a summary of many kinds of cells, empty where it is the same.
    """

    name: str
    seconds: Mapping[str, float]
    given: float = 0.0
    place: str = ""

    @property
    def total(self) -> float:
        """Its seconds."""
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Schedule:
    """What a run is made of: ``cells`` that are left, ``controls`` of a round, how often they are played, the device.

    ``mib`` is the size of the device on which a cell is played.
    """

    cells: tuple[Cell, ...]
    controls: tuple[Cell, ...]
    every: float
    mib: Callable[[Cell], float]

    @classmethod
    def of(cls, cells: Iterable[Cell], every: float, mib: Callable[[Cell], float]) -> Schedule:
        """From the planned cells of a run in the order in which they are played, of which the controls are some."""
        planned = tuple(cells)
        tested = tuple(cell for cell in planned if cell.control is None)
        controls = tuple(cell for cell in planned if cell.control is not None)
        return cls(tested, controls, every, mib)


def steps(schedule: Schedule, costs: Costs, state: RoundsState | None = None) -> Iterator[Step]:
    """What is to come, in its order.  ``state`` is None before there is a lab."""
    if state is None:
        yield Step(BRING_UP, {BRING_UP: costs.of_lab(BRING_UP)})
        if any(cell.client is ClientKind.GUEST for cell in (*schedule.controls, *schedule.cells)):
            yield Step(GUEST, {GUEST: costs.of_lab(GUEST)})
        state = RoundsState()
    ahead = _Ahead(schedule, costs, state)
    yield from ahead.controls(state.waiting)
    for cell in schedule.cells:
        yield from ahead.before(cell)
        yield ahead.cell(cell)
    if ahead.cells or (state.since is None and not schedule.cells and not state.waiting):
        yield from ahead.controls(schedule.controls)
    yield Step(END, {END: costs.of_lab(END)})


class _Ahead:
    """The rounds of controls and the size of the device, played through; by the rules of a session's own rounds."""

    def __init__(self, schedule: Schedule, costs: Costs, state: RoundsState) -> None:
        self._schedule, self._costs = schedule, costs
        self._since, self._revived = state.since, state.revived
        self._sizes = set(state.sizes)
        # A round under way is played on the device of the cell behind it.
        self._size = schedule.mib(schedule.cells[0]) if state.waiting and schedule.cells else 0.0
        #: How many cells were played since all controls were.
        self.cells = state.cells

    def before(self, cell: Cell) -> Iterator[Step]:
        """What comes before ``cell``: another size of the device, and the controls that are due then."""
        size = self._schedule.mib(cell)
        if self._size and size != self._size:
            yield Step(RESIZE, {RESIZE: self._costs.of_lab(RESIZE)})
        self._size = size
        controls = self._schedule.controls
        if self._since is None or self._since >= self._schedule.every:
            yield from self.controls(controls)
        elif self._revived:
            yield from self.controls(controls, REVIVAL_CONTROLS)
        elif size not in self._sizes:
            yield from self.controls(controls, (Control.PLANTED,))

    def cell(self, cell: Cell) -> Step:
        """The cell itself."""
        step = self._step(cell, self._schedule.mib(cell))
        self.cells += 1
        self._revived = cell.cuts_power
        self._since = (self._since or 0.0) + step.total
        return step

    def controls(self, some: Iterable[Cell], only: Collection[Control] = ()) -> Iterator[Step]:
        """A round of controls on the device as it is, all of ``some`` or ``only`` those of some kinds."""
        due = [one for one in some if not only or one.control in only]
        played = [self._step(one, self._size or self._schedule.mib(one)) for one in due]
        yield from played
        if not played:
            return
        if self._size:
            self._sizes.add(self._size)
        self._revived = False
        if only:
            self._since = (self._since or 0.0) + sum(step.total for step in played)
        else:
            self._since, self.cells = 0.0, 0

    def _step(self, cell: Cell, mib: float) -> Step:
        kind = CellKind.of(cell)
        name, place = ("controls", "") if isinstance(cell.control, Control) else (str(kind), kind.place)
        return Step(name, self._costs.attempt(cell, mib), float(cell.seconds), place)


# --------------------------------------------------------------------------- the sum


@dataclass(frozen=True)
class Part:
    """One line of an estimate: what, how often, how long in all."""

    name: str
    times: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """How long a run will take, in seconds: in all, by kind of cell in the order they come in, and by phase.

    Where there are many kinds the parts are filesystems on their layouts.
    """

    total: float
    parts: tuple[Part, ...]
    phases: tuple[tuple[str, float], ...]
    basis: str
    cells: int
    at_most: bool = field(default=False)


def estimate(schedule: Schedule, costs: Costs) -> Estimate | None:
    """The estimate before anything began; None where there is nothing to play."""
    if not (schedule.cells or schedule.controls):
        return None
    ahead = list(steps(schedule, costs))
    parts = _parts((step.name, step) for step in ahead)
    if len(parts) > _PARTS_SHOWN:
        parts = _parts((step.place or step.name, step) for step in ahead)
    phases: dict[str, float] = {}
    for step in ahead:
        for name, seconds in step.seconds.items():
            phases[name] = phases.get(name, 0.0) + seconds
    ordered = tuple(sorted(phases.items(), key=lambda item: (-item[1], item[0])))
    total = sum(part.seconds for part in parts)
    return Estimate(total, parts, ordered, costs.basis, len(schedule.cells), not costs.known)


def _parts(named: Iterable[tuple[str, Step]]) -> tuple[Part, ...]:
    found: dict[str, list[float]] = {}
    for name, step in named:
        found.setdefault(name, []).append(step.total)
    return tuple(Part(name, len(totals), sum(totals)) for name, totals in found.items())


def remaining(ahead: Iterable[Step], factor: float) -> float:
    """Seconds that ``ahead`` will take where all but the given work takes ``factor`` times what was estimated."""
    return sum(step.given + factor * (step.total - step.given) for step in ahead)


def correction(done: Iterable[tuple[Step, float]]) -> float:
    """How many times longer the overhead took than estimated, by the steps that were done and the seconds of each."""
    estimated = seen = _PRIOR_SECONDS
    for step, seconds in done:
        estimated += max(0.0, step.total - step.given)
        seen += max(0.0, min(seconds, _AT_MOST * step.total) - step.given)
    return seen / estimated


# --------------------------------------------------------------------------- words

_PHASES_SHOWN = 5


def about(seconds: float) -> str:
    """A length of time as people say it: ``50 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def estimate_lines(made: Estimate) -> list[str]:
    """The estimate for people: the sum, the kinds of cells that take longest, the phases."""
    cells = f"{made.cells} play{'' if made.cells == 1 else 's'}"
    lines = [f"estimate: {'at most ' if made.at_most else ''}about {about(made.total)} for {cells}, {made.basis}"]
    longest = sorted(made.parts, key=lambda part: -part.seconds)[:_PARTS_SHOWN]
    lines += (f"{about(part.seconds):>12}  {part.times:3d} x {part.name}" for part in made.parts if part in longest)
    if rest := [part for part in made.parts if part not in longest]:
        seconds, times = sum(part.seconds for part in rest), sum(part.times for part in rest)
        lines.append(f"{about(seconds):>12}  {times:3d} x {len(rest)} other kinds")
    phases = [f"{name} {about(seconds)}" for name, seconds in made.phases[:_PHASES_SHOWN]]
    return [*lines, f"by phase: {', '.join(phases)}, other {about(sum(s for _, s in made.phases[_PHASES_SHOWN:]))}"]
