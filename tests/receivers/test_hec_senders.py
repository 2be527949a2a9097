"""HEC senders that are not ours against the simulator's collector, which must take what they send as
Splunk does: so it is not only our own idea of Splunk."""

import gzip
import json
import logging
import os
import pathlib
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid

from splunk_data_sender import SplunkSender

from receivers import Indexer, SyslogNg, TestCase, record, until

HERE = pathlib.Path(__file__).parent
EVENTS = 500
ACKS_SECONDS_MAX = 30
# splunk_data_sender tells of each question.
logging.disable(logging.INFO)


def messages():
    """Records, some with texts that need care on the way."""
    texts = ["quote \" backslash \\ end", "line\nbreak\ttab", "emoji 😀 umlaut ü", "</script>\u2028"]
    return [record(at, Subject=texts[at % len(texts)]) for at in range(EVENTS)]


class Senders(TestCase):
    def same(self, sent, events, read):
        """The sets match, and nothing came twice."""
        got = [read(entry) for entry in events]
        order = lambda entries: sorted(entries, key=lambda entry: entry["Id"])
        self.assertEqual(order(got), order(sent))

    def told(self, name, events, more=""):
        print(f"{name}: {EVENTS} events sent, {len(events)} indexed{more}", file=sys.stderr)

    def test_splunk_logging_of_node(self):
        sent = messages()
        indexer = self.started(Indexer, ack=False)
        done = subprocess.run(
            ["node", str(HERE / "hec_sender.js"), f"http://127.0.0.1:{indexer.ports['hec']}",
             indexer.token, "50"],
            input="\n".join(map(json.dumps, sent)), text=True, capture_output=True, timeout=60,
            env={**os.environ, "NODE_PATH": os.environ["NODE_MODULES"]})
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(answers, [{"text": "Success", "code": 0}] * (EVENTS // 50))
        indexer.wait_for(EVENTS)
        events = indexer.events()
        self.same(sent, events, lambda entry: json.loads(entry["event"])["message"])
        for entry in events:
            self.assertEqual((entry["sourcetype"], entry["source"], entry["host"]),
                             ("from:node", "node", "node.example"))
            self.assertAlmostEqual(float(entry["time"]), time.time(), delta=120)
        self.told("splunk-logging", events)

    def test_splunk_data_sender_with_acknowledgements(self):
        for compress, channel_in in [(True, "url"), (False, "header")]:
            with self.subTest(compress=compress, channel_in=channel_in):
                sent = messages()
                indexer = self.started(Indexer)
                sender = SplunkSender(
                    "127.0.0.1", indexer.token, protocol="http", port=indexer.ports["hec"],
                    hostname="python.example", source_type="from:python", index="main",
                    channel=str(uuid.uuid4()), channel_in=channel_in, compress=compress,
                    verify=False, retry_count=1)
                self.assertTrue(sender.get_health())
                ids = [sender.send_data(sent[at:at + 50])["ackId"]
                       for at in range(0, EVENTS, 50)]
                self.assertEqual(ids, list(range(EVENTS // 50)))
                open_ids = set(ids)

                def all_true():
                    answer = sender.send_acks(sorted(open_ids))["acks"]
                    self.assertEqual(set(map(int, answer)), open_ids)
                    open_ids.difference_update(int(key) for key, value in answer.items() if value)
                    return not open_ids

                until(all_true, ACKS_SECONDS_MAX, f"acknowledgements of {open_ids}")
                events = indexer.events()
                self.same(sent, events, lambda entry: json.loads(entry["event"]))
                for entry in events:
                    self.assertEqual((entry["sourcetype"], entry["index"], entry["host"]),
                                     ("from:python", "main", "python.example"))
                self.assertEqual(set(sender.send_acks(ids)["acks"].values()), {False},
                                 "an acknowledgement is told once")
                self.told("splunk-data-sender", events,
                          f", {len(ids)} of {len(ids)} acknowledgements true (gzip: {compress})")

    def test_syslog_ng(self):
        sent = messages()
        indexer = self.started(Indexer, ack=False)
        receiver = self.started(SyslogNg, indexer=indexer)
        # It gets its lines from our program, and passes them on.
        config = self.configuration("tcp", receiver.ports["tcp"],
                                    'send = ["events"]\n[detectors]\nenabled = false\n')
        self.forwarded(config, self.write_records(sent))
        indexer.wait_for(EVENTS)
        events = indexer.events()
        self.same(sent, events, lambda entry: json.loads(json.loads(entry["event"])))
        for entry in events:
            self.assertEqual((entry["sourcetype"], entry["host"]), ("from:syslog-ng", "contoso"))
        self.told("syslog-ng http()", events)

    def test_what_no_sender_may_do(self):
        """The other side of leniency: these are refused, as by Splunk."""
        indexer = self.started(Indexer)
        channel = str(uuid.uuid4())
        good = {"Authorization": f"Splunk {indexer.token}", "X-Splunk-Request-Channel": channel}
        event = b'{"event":"x"}'
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def answer(path, body, headers):
            request = urllib.request.Request(
                f"http://127.0.0.1:{indexer.ports['hec']}/services/collector{path}", data=body,
                headers=headers)
            try:
                with direct.open(request, timeout=10) as reply:
                    return reply.status, json.load(reply).get("code")
            except urllib.error.HTTPError as error:
                text = error.read()
                return error.code, json.loads(text)["code"] if text.startswith(b"{") else None

        without = lambda name: {key: value for key, value in good.items() if key != name}
        packed = {**good, "Content-Encoding": "gzip"}
        for expected, call in [
            ((200, 0), ("/event", event, good)),
            ((200, 0), ("/event", gzip.compress(event), packed)),
            ((200, 0), ("/event", event, {**good, "Content-Type": "text/nonsense"})),
            ((401, 2), ("/event", event, without("Authorization"))),
            ((401, 3), ("/event", event, {**good, "Authorization": f"Bearer {indexer.token}"})),
            ((403, 4), ("/event", event, {**good, "Authorization": "Splunk no"})),
            ((400, 10), ("/event", event, without("X-Splunk-Request-Channel"))),
            ((400, 11), ("/event?channel=me", event, without("X-Splunk-Request-Channel"))),
            ((400, 5), ("/event", b" ", good)),
            ((400, 6), ("/event", event + b"{", good)),
            ((400, 6), ("/event", event, packed)),
            ((400, 12), ("/event", b'{"time":1}', good)),
            ((400, 13), ("/event", b'{"event":""}', good)),
            ((400, 15), ("/event", b'{"event":"x","fields":{"a":{"b":1}}}', good)),
            ((400, 6), ("/ack", b'{"acks":[0]}', packed)),
            ((415, None), ("/event", event, {**good, "Content-Encoding": "deflate"})),
        ]:
            with self.subTest(call=call):
                self.assertEqual(answer(*call), expected)
