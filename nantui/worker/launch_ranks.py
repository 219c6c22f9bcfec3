"""One host's ranks of a run on several: `python -m nantui.worker.launch_ranks RUN NNN NODE DEVICES`.

torchrun does the work. Two things are ours: the store in which the ranks meet listens on the address that was
asked for and nowhere else (PyTorch's own listens on every address), and the launcher of a joined host
dies with its agent, so that nothing is left on a host where nobody could end it.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

from nantui import entry_points
from nantui.errors import UserError
from nantui.run.attempts import Attempt, read_attempt
from nantui.run.layout import RunLayout
from nantui.terminal_text import printable
from nantui.worker.process_end import die_with_parent, tie_children

JOIN_S = 900
LISTENER = "NANTUI_LISTEN_FD"


def main(arguments: list[str]) -> None:
    """Launch and wait. Raises UserError for wrong arguments, SystemExit as torchrun does."""
    if len(arguments) != 4 or not all(word.isdigit() for word in arguments[1:]):
        raise UserError("usage: python -m nantui.worker.launch_ranks RUN NNN NODE DEVICES")
    layout, (number, node, devices) = RunLayout(Path(arguments[0])), map(int, arguments[1:])
    die_with_parent()
    tie_children()
    attempt = read_attempt(layout, number)
    if attempt is None:
        raise UserError(f"{layout.attempt(number)}: no readable record of this attempt")
    from torch.distributed import run

    store = serve(attempt) if LISTENER in os.environ else None
    run.main(torchrun_argv(layout, attempt, node, devices))
    del store


def torchrun_argv(layout: RunLayout, attempt: Attempt, node: int, devices: int) -> list[str]:
    """Return torchrun's words. Its static rendezvous is told each host's place, so that rank 0 leads."""
    host, port = address(attempt.endpoint)
    return [
        *("--nnodes", str(attempt.nnodes), "--node_rank", str(node), "--nproc_per_node", str(devices)),
        *("--rdzv_backend", "static", "--master_addr", host, "--master_port", str(port)),
        *("--rdzv_id", attempt.uuid, "--rdzv_conf", f"timeout={JOIN_S}", "--max_restarts", "0"),
        *("-m", entry_points.WORKER, str(layout.run), f"{attempt.attempt:03d}"),
    ]


def serve(attempt: Attempt) -> object:
    """Return a store on the inherited socket; torchrun, asking for this port in this process, shares it.

    Raises UserError for a PyTorch (before 2.1) that cannot be given a socket.
    """
    from torch.distributed import TCPStore

    host, port = address(attempt.endpoint)
    options = {"master_listen_fd": int(os.environ.pop(LISTENER)), "multi_tenant": True}
    try:
        return TCPStore(
            host, port, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=JOIN_S), **options
        )
    except TypeError:
        raise UserError("several hosts want PyTorch 2.1 or newer") from None


def address(endpoint: str) -> tuple[str, int]:
    """Return (host, port) of an attempt's endpoint."""
    host, _, port = endpoint.rpartition(":")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"nantui: {printable(error)}", file=sys.stderr)
        sys.exit(error.status)
