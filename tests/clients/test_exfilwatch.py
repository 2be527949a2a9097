"""Our own program delivers exactly what the vendors' clients got: it reads the same simulator."""

import collections
import json
import os
import pathlib
import subprocess
import tempfile

from services import TestCase

SECONDS_MAX = 240
# The simulated day (which ended three days ago), and what came out late.
RANGE = ["--since", "98h", "--until", "46h"]
# As many as the services allow: the default would make this test a matter of minutes.
REQUESTS_A_MINUTE = 1900


class Backfill(TestCase):
    def configuration(self, folder):
        services = self.services
        microsoft, google = services.microsoft, services.google
        return f"""
[state]
folder = "{folder}/state"

[tenants.{services.tenant}]
internal_domains = ["{services.domain}"]

[connectors.office365.main]
tenant = "{services.tenant}"
tenant_id = "{microsoft['tenant_id']}"
client_id = "{microsoft['client_id']}"
client_secret = {{ file = "{microsoft['client_secret_file']}" }}
api_root = "{microsoft['url']}"
login_root = "{microsoft['url']}"
ca_file = "{services.ca_file}"
requests_per_minute = {REQUESTS_A_MINUTE}

[connectors.google_workspace.main]
tenant = "{services.tenant}"
subject = "{services.admin}"
service_account = {{ file = "{google['service_account_file']}" }}
api_root = "{google['url']}"
token_uri = "{google['url']}/token"
ca_file = "{services.ca_file}"
requests_per_minute = {REQUESTS_A_MINUTE}

[emitters.ndjson.main]
path = "{folder}/{{kind}}.ndjson"
send = ["events", "findings"]
"""

    def test_it_delivers_each_record_of_the_sheet_once(self):
        with tempfile.TemporaryDirectory() as folder:
            config = pathlib.Path(folder, "exfilwatch.toml")
            config.write_text(self.configuration(folder), encoding="utf-8")
            command = [os.environ["EXFILWATCH"], "backfill", "--config", config, *RANGE]
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX)
            self.assertEqual(done.returncode, 0, done.stderr[-4000:])
            lines = pathlib.Path(folder, "events.ndjson").read_text(encoding="utf-8").splitlines()
            findings = pathlib.Path(folder, "findings.ndjson").read_text(encoding="utf-8")
        as_text = lambda record: json.dumps(record, sort_keys=True)
        got = collections.Counter(as_text(json.loads(line)) for line in lines)
        rows = (row for rows in self.services.sheet.values() for row in rows)
        want = collections.Counter(as_text(row[2]) for row in rows)
        self.assertEqual(got.total(), want.total())
        self.assertEqual(got, want)
        self.assertTrue(findings, "the attacks of the simulated day were found")
