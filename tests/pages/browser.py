"""A headless Chromium, driven by chromedriver over the WebDriver protocol: no package needed."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
START_TIMEOUT_S = 20
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=900,900"]


def missing() -> str | None:
    """Why there is no browser here, or None."""
    if not shutil.which("chromedriver"):
        return "chromedriver is not installed (Debian: apt-get install chromium chromium-driver)"
    if not _binary():
        return "Chromium is not installed (Debian: apt-get install chromium)"
    return None


def _binary() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One browser window. Close it when done."""

    def __init__(self, profile: Path):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        try:
            self._wait_until_ready()
            options = {"binary": _binary(), "args": [*ARGUMENTS, f"--user-data-dir={profile}"]}
            wanted = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
            self._session = self._value(self._http.post("/session", json={"capabilities": wanted}))["sessionId"]
        except BaseException:
            self._driver.kill()
            self._driver.wait()
            self._http.close()
            raise

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                if self._value(self._http.get("/status"))["ready"]:
                    return
            except httpx.TransportError:
                assert time.monotonic() < deadline, "chromedriver does not start"
            time.sleep(0.05)

    def close(self) -> None:
        """Ends browser and driver."""
        try:
            self._http.delete(f"/session/{self._session}")
        finally:
            self._driver.terminate()
            self._driver.wait()
            self._http.close()

    def open(self, url: str) -> None:
        """Loads a page."""
        self._post("url", {"url": url})

    def new_tab(self) -> str:
        """Opens a tab and goes to it; returns its handle."""
        handle = str(self._post("window/new", {"type": "tab"})["handle"])
        self.switch(handle)
        return handle

    def switch(self, handle: str) -> None:
        """Goes to a tab."""
        self._post("window", {"handle": handle})

    @property
    def tab(self) -> str:
        """The handle of the tab in front."""
        return str(self._get("window"))

    @property
    def url(self) -> str:
        """The address in the address bar."""
        return str(self._get("url"))

    @property
    def title(self) -> str:
        return str(self._get("title"))

    def text(self, selector: str) -> str:
        """The visible text of the first element that matches a CSS selector."""
        return str(self._get(f"element/{self._find(selector)}/text"))

    def role_and_name(self, selector: str) -> tuple[str, str]:
        """How assistive technology sees an element."""
        element = self._find(selector)
        return str(self._get(f"element/{element}/computedrole")), str(self._get(f"element/{element}/computedlabel"))

    def click(self, selector: str) -> None:
        """Clicks on what leads to another page, and waits until that is there."""
        self._go(f"element/{self._find(selector)}/click", {})

    def press_enter(self, selector: str) -> None:
        """As `click`, by the keyboard."""
        self._go(f"element/{self._find(selector)}/value", {"text": "\ue007"})

    def _go(self, path: str, body: dict[str, Any]) -> None:
        self.run("window.isLeft = true")
        self._post(path, body)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.run("return window.isLeft === undefined && document.readyState === 'complete'"):
            assert time.monotonic() < deadline, "it led nowhere"
            time.sleep(0.02)

    def run(self, script: str) -> Any:
        """The value of a script run in the page."""
        return self._post("execute/sync", {"script": script, "args": []})

    def screenshot(self, path: Path) -> None:
        """Writes what is to be seen as PNG."""
        path.write_bytes(base64.b64decode(self._get("screenshot")))

    def _find(self, selector: str) -> str:
        return str(self._post("element", {"using": "css selector", "value": selector})[ELEMENT])

    def _get(self, path: str) -> Any:
        return self._value(self._http.get(f"/session/{self._session}/{path}"))

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._value(self._http.post(f"/session/{self._session}/{path}", json=body))

    @staticmethod
    def _value(answer: httpx.Response) -> Any:
        value = answer.json()["value"]
        assert answer.status_code == 200, f"{value['error']}: {value['message']}"
        return value
