"""How an attempt ended: every kind, and the rules that tell them apart.

A rule reads what is left of an attempt: the ranks' last words, the lines of the log that say why, the exit
status, signals, and what the kernel counted. The ranks' own words decide where they are clear; a rank that
only tells of another one, or of a loader's worker, sends the rules to the log.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nantui.run.attempts import DIVERGED as DIVERGED_OUTCOME
from nantui.run.attempts import FINISHED, STOPPED
from nantui.run.documents import table
from nantui.run.events import AttemptEnded
from nantui.terminal_text import printable, without_sequences

CUDA_OOM, HOST_OOM, LOADER, CUDA_ERROR = "cuda_oom", "host_oom", "loader", "cuda_error"
COLLECTIVE, HUNG, KILLED, PREEMPTED = "collective", "hung", "killed", "preempted"
REBOOTED, HOST_LOST, DISK_FULL, DATA_GONE = "rebooted", "host_lost", "disk_full", "data_gone"
EXCEPTION, BAD_ARGUMENTS, DIVERGED = "exception", "bad_arguments", "diverged"


@dataclass(frozen=True)
class EndingKind:
    """`title` stands on screens, `remedy` is what `--auto` does; `most` is how often in a row without an
    epoch gained (0: nothing is done by itself). The kinds themselves are in configs/tables/endings.json.
    """

    title: str
    remedy: str
    most: int = 0


ENDINGS: Mapping[str, EndingKind] = {name: EndingKind(**row) for name, row in table("endings").items()}
MOST_IN_A_ROW = 12
"""How often in all an attempt is made by itself without an epoch gained, whatever ended the ones before."""


@dataclass(frozen=True)
class Cause:
    """The kind of an ending ("" for one that needs no explanation), and the evidence in one line."""

    kind: str = ""
    evidence: str = ""

    @property
    def text(self) -> str:
        """Both in one line; nothing is called an exception that names none."""
        if self.kind == EXCEPTION and self.evidence.startswith(WORDLESS):
            return self.evidence
        if self.kind == EXCEPTION and not _RAISED.search(self.evidence):
            return f"no exception was seen; its last words: {self.evidence}"
        return f"{ENDINGS[self.kind].title}: {self.evidence}" if self.kind else self.evidence

    @property
    def requeue(self) -> bool:
        """Whether the same command helps after it, on this host or another."""
        return self.kind in {PREEMPTED, REBOOTED, HOST_LOST}


@dataclass(frozen=True)
class Traces:
    """What is left of an attempt. `outcome` is as told by the exit files or its supervisor; `said` are the
    ranks' last words, the worst first; `signals` those that ranks or their supervisor got from outside,
    `silent` whether a rank left none, `seen` whether somebody watched the end. `code` is the exit status as
    Popen gives it. `killed_by` names a person, `hung` says what hung, `elsewhere` what became of another
    host. `oom_kills` counts what the kernel killed for lack of memory meanwhile (None: not known), `new_boot`
    and `job_over` tell that the host or its batch job is another one now. `trained` is False where the run
    never took a step; `missing` is data that is not there, `full` a disk of the run without any room,
    `gpu` how the hardware of a GPU failed meanwhile.
    """

    outcome: str = ""
    said: Sequence[str] = ()
    log: str = ""
    ranks: int = 1
    code: int | None = None
    signals: Sequence[str] = ()
    silent: bool = False
    killed_by: str = ""
    hung: str = ""
    elsewhere: str = ""
    oom_kills: int | None = None
    new_boot: bool = False
    job_over: str = ""
    seen: bool = True
    trained: bool = True
    missing: str = ""
    full: bool = False
    gpu: str = ""


EXCEPTION_LINE = re.compile(
    r"^(?:\[rank\d+\]:\s*)?"
    r"((?:[A-Za-z_][\w.]*\.)?(?:[A-Z]\w*(?:Error|Exception|Interrupt|Exit)|error(?=: ))\b.*)"
)
_NAMED = re.compile(r"(\w+\.)*[A-Z]\w+(?=[:;]|$)")
"""How `last_words` begins, also for an exception that is no Error by its name: BadZipFile, TrialPruned."""
_RAISED = re.compile(
    r"\b\w*(Error|Exception|Interrupt|Exit)\b|\berror: |(^|: )(\w+\.)*([A-Z][a-z]+){2,}([:;]|$)"
    r"|^(\w+\.)+[A-Z]\w*([:;]|$)"
)
WORDLESS = ("killed by ", "its process ended ", "it ended ", "ended without ")
READING = "while reading "
"""What is noted of an exception begins with this; the image follows."""
SPEAKS = re.compile(
    r"slurmstepd: error|srun: error|what\(\):|exitcode\s*:|Watchdog|^Killed$|^Terminated$|Bus error|bus error"
    rf"|[oO]ut of memory: Kill|oom[-_]kill|Xid|Fatal Python error|: error: |Pin memory thread|^{READING}"
)
ECHO = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|gloo|nccl|process ?group|DistBackendError"
    r"|DistNetworkError|DistStoreError|torch\.distributed|socket|Watchdog caught|Rendezvous",
    re.IGNORECASE,
)
"""What a rank says that has lost the others."""
VAGUE = re.compile(r"^(\w+\.)*\w*[Ee]rror: Caught \w+ in |DataLoader worker|^$")
"""Last words whose reason stands in the log."""
FAR_BACK = 400
"""Lines of a log in which the reason is looked for."""

_WORDS: Mapping[str, re.Pattern[str]] = {
    HOST_OOM: re.compile(
        r"Insufficient memory|DefaultCPUAllocator|\bMemoryError|Unable to allocate .+ for an array"
        r"|oom[-_ ]kill|Out of memory: Kill|std::bad_alloc|: Out Of Memory$|\[Errno 12\]"
    ),
    CUDA_OOM: re.compile(
        r"(cuda|hip|gpu).{0,60}out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED"
        r"|unable to find an engine|CUDNN_STATUS_INTERNAL_ERROR",
        re.IGNORECASE,
    ),
    LOADER: re.compile(
        r"insufficient shared memory|bus error|/dev/shm|</?torch_\d+|ancdata|Pin memory thread exited"
        r"|DataLoader worker .*(killed by signal|exited unexpectedly)|\[Errno 24\]",
        re.IGNORECASE,
    ),
    DISK_FULL: re.compile(
        r"\[Errno (28|122)\]|No space left|quota exceeded|PytorchStreamWriter failed|unexpected pos \d",
        re.IGNORECASE,
    ),
    DATA_GONE: re.compile(
        r"Stale (NFS )?file handle|Transport endpoint is not connected|\[Errno (5|19|107|112|116|121)\]"
        r"|Input/output error|Remote I/O error|Host is down|Image Not Found"
    ),
    CUDA_ERROR: re.compile(
        r"CUDA error|CUDA_ERROR_|cudaError|CUBLAS_STATUS|CUDNN_STATUS|cuDNN error|Xid|fallen off the bus"
        r"|GPU is lost|No CUDA GPUs are available|CUDA driver|cuda runtime error|unspecified launch failure"
    ),
}  # fmt: skip
"""In this order: the narrower first (full shared memory is also 'no space left')."""
_PREEMPTED = re.compile(r"DUE TO (PREEMPTION|TIME LIMIT|JOB REQUEUE)")
_PASSED_ON = re.compile(r"got signal: (15|10)\b|^Terminated$")
"""What torchrun and a shell say of a signal: also of our own, where something else had ended the worker."""
_WRONG = re.compile(
    r"is not a valid|is of invalid type|invalid (choice|literal)|: error: |[Dd]ataset .*(not found|error)"
    r"|does not exist|[Nn]o such file|FileNotFoundError|Invalid CUDA"
)
_IMAGE = re.compile(r"Caught \w+ in DataLoader worker process|^(cv2\.)?error: OpenCV|UnidentifiedImageError")
_EXIT = re.compile(r"exitcode\s*:\s*(-\d+)")
Rule = Callable[[Traces, Sequence[str]], "Cause | None"]


def classify(traces: Traces) -> Cause:
    """Return the kind of the ending and its evidence."""
    lines = speaking_lines(traces)
    found = next((cause for rule in _RULES if (cause := rule(traces, lines)) is not None), None)
    if found is None:
        clear = _first([line for line in lines if not VAGUE.search(line)]) or _first(lines)
        read = "reading or augmenting an image failed: " if any(map(_IMAGE.search, lines)) else ""
        clear = clear or _last_line(traces.log) or "it ended without a word"
        image = next((f" ({line})" for line in lines if line.startswith(READING)), "")
        found = Cause(EXCEPTION, f"{read}{clear}{image}")
    wordless = found.kind == EXCEPTION and not any(map(EXCEPTION_LINE.match, lines))
    if traces.gpu and (wordless or found.kind in {CUDA_ERROR, COLLECTIVE, HUNG}):
        found = Cause(found.kind if found.kind == HUNG else CUDA_ERROR, f"{traces.gpu}; {found.evidence}")
    return Cause(found.kind, printable(found.evidence, 400))


def speaking_lines(traces: Traces) -> list[str]:
    """Return the lines that may tell the reason: the ranks' words, and the log's where these are vague."""
    said = [text for text in traces.said if text]
    if said and not traces.silent and not all(VAGUE.search(text) or ECHO.search(text) for text in said):
        return said
    errors = (line for line in _lines(traces.log) if EXCEPTION_LINE.match(line) or SPEAKS.search(line))
    return [*said, *errors]


def _lines(log: str) -> list[str]:
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", without_sequences(log)) if line.strip()]
    return [re.sub(r"^\[rank\d+\]:\s*(?=\w+(\.\w+)*:)", "", line) for line in lines[-FAR_BACK:]]


def _told(traces: Traces, lines: Sequence[str]) -> Cause | None:
    """What somebody knows for certain: the guard, a person, the supervisor, every rank of a signal."""
    first = _first(traces.said)
    if traces.killed_by:
        return Cause(KILLED, f"killed by {traces.killed_by}")
    if traces.outcome == DIVERGED_OUTCOME:
        return Cause(DIVERGED, first)
    told = [name for name in traces.signals if name]
    every = all(traces.signals) and not traces.silent
    if told and (traces.outcome == STOPPED or (every and traces.outcome != FINISHED)):
        return Cause(PREEMPTED, f"{told[0]}; {first}" if first else told[0])
    if traces.hung:  # a loader's worker that cannot hand a batch over only prints why: it is waited for
        full = next((line for line in lines if _WORDS[LOADER].search(line)), "")
        return Cause(LOADER, f"{full}; {traces.hung}") if full else Cause(HUNG, traces.hung)
    if traces.outcome in {FINISHED, STOPPED}:
        return Cause("", first)
    if traces.elsewhere:
        return Cause(HOST_LOST, traces.elsewhere)
    return Cause(REBOOTED, "this is another boot, or another container") if traces.new_boot else None


def _kernel_killed(traces: Traces, lines: Sequence[str]) -> Cause | None:
    killed = _signal(traces, lines) == signal.SIGKILL or not traces.seen
    if traces.oom_kills and (killed or any("signal: Killed" in line for line in lines)):
        return Cause(HOST_OOM, f"the kernel killed {traces.oom_kills} processes for lack of memory meanwhile")
    return None


def _by_words(traces: Traces, lines: Sequence[str]) -> Cause | None:
    for kind, words in _WORDS.items():
        found = next((line for line in lines if words.search(line)), "")
        if found and (kind != DATA_GONE or traces.trained):
            return Cause(kind, found)
    return Cause(DATA_GONE, f"{traces.missing} is not there") if traces.missing and traces.trained else None


def _by_signal(traces: Traces, lines: Sequence[str]) -> Cause | None:
    """A signal that no rank could speak of any more."""
    number, last = _signal(traces, lines), _last_line(traces.log)
    words = (_PREEMPTED, _PASSED_ON) if not traces.seen or (traces.code and not number) else (_PREEMPTED,)
    cancelled = next((line for line in _lines(traces.log) if any(one.search(line) for one in words)), "")
    if "DUE TO NODE FAIL" in traces.log:
        return Cause(HOST_LOST, "Slurm: DUE TO NODE FAILURE")
    if cancelled or number in {signal.SIGTERM, signal.SIGUSR1}:
        return Cause(PREEMPTED, cancelled or f"{signal.Signals(number).name}; last words: {last or 'none'}")
    if not traces.seen:
        over, gone = traces.job_over, "gone without a word, on the same boot: everything was killed"
        return Cause(PREEMPTED, f"batch job {over} is over") if over else Cause(KILLED, gone)
    if number == signal.SIGBUS:
        return Cause(LOADER, "SIGBUS: memory behind a file went away, shared memory as a rule")
    if number in {signal.SIGKILL, signal.SIGINT, signal.SIGHUP}:
        counted = ", and the kernel counts no lack of memory" if traces.oom_kills == 0 else ""
        return Cause(KILLED, f"{signal.Signals(number).name}{counted}; last words: {last or 'none'}")
    interrupted = next((line for line in lines if "KeyboardInterrupt" in line or line == "interrupted"), "")
    return Cause(KILLED, interrupted) if interrupted or "CANCELLED AT" in traces.log else None


def _collective(traces: Traces, lines: Sequence[str]) -> Cause | None:
    found = next((line for line in lines if ECHO.search(line)), "")
    return Cause(COLLECTIVE, found) if found and traces.ranks > 1 else None


def _arguments(traces: Traces, lines: Sequence[str]) -> Cause | None:
    """What never took a step and says what is wrong; and refusals of nantui's own, without an exception."""
    raised = (EXCEPTION_LINE, _NAMED)
    own = next((text for text in traces.said if text and not any(one.match(text) for one in raised)), "")
    wrong = next((line for line in lines if _WRONG.search(line)), "") if not traces.trained else ""
    return Cause(BAD_ARGUMENTS, own or wrong) if own or wrong else None


def _full(traces: Traces, lines: Sequence[str]) -> Cause | None:
    """A full disk takes no last words."""
    return Cause(DISK_FULL, "the run's disk is full, and no rank could say anything") if traces.full else None


_RULES: tuple[Rule, ...] = (_told, _kernel_killed, _by_words, _by_signal, _collective, _full, _arguments)


def _signal(traces: Traces, lines: Sequence[str]) -> int:
    """Return the signal that ended the worker or, as torchrun's log has it, one of its ranks; else 0."""
    codes = [int(found[1]) for line in lines if (found := _EXIT.search(line))]
    code = next((one for one in codes if one != -signal.SIGTERM), traces.code or 0)
    number = -code if code < 0 else code - 128 if code > 128 else 0
    return number if number in {one.value for one in signal.Signals} else 0


def _first(texts: Sequence[str]) -> str:
    return next(filter(None, texts), "")


def _last_line(log: str) -> str:
    return next(iter(_lines(log)[-1:]), "")


def cause_of(ended: AttemptEnded) -> Cause:
    """Return why an attempt ended; in the journal of an older version its text has to tell."""
    if ended.cause:
        return Cause(ended.cause, ended.evidence)
    return classify(Traces(ended.outcome, said=[ended.text]))


def each_remedy() -> Iterator[str]:
    """Yield what `--auto` does about each kind, a line each."""
    for kind in ENDINGS.values():
        often = f" (at most {kind.most} times without an epoch gained)" if kind.most else ""
        yield f"{kind.title}: {kind.remedy}{often}"
