"""Drives a headless Chromium through the DevTools protocol, as much of it as the demo's tests need."""

import base64
import contextlib
import json
import queue
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-renderer-backgrounding",
    "--disable-sync",
    "--remote-debugging-port=0",
)

UNTIL = """
new Promise((resolve, reject) => {
  const holds = () => %(condition)s;
  const watcher = new MutationObserver(() => { if (holds()) done(resolve, true); });
  const timer = setTimeout(() => done(reject, new Error("not so after %(timeout)s s; the page reads: " +
    document.body.dataset.state + " | " + document.body.innerText)), %(timeout)s * 1000);
  function done(settle, value) { watcher.disconnect(); clearTimeout(timer); settle(value); }
  watcher.observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
  if (holds()) done(resolve, true);
})
"""


class Process:
    """A process that is of use once it has said something that ``pattern`` finds; it ends with the block."""

    def __init__(self, command: list[str], pattern: str, *, env: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._found: queue.Queue[re.Match[str] | None] = queue.Queue()
        self._said: list[str] = []
        self._reader = threading.Thread(target=self._read, args=(re.compile(pattern),))
        self._reader.start()

    def _read(self, pattern: re.Pattern[str]) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._said.append(line)
                if match := pattern.search(line):
                    self._found.put(match)
        self._found.put(None)

    def said(self, timeout: float = 20) -> re.Match[str]:
        match = self._found.get(timeout=timeout)
        assert match is not None, f"it ended instead: {''.join(self._said)}"
        return match

    def freeze(self) -> None:
        """It stands still, its connections stay open."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """It ends without a word."""
        self._process.kill()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=10)
            raise
        finally:
            self._reader.join(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Browser:
    """One Chromium; each of its `profile`s has storage of its own, as another person's browser has."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._count = 0
        self.complaints: list[str] = []
        """What the pages threw, and what the browser blocked on them."""

    def command(self, method: str, params: dict[str, Any] | None = None, session: str | None = None) -> Any:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params or {}}
        self._connection.send(json.dumps(message if session is None else {**message, "sessionId": session}))
        while True:
            answer = json.loads(self._connection.recv(timeout=30))
            if answer.get("id") == self._count:
                assert "error" not in answer, f"{method}: {answer['error']['message']}"
                return answer["result"]
            self._note(answer)

    def _note(self, event: Any) -> None:
        if event["method"] == "Runtime.exceptionThrown":
            details = event["params"]["exceptionDetails"]
            self.complaints.append(details.get("exception", details).get("description", str(details)))
        elif event["method"] == "Log.entryAdded" and event["params"]["entry"]["source"] != "network":
            self.complaints.append(event["params"]["entry"]["text"])

    def profile(self) -> str:
        context: str = self.command("Target.createBrowserContext")["browserContextId"]
        return context

    def tab(self, url: str, profile: str, *, width: int = 1280, height: int = 800) -> "Tab":
        tab = Tab(self, profile)
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        tab.command("Emulation.setDeviceMetricsOverride", screen)
        tab.command("Page.navigate", {"url": url})
        return tab


class Tab:
    """One page in the browser."""

    def __init__(self, browser: Browser, profile: str) -> None:
        self._browser = browser
        target = browser.command("Target.createTarget", {"url": "about:blank", "browserContextId": profile})
        self._target = target["targetId"]
        attached = browser.command("Target.attachToTarget", {"targetId": self._target, "flatten": True})
        self._session: str = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.command(f"{domain}.enable")
        self.command("Emulation.setFocusEmulationEnabled", {"enabled": True})

    def command(self, method: str, params: dict[str, Any] | None = None) -> Any:
        return self._browser.command(method, params, self._session)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, awaited if it is a promise."""
        params = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = self.command("Runtime.evaluate", params)
        details = answer.get("exceptionDetails")
        assert details is None, f"{expression}: {details['exception'].get('description', details)}"
        return answer["result"].get("value")

    def until(self, condition: str, timeout: float = 10) -> None:
        """Wait for the page to change so that the condition, an expression of JavaScript, holds."""
        self.evaluate(UNTIL % {"condition": condition, "timeout": timeout})

    def text(self, selector: str) -> str:
        value: str = self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")
        return value

    def texts(self, selector: str) -> list[str]:
        query = f"[...document.querySelectorAll({json.dumps(selector)})].map((found) => found.textContent)"
        values: list[str] = self.evaluate(query)
        return values

    def until_text(self, selector: str, text: str, timeout: float = 10) -> None:
        """Wait until one of the elements that ``selector`` finds has this text in it."""
        query = f"[...document.querySelectorAll({json.dumps(selector)})]"
        self.until(f"{query}.some((found) => found.textContent.includes({json.dumps(text)}))", timeout)

    def write(self, selector: str, text: str) -> None:
        """Type into a field, in place of what is there."""
        field = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"({field}.focus(), {field}.select())")
        self.command("Input.insertText", {"text": text})

    def enter(self) -> None:
        """Press the Enter key."""
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        self.command("Input.dispatchKeyEvent", {"type": "keyDown", **key})
        self.command("Input.dispatchKeyEvent", {"type": "keyUp", **key})

    def click(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def screenshot(self, path: Path) -> None:
        picture = self.command("Page.captureScreenshot", {"format": "png"})["data"]
        path.write_bytes(base64.b64decode(picture))

    def close(self) -> None:
        self._browser.command("Target.closeTarget", {"targetId": self._target})


@contextlib.contextmanager
def launch(folder: Path) -> Iterator[Browser]:
    """Start Chromium with its profile in ``folder``."""
    assert BINARY is not None
    command = [BINARY, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    with Process(command, r"DevTools listening on (ws://\S+)") as process:
        url = process.said()[1]
        with connect(url, max_size=None, compression=None) as connection:
            browser = Browser(connection)
            yield browser
            browser.command("Browser.close")
