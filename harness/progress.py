"""What a run shows of itself: a bar per step with count, rate and time left, and nothing where no one is looking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Advance = Callable[[int], None]
_SAY_EVERY = 60.0


class _RateColumn(ProgressColumn):
    """Completed a second, over the task's whole time once it is finished."""

    def render(self, task: Task) -> Text:
        """Return the rate, or a dash before there is one."""
        speed = task.finished_speed or task.speed
        return Text("  -/s" if speed is None else f"{speed:,.1f}/s", style="progress.data.speed")


@contextmanager
def step(console: Console, title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Show a step of ``total`` parts, of which ``done`` were there before; yields ``advance(n)``."""
    if console.is_terminal:
        progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            refresh_per_second=4,
        )
        with progress:
            # Not as completed parts: what an earlier start did must not count into this one's rate.
            task = progress.add_task(_titled(title, done), total=total - done)
            yield lambda count: progress.advance(task, count)
    else:
        # A log file gets a line a minute, not a thousand bars.
        finished, said, began = done, monotonic(), monotonic()
        console.print(f"{_titled(title, done)}: {total - done} to do")

        def advance(count: int) -> None:
            nonlocal finished, said
            finished += count
            if monotonic() - said >= _SAY_EVERY:
                said = monotonic()
                rate = (finished - done) / (said - began)
                left = f", {rate:,.1f}/s, {(total - finished) / rate / 60:.0f} min left" if rate else ""
                console.print(f"{title}: {finished} of {total}{left}")

        yield advance
        console.print(f"{title}: {finished} of {total}")


def _titled(title: str, done: int) -> str:
    return f"{title} (+{done} stored)" if done else title
