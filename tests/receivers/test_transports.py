"""Every transport to rsyslog, TCP and TLS to syslog-ng: what arrives is what was sent, one line each."""

import json

from receivers import EVENT_ID, Rsyslog, SyslogNg, TestCase, record

# What a person might put into a subject so that a receiver sees a second line, another host, or
# another field. No transport may be fooled by it.
HOSTILE = [
    "evil\n<134>1 2026-11-24T02:15:00Z spoof spoof - - - FORGED",
    'quote " bracket ] backslash \\ end',
    "nul \x00 escape \x1b[31m bell \x07 delete \x7f",
    "line\u2028paragraph\u2029turned\u202eback",
    "emoji 😀 umlaut ü accent é",
    "CEF:0|a|b|c|d|e|9|suser=forged",
    "12 <134>1 octet count",
]
# Lines beside them. A burst of datagrams overflows the receiver's socket, so UDP gets few.
MANY = {"udp": 20}


def records(transport):
    hostile = [record(f"h{at}", Subject=text) for at, text in enumerate(HOSTILE)]
    return hostile + [record(at) for at in range(MANY.get(transport, 1_000))]


class Transports(TestCase):
    def check(self, receiver, transport):
        expected = {entry["Id"]: entry for entry in records(transport)}
        source = self.write_records(expected.values())
        before = len(receiver.lines())
        config = self.configuration(
            transport, receiver.ports[transport], 'send = ["events"]\n')
        self.forwarded(config, source)
        lines = [json.loads(line) for line in receiver.wait_for(before + len(expected))[before:]]
        self.assertEqual(len(lines), len(expected), f"{transport}: a line each")
        got = {}
        for line in lines:
            self.assertEqual((line["host"], line["app"], line["msgid"]),
                             ("contoso", "exfilwatch", "EVENT"), line)
            entry = json.loads(line["msg"])
            got[entry["Id"]] = entry
        self.assertEqual(got, expected, transport)
        return lines

    def test_rsyslog_takes_every_transport(self):
        receiver = self.started(Rsyslog)
        for transport in receiver.ports:
            with self.subTest(transport=transport):
                for line in self.check(receiver, transport):
                    self.assertIn(EVENT_ID.search(line["sd"])[1], line["raw"])
                    self.assertEqual(line["pri"], "134")
        receiver.stop()
        # It does complain of RELP sessions that end with the process: it still had a good-bye to say.
        own = receiver.own_words() + receiver.words()
        self.assertNotIn("non-properly terminated", own, "TLS ends with close_notify")
        self.assertNotIn("handshake", own)

    def test_syslog_ng_takes_tcp_and_tls(self):
        receiver = self.started(SyslogNg)
        for transport in receiver.ports:
            with self.subTest(transport=transport):
                self.check(receiver, transport)

    def test_rsyslog_refuses_a_client_it_does_not_know_and_nothing_is_delivered(self):
        receiver = self.started(Rsyslog)
        config = self.configuration("relp_tls", receiver.ports["relp_tls"], 'send = ["events"]\n')
        text = config.read_text(encoding="utf-8")
        for key in ("certificate_file", "key_file"):
            text = "\n".join(line for line in text.split("\n") if not line.startswith(key))
        config.write_text(text, encoding="utf-8")
        process = self.forward(config, self.write_records([record(1)]), patience=3)
        self.assertEqual(process.wait(60), 5, (self.folder / "forward.log").read_text())
        self.assertEqual(receiver.lines(), [])
