"""A headless Chromium that is used as a reader uses it: real clicks, drags, touches and keys.

    with Browser() as browser:
        browser.open("file:///page.html", width=390)
        browser.drag((100, 100), (150, 80))

It speaks the browser's own protocol (Chrome DevTools Protocol) over two pipes: nothing is installed
and no port is opened. Every request, console message and uncaught error is kept for inspection.
"""

import json
import os
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome")
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}


def path():
    """Path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One browser with one page.

    requests: addresses that the page asked for since it was opened.
    complaints: console errors and warnings and uncaught errors since then.
    """

    def __init__(self, patience=120):
        self.requests, self.complaints = [], []
        self._patience, self._number, self._unread = patience, 0, b""
        self._folder = tempfile.TemporaryDirectory()
        to_browser, self._to = os.pipe()
        self._from, from_browser = os.pipe()
        # Chromium reads from descriptor 3 and writes to 4.
        command = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        options += ["--no-first-run", f"--user-data-dir={self._folder.name}"]
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", path(), *options],
            pass_fds=(to_browser, from_browser),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        self._folder.cleanup()

    def call(self, method, **parameters):
        """The result of a command of the protocol to the page.

        Raises:
          RuntimeError: if the browser refuses it.
          TimeoutError: if it does not answer.
        """
        return self._call(method, self._session, **parameters)

    def open(self, address, *, width=1000, height=900, scripts=True, media=()):
        """Load a page; `media` are (name, value) of media features, such as less motion."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        self.call("Emulation.setTouchEmulationEnabled", enabled=width < 600)
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        features = [{"name": name, "value": value} for name, value in media]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.requests.clear()
        self.complaints.clear()
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def ask(self, expression):
        """The value of a JavaScript expression in the page.

        Raises:
          RuntimeError: if it throws.
        """
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def until(self, expression):
        """Wait for an expression to be true, and return it.

        Raises:
          TimeoutError: if it does not become true.
        """
        end = time.monotonic() + self._patience
        while not (found := self.ask(expression)):
            if time.monotonic() > end:
                raise TimeoutError(f"The page should come to {expression}, but does not.")
            time.sleep(0.05)
        return found

    def middle(self, selector):
        """Where the middle of an element is, after scrolling to it."""
        return self.ask(
            f"(() => {{const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const b = e.getBoundingClientRect();"
            "return [b.left + b.width / 2, b.top + b.height / 2];})()"
        )

    def click(self, selector):
        """Press and release the mouse on an element."""
        place = self.middle(selector)
        self.drag(place, place)

    def drag(self, start, end, *, touch=False, steps=4):
        """From one place to another, with the mouse or with a finger."""
        places = [
            [a + (b - a) * i / steps for a, b in zip(start, end, strict=True)]
            for i in range(steps + 1)
        ]
        kinds = ["Start", *["Move"] * steps] if touch else ["Pressed", *["Moved"] * steps]
        for kind, (x, y) in zip(kinds, places, strict=True):
            self._point(kind, x, y, touch)
        self._point("End" if touch else "Released", *places[-1], touch)

    def press(self, key):
        """One key."""
        code = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, **code)

    def _point(self, kind, x, y, touch):
        if touch:
            points = [] if kind == "End" else [{"x": x, "y": y}]
            self.call("Input.dispatchTouchEvent", type=f"touch{kind}", touchPoints=points)
        else:
            event = {"type": f"mouse{kind}", "x": x, "y": y, "button": "left", "buttons": 1}
            self.call("Input.dispatchMouseEvent", clickCount=1, **event)

    def _call(self, method, session=None, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer.get("method"), answer.get("params", {}))

    def _read(self):
        while b"\0" not in self._unread:
            if not select.select([self._from], [], [], self._patience)[0]:
                raise TimeoutError(f"The browser has not answered for {self._patience} seconds.")
            part = os.read(self._from, 1 << 20)
            if not part:
                raise RuntimeError("The browser has ended.")
            self._unread += part
        answer, _, self._unread = self._unread.partition(b"\0")
        return json.loads(answer)

    def _note(self, event, found):
        if event == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(found["exceptionDetails"])
        elif event == "Runtime.consoleAPICalled" and found["type"] in ("error", "warning"):
            self.complaints.append(found["args"])
        elif event == "Log.entryAdded" and found["entry"]["level"] in ("error", "warning"):
            self.complaints.append(found["entry"])
