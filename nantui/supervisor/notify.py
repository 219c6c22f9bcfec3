"""Tell somebody who is not looking: a command or a URL from the user's own configuration.

```yaml
notify:
  command: [notify-send, "{event}", "{run}: {text}"]   # no shell; placeholders are replaced
  url: https://example.org/hook                        # gets a JSON object by POST, or any Apprise URL
  on: [incident, diverged, failed, finished, stalled]  # default: these, lost, recovered, rewound
```
`suspicion` is told only where it stands in `on`. It runs as a process of its own, so that a slow network
never holds up the supervisor; the URL reaches it through its standard input and stands in no log, journal or
command line. What a command or a library says itself is not kept either: it may repeat a URL, and a URL may
hold a secret.
"""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from nantui import entry_points
from nantui.run.documents import JsonObject
from nantui.terminal_text import printable

RECOVERED, REWOUND = "recovered", "rewound"
DEFAULT_ON = ("incident", "diverged", "failed", "finished", "stalled", "lost", RECOVERED, REWOUND)
TIMEOUT_S = 20.0


def tell(
    config: JsonObject, run: Path, event: str, text: str, say: Callable[[str], None]
) -> subprocess.Popen[bytes] | None:
    """Start the notifier and return its process, None where there is nothing to do. Never raises."""
    if event not in (config.get("on") or DEFAULT_ON) or not (config.get("command") or config.get("url")):
        return None
    message = {"run": str(run), "event": event, "text": printable(text)}
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", entry_points.NOTIFY],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        with contextlib.suppress(BrokenPipeError):
            assert child.stdin is not None, "asked for a pipe"
            child.stdin.write(json.dumps({"config": dict(config), "message": message}).encode())
            child.stdin.close()
    except OSError as error:
        say(f"cannot notify: {error.strerror}")
        return None
    return child


def main() -> int:
    """Read one request from standard input and deliver it; what goes wrong is said without the URL."""
    logging.disable()
    request = json.load(sys.stdin)
    config, message = request["config"], request["message"]
    problems = []
    for way in (by_command, by_url):
        try:
            way(config, message)
        except subprocess.CalledProcessError as error:
            problems.append(f"notify {way.__name__}: exit status {error.returncode}")
        except Exception as error:  # a notifier must never do more harm than not to notify
            problems.append(f"notify {way.__name__}: {type(error).__name__}")
    print("\n".join(problems), end="\n" if problems else "", file=sys.stderr)
    return 1 if problems else 0


def by_command(config: JsonObject, message: Mapping[str, str]) -> None:
    """Run the user's command, each word with its placeholders replaced, no shell anywhere."""
    command = config.get("command")
    if command:
        words = [command] if isinstance(command, str) else command
        told = [fill(str(word), message) for word in words]
        subprocess.run(told, timeout=TIMEOUT_S, check=True, stderr=subprocess.DEVNULL)


def fill(word: str, message: Mapping[str, str]) -> str:
    """Replace {run}, {event} and {text}; other braces are left alone."""
    for name, value in message.items():
        word = word.replace("{" + name + "}", value)
    return word


def by_url(config: JsonObject, message: Mapping[str, str]) -> None:
    """POST JSON to an http(s) URL; any other scheme goes to Apprise, if that is installed."""
    url = str(config.get("url") or "")
    if url.startswith(("http://", "https://")):
        from urllib.request import Request, urlopen

        body = json.dumps(message).encode()
        urlopen(Request(url, body, {"Content-Type": "application/json"}), timeout=TIMEOUT_S).close()
    elif url:
        import apprise

        messenger = apprise.Apprise()
        messenger.add(url)
        if not messenger.notify(
            title=f"nantui: {message['event']}", body=f"{message['run']}: {message['text']}"
        ):
            raise RuntimeError("not delivered")


if __name__ == "__main__":
    raise SystemExit(main())
