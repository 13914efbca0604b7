"""How wide trees and tables are: whoever reads them from a pipe or a narrow terminal misses nothing."""

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table

_ENDLESS = 1_000_000


@dataclass(frozen=True, slots=True)
class Fitted:
    """A view that is wrapped to a terminal, and as wide as its content anywhere else.

    Where the columns of a table find no room, a row stays one line, which the terminal wraps as it does for kubectl.
    """

    view: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Renders the view at the width that fits."""
        needed = Measurement.get(console, options.update_width(_ENDLESS), self.view)
        narrow = isinstance(self.view, Table) and needed.minimum > options.max_width
        width = options.max_width if console.is_terminal and not narrow else needed.maximum
        # Consoles of ours neither wrap nor cut lines of text; what is within a view must be.
        yield from console.render(self.view, options.update(width=width, no_wrap=False, overflow="fold"))
