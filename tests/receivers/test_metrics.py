"""What Prometheus' own linter says of /metrics of a running service."""

import os
import pathlib
import re
import subprocess
import sys
import urllib.request

from receivers import TestCase, free_port, until

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "clients"))
from services import services  # noqa: E402

METRICS_SECONDS_MAX = 60


def classic(text):
    """OpenMetrics in the older form that promtool reads: there the family of a counter bears the
    `_total` of its samples."""
    counters = re.findall(r"^# TYPE (\S+) counter$", text, re.MULTILINE)
    for name in counters:
        text = re.sub(rf"^# (HELP|TYPE) {name} ", rf"# \1 {name}_total ", text, flags=re.MULTILINE)
    return text


class Metrics(TestCase):
    def test_promtool_finds_no_fault(self):
        simulated = services()
        microsoft = simulated.microsoft
        port = free_port()
        config = self.folder / "exfilwatch.toml"
        config.write_text(f"""
[state]
folder = "{self.folder}/state"

[serve]
listen = "127.0.0.1:{port}"

[tenants.{simulated.tenant}]
internal_domains = ["{simulated.domain}"]

[connectors.office365.main]
tenant = "{simulated.tenant}"
tenant_id = "{microsoft['tenant_id']}"
client_id = "{microsoft['client_id']}"
client_secret = {{ file = "{microsoft['client_secret_file']}" }}
api_root = "{microsoft['url']}"
login_root = "{microsoft['url']}"
ca_file = "{simulated.ca_file}"

[emitters.ndjson.main]
path = "{self.folder}/{{kind}}.ndjson"
send = ["events", "findings"]
""", encoding="utf-8")
        log = open(self.folder / "run.log", "wb")
        self.addCleanup(log.close)
        process = subprocess.Popen(
            [os.environ["EXFILWATCH"], "run", "--config", str(config)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def delivering():
            self.assertIsNone(process.poll(), (self.folder / "run.log").read_text()[-3000:])
            try:
                with direct.open(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    text = answer.read().decode()
            except OSError:
                return None
            return text if (self.folder / "events.ndjson").exists() else None

        text = until(delivering, METRICS_SECONDS_MAX, "records are delivered and /metrics answers")
        done = subprocess.run([os.environ["PROMTOOL"], "check", "metrics"], input=classic(text),
                              capture_output=True, text=True)
        said = done.stdout + done.stderr
        self.assertEqual((done.returncode, said), (0, ""), said)
