"""Looks at HTML pages as people do: in Chromium, on a desktop and on a phone, light, dark and on paper.

    browser.py --browser CHROMIUM --axe axe.min.js --out FOLDER PAGE.html ...

Writes a screenshot of every look and a PDF of every page into the folder, and prints one line of JSON a look: what the
accessibility checker axe-core finds, what the page asked the network for, what the browser complained about, and whether
the page is wider than the window. Ends with 1 if there is anything of that.
"""

import argparse
import base64
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import websocket

# How long the browser may take for anything, on a slow machine.
DEADLINE_S = 120

DESKTOP, PHONE = (1280, 900), (390, 844)


class Browser:
    """A Chromium that is spoken to by its DevTools protocol."""

    def __init__(self, program, libraries):
        self.folder = tempfile.TemporaryDirectory(prefix="browser-")
        environment = dict(os.environ)
        if libraries:
            environment["LD_LIBRARY_PATH"] = str(libraries / "lib")
            environment["FONTCONFIG_PATH"] = str(libraries)
        arguments = [
            program, "--headless", "--no-sandbox", "--no-zygote", "--disable-gpu", "--disable-dev-shm-usage",
            "--hide-scrollbars", "--no-first-run", "--remote-debugging-port=0", "--remote-allow-origins=*",
            f"--user-data-dir={self.folder.name}/profile", "about:blank",
        ]
        self.log = open(f"{self.folder.name}/log", "w+b")
        self.process = subprocess.Popen(arguments, env=environment, stdout=self.log, stderr=self.log)
        port = pathlib.Path(self.folder.name, "profile", "DevToolsActivePort")
        deadline = time.monotonic() + DEADLINE_S
        while not (port.exists() and len(port.read_text().split()) == 2):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.log.seek(0)
                sys.exit(f"{program} did not start:\n{self.log.read().decode(errors='replace')}")
            time.sleep(0.05)
        number, path = port.read_text().split()
        self.socket = websocket.create_connection(f"ws://127.0.0.1:{number}{path}", timeout=DEADLINE_S)
        self.numbers = itertools.count(1)
        self.events = []

    def call(self, method, session=None, **parameters):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == number:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait(self, method):
        while True:
            for at, event in enumerate(self.events):
                if event.get("method") == method:
                    return self.events.pop(at)
            self.events.append(json.loads(self.socket.recv()))

    def close(self):
        self.socket.close()
        self.process.kill()
        self.process.wait()
        self.log.close()
        self.folder.cleanup()


def evaluate(browser, tab, expression):
    answer = browser.call("Runtime.evaluate", tab, expression=expression, awaitPromise=True, returnByValue=True)
    if "exceptionDetails" in answer:
        sys.exit(f"the page threw: {answer['exceptionDetails']}")
    return answer["result"].get("value")


def look(browser, axe, page, out, size, scheme):
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    tab = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    width, height = size
    is_phone = size == PHONE
    browser.call("Emulation.setDeviceMetricsOverride", tab, width=width, height=height,
                 deviceScaleFactor=2 if is_phone else 1, mobile=is_phone)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.call("Emulation.setEmulatedMedia", tab, media="", features=features)
    for domain in ["Page", "Network", "Log", "Runtime"]:
        browser.call(f"{domain}.enable", tab)
    browser.events.clear()
    url = page.resolve().as_uri()
    browser.call("Page.navigate", tab, url=url)
    browser.wait("Page.loadEventFired")
    evaluate(browser, tab, axe)
    # Hidden parts are looked at as well.
    evaluate(browser, tab, "document.querySelectorAll('details').forEach(it => it.open = true)")
    found = evaluate(browser, tab, """axe.run(document, {resultTypes: ['violations']}).then(result => ({
        passes: result.passes.length,
        violations: result.violations.map(it => ({rule: it.id, help: it.help, where: it.nodes.slice(0, 5).map(
            node => ({html: node.html.slice(0, 200), why: node.failureSummary}))}))}))""")
    overflow = evaluate(browser, tab, "document.documentElement.scrollWidth - window.innerWidth")
    evaluate(browser, tab, "document.querySelectorAll('details').forEach(it => it.open = false)")
    sent = [event for event in browser.events if event.get("method") == "Network.requestWillBeSent"]
    requests = [event["params"]["request"]["url"] for event in sent]
    logged = [event for event in browser.events if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")]
    name = f"{page.stem}-{'phone' if is_phone else 'desktop'}-{scheme}"
    shot = browser.call("Page.captureScreenshot", tab, format="png", captureBeyondViewport=True)
    (out / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))
    if size == DESKTOP and scheme == "dark":
        # On paper it is light, whatever the screen is.
        paper = browser.call("Page.printToPDF", tab, printBackground=True, preferCSSPageSize=True)
        (out / f"{page.stem}.pdf").write_bytes(base64.b64decode(paper["data"]))
    browser.call("Target.closeTarget", targetId=target)
    return {
        "look": name,
        "rules_passed": found["passes"],
        "violations": found["violations"],
        "requests": [request for request in requests if request != url],
        "complaints": [event["params"] for event in logged],
        "wider_than_window": max(0, overflow),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browser", required=True)
    parser.add_argument("--libraries", type=pathlib.Path, help="a folder with what the browser needs and the machine may lack")
    parser.add_argument("--axe", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("pages", type=pathlib.Path, nargs="+")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    axe = arguments.axe.read_text()
    browser = Browser(arguments.browser, arguments.libraries)
    is_good = True
    try:
        for page, size, scheme in itertools.product(arguments.pages, [DESKTOP, PHONE], ["light", "dark"]):
            seen = look(browser, axe, page, arguments.out, size, scheme)
            is_good &= seen["rules_passed"] > 0
            is_good &= not any(seen[fault] for fault in ["violations", "requests", "complaints", "wider_than_window"])
            print(json.dumps(seen), flush=True)
    finally:
        browser.close()
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
