"""Findings in both formats, as rsyslog got them, read by a parser that is not ours (nsyslog-parser)."""

import json
import os
import pathlib
import subprocess

from receivers import Rsyslog, TestCase

HERE = pathlib.Path(__file__).parent
# A mailbox rule that sends everything outside, made by a person with a pipe in the name.
FORWARDING = {
    "CreationTime": "2026-11-20T02:15:00", "Id": "6f0d5a2e-0000-4000-8000-000000000001",
    "Operation": "New-InboxRule", "RecordType": 1, "ResultStatus": "True", "Workload": "Exchange",
    "UserType": 2, "OrganizationId": "o", "OrganizationName": "contoso.example",
    "UserId": "alice@contoso.example", "ClientIP": "198.51.100.7:4242",
    "ObjectId": "alice\\rule | x = y",
    "Parameters": [{"Name": "Name", "Value": "."},
                   {"Name": "ForwardTo", "Value": "bob@rival.example"}],
}


class Formats(TestCase):
    def parsed(self, form):
        receiver = self.started(Rsyslog, raw=True)
        config = self.configuration("relp", receiver.ports["relp"],
                                    f'format = "{form}"\nsend = ["findings", "signals"]\n')
        self.forwarded(config, self.write_records([FORWARDING]))
        lines = receiver.wait_for(1)
        done = subprocess.run(
            ["node", str(HERE / "parse.js")], input="\n".join(lines), text=True,
            capture_output=True, env={**os.environ, "NODE_PATH": os.environ["NODE_MODULES"]})
        self.assertEqual(done.returncode, 0, done.stderr)
        results = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(len(results), len(lines))
        for result in results:
            self.assertEqual((result["host"], result["appName"], result["facility"]),
                             ("contoso", "exfilwatch", "local0"))
            self.assertIn(result["messageid"], ("FINDING", "SIGNAL"))
        return results

    def test_rfc_5424_with_json(self):
        for result in self.parsed("json"):
            self.assertEqual(result["type"], "RFC5424")
            text = result["message"]
            document = json.loads(text[text.index("{"):])
            self.assertEqual(document["class_uid"], 2004)
            self.assertIn(f'finding_uid="{document["finding_info"]["uid"]}"',
                          result["originalMessage"])

    def test_cef(self):
        for result in self.parsed("cef"):
            self.assertEqual(result["type"], "CEF")
            self.assertEqual((result["cef"]["deviceVendor"], result["cef"]["deviceProduct"]),
                             ("exfilwatch", "exfilwatch"))
            self.assertTrue(0 <= int(result["cef"]["severity"]) <= 10)
            fields = result["fields"]
            self.assertEqual(fields["suser"], "alice@contoso.example")
            self.assertEqual(fields["cs1"], "contoso")
            self.assertRegex(fields["externalId"], "^[0-9a-f-]{36}$")
