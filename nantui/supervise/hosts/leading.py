"""What the supervisor of a run on several hosts does beside its own ranks: gather, watch, wait."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

from nantui.run.attempts import Attempt
from nantui.run.host import host_id
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec
from nantui.supervise.config import Patience
from nantui.supervise.hosts import reports
from nantui.supervise.hosts.blame import blame
from nantui.supervise.hosts.checks import gather_facts
from nantui.supervise.hosts.endpoint import interface_towards, open_endpoint
from nantui.supervise.hosts.lead import Lead
from nantui.supervise.hosts.reports import LOOK_EVERY_S, Silence
from nantui.supervise.hosts.sampling import Sampling
from nantui.supervise.launch import start_leading_node


class Leading:
    """The supervisor's hand on the other hosts; without any, every question is answered at once."""

    def __init__(self, layout: RunLayout, patience: Patience, pids: Callable[[], list[int]]) -> None:
        self._layout, self._patience, self._pids = layout, patience, pids
        self._lead: Lead | None = None
        self._ended: Lead | None = None
        self._waiting = Waiting(layout, patience)
        self._sampling: Sampling | None = None
        self._cwd: str | None = None
        self.note = ""

    @property
    def gathering(self) -> bool:
        """Tell whether the attempt still waits for hosts."""
        return self._lead is not None and self._lead.gathering

    @property
    def text(self) -> str:
        """Who is missing, empty when nobody is."""
        return self._lead.text if self._lead else ""

    def begin(self, attempt: Attempt, cwd: str | None) -> bool:
        """Wait for the hosts of `attempt`; False when they were there already, before an adoption.

        Raises UserError when nothing can listen on its endpoint.
        """
        # This host may have been an agent of an earlier attempt.
        with contextlib.suppress(OSError):
            os.unlink(reports.home_of(self._layout, host_id()) / "agent.json")
        self._lead, self._cwd = Lead(self._layout, attempt, self._patience), cwd
        self._waiting.reset()
        self._sampling = self._sampling or Sampling(self._layout, self._pids)
        return self.gathering

    def gather(self) -> subprocess.Popen[bytes] | None:
        """Start this host's ranks once enough hosts are ready; returns the launcher then, with a `note`."""
        lead = self._lead
        if lead is None or not lead.gathering or not lead.due():
            return None
        roster = lead.gather()
        if roster is None:
            return None
        self.note = "hosts: " + ", ".join(f"{seat.host} (ranks: {seat.devices})" for seat in roster.seats)
        way = interface_towards(lead.attempt.endpoint)
        child = start_leading_node(self._layout, lead.attempt, self._cwd, way, lead.hand_over())
        lead.close()
        return child

    def trouble(self) -> str:
        """Return why another host ends this attempt, empty while none does."""
        lead = self._lead
        return "" if lead is None or lead.gathering or not lead.due() else lead.trouble()

    def blame(self) -> str:
        """Return what happened on another host, once this host's ranks have ended; empty if nothing did."""
        roster = self._lead.roster if self._lead else None
        return blame(self._layout, roster) if roster else ""

    def end(self) -> None:
        """The attempt is over here: listen no longer. What its hosts still do is asked with `still_there`."""
        if self._lead is not None:
            self._lead.close()
            self._ended, self._lead = self._lead, None

    def still_there(self) -> list[str]:
        """Return the hosts on which processes of the attempt that ended last still live."""
        return self._ended.still_there() if self._ended else []

    def wanted(self) -> bool:
        """Tell whether agents wait for a next attempt, so that the supervisor has to stay."""
        return self._ended is not None and self._waiting.anybody()

    def dismiss(self) -> int:
        """Send the waiting agents home: they leave once nobody holds the run. Returns how many there are."""
        count = len(reports.read_reports(self._layout)) if self.wanted() else 0
        self._waiting.dismissed = True
        return count


class Waiting:
    """Tells whether agents wait for the run's next attempt, so that the supervisor stays for them."""

    def __init__(self, layout: RunLayout, patience: Patience) -> None:
        self._layout, self._patience = layout, patience
        self._silence = Silence()
        self._since: float | None = None
        self._answer = False
        self._looked = -LOOK_EVERY_S
        self.dismissed = False

    def reset(self) -> None:
        """An attempt runs: the time in which nothing does begins anew after it."""
        self._since, self.dismissed = None, False

    def anybody(self) -> bool:
        """Tell whether an agent is there and may still be needed."""
        now = time.monotonic()
        self._since = self._since or now
        if self.dismissed or now - self._since > self._patience.hosts_wait_s:
            return False
        if now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            # All are looked at: whoever is not would count as silent at the next look.
            heard = [
                self._silence.heard(report, self._patience.host_silent_s)
                for report in reports.read_reports(self._layout)
            ]
            self._answer = any(heard)
        return self._answer


def several(keeper: Any, spec: Spec) -> dict[str, Any]:
    """Return what an attempt on several hosts records: where they meet, and what must be the same on all.

    Empty for one host. Raises UserError when nothing can listen there, or the interpreter gives no answer.
    """
    if spec.nnodes < 2:
        return {}
    facts = gather_facts(spec.train.get("data"), spec.python, None, keeper.pump)
    listener, endpoint = open_endpoint(spec.endpoint)
    listener.close()
    return {"nnodes": spec.nnodes, "endpoint": endpoint, "facts": facts}
