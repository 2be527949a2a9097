"""The simulator that all checks share, and what its answer sheet says.

It is started at the first use and ended, by closing its standard input, when Python ends.
"""

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
import unittest
import warnings

# How long the simulator may take to make its keys, and to end.
START_SECONDS_MAX = 60
END_SECONDS_MAX = 20


class Services:
    """A running simulator; attributes are the members of its description."""

    def __init__(self):
        program = os.environ["EXFILWATCH_SIMULATOR"]
        self._folder = tempfile.TemporaryDirectory(prefix="exfilwatch-clients-")
        atexit.register(self._folder.cleanup)
        self.folder = self._folder.name
        self._process = subprocess.Popen(
            [program, self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self._end)
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{program} ended at once (exit code {self._process.wait()})")
        description = json.loads(line)
        self.ca_file = description["ca_file"]
        self.tenant = description["tenant"]
        self.domain = description["domain"]
        self.admin = description["admin"]
        self.people = description["people"]
        self.microsoft = description["microsoft"]
        self.google = description["google"]
        self._sheet_file = description["sheet_file"]
        # Each of the clients' HTTP libraries has a variable of its own; none may use a proxy.
        os.environ["REQUESTS_CA_BUNDLE"] = self.ca_file
        os.environ["HTTPLIB2_CA_CERTS"] = self.ca_file
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            os.environ.pop(name, None)
            os.environ.pop(name.upper(), None)
        os.environ["NO_PROXY"] = "127.0.0.1"

    def _end(self):
        self._process.stdin.close()
        try:
            code = self._process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code != 0:
            print(f"error: the simulator ended with exit code {code}", file=sys.stderr)
            os._exit(1)

    @functools.cached_property
    def sheet(self):
        """{stream: [(id, event time in ms, record)]}, in the order of event time."""
        streams = {}
        with open(self._sheet_file, encoding="utf-8") as lines:
            for line in lines:
                entry = json.loads(line)
                about = entry["about"]
                row = (about["id"], about["event_ms"], entry["body"])
                streams.setdefault(about["stream"], []).append(row)
        return streams

    def records_of(self, prefix):
        """{name of the stream behind the prefix: its rows of the sheet}."""
        return {
            stream.removeprefix(prefix): rows
            for stream, rows in self.sheet.items()
            if stream.startswith(prefix)
        }


def read(path):
    """A file's text."""
    with open(path, encoding="utf-8") as file:
        return file.read()


@functools.cache
def services():
    """The one simulator of this run."""
    return Services()


class TestCase(unittest.TestCase):
    """A test of the shared simulator, at hand as `services`."""

    maxDiff = 4000

    @classmethod
    def setUpClass(cls):
        # googleapiclient leaves connections for the garbage collector to close.
        warnings.simplefilter("ignore", ResourceWarning)
        cls.services = services()
