"""Findings about people, addresses and files with hostile names: over every transport, in both formats, they
come back from rsyslog and syslog-ng field by field as they were.

What they were is a file of ours in the same run, and the records themselves. What comes back is read by
the grammars of RFC 5424 and CEF as they stand in their documents, written anew here, and by nsyslog-parser.
"""

import json
import os
import pathlib
import re
import subprocess
import unicodedata

from receivers import Rsyslog, SyslogNg, TestCase

HERE = pathlib.Path(__file__).parent
HOSTILE = {
    "a line of its own": "evil\n<134>1 2026-11-24T02:15:00Z spoof spoof - - - FORGED",
    "a frame of its own": "12 <134>1 octet\r\n9 count",
    "quotes and brackets": 'quote " bracket ] [x@1 user="forged"] end',
    "backslashes": "\\n no break \\= \\| \\\\ \\u000a \\] end\\",
    "pipes and equals signs": "a|b=c suser=forged cs1=other |9|src=1.2.3.4",
    "a header of CEF": "CEF:0|a|b|c|d|e|9|suser=forged",
    "control characters": "nul \x00 tab \t esc \x1b[31m bel \x07 nel \x85 del \x7f",
    "marks nobody sees": "\ufeffbom \ufeff zero\u200b line\u2028 paragraph\u2029 turned\u202e soft\xad "
                         "letter\u061c tags\U000e0041\U000e0042",
    "many bytes a character": "ü😀é" * 8,
    "percent and octal": "%msg% %00 #012 #000 $MSG ${MSG}",
    "very long": "long " + "x" * 3_000,
    "very long and hostile": "\x00\n\"]\\|=" * 300,
}
# The longest value of structured data, and of who and whom in CEF, in bytes as written.
VALUE_BYTES_MAX = 128
CUT = "…"
# The longest value in a finding (the long ones above are ASCII).
FIELD_BYTES_MAX = 512
SD_PARAM = re.compile(r' ([^ ="\]]+)="((?:[^"\\\]]|\\.)*)"')


def records():
    """For each text a link that somebody shares, and a mailbox rule."""
    for at, text in enumerate(HOSTILE.values()):
        common = {"RecordType": 14, "UserType": 0, "OrganizationId": "o",
                  "OrganizationName": "contoso.example", "ClientIP": "198.51.100.7"}
        yield {**common, "Id": f"link{at}", "CreationTime": f"2026-11-20T02:15:{at:02}",
               "Operation": "AnonymousLinkCreated", "Workload": "OneDrive", "ItemType": "File",
               "UserId": f"u{at}@contoso.example", "SourceFileName": text,
               "ObjectId": f"https://contoso-my.sharepoint.com/{at}"}
        yield {**common, "Id": f"rule{at}", "CreationTime": f"2026-11-20T03:15:{at:02}", "RecordType": 1,
               "Operation": "New-InboxRule", "ResultStatus": "True", "Workload": "Exchange",
               "UserId": f"p{at} {text}@contoso.example", "ObjectId": text,
               "Parameters": [{"Name": "Name", "Value": text},
                              {"Name": "ForwardTo", "Value": f"q{at} {text}@rival.example"}]}


def shown(text):
    """Characters that a reader would not see stand as text."""
    def one(c):
        hidden = unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")
        units = c.encode("utf-16-be")
        return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2)) \
            if hidden else c
    return "".join(map(one, text))


def unescaped(text, escapes):
    """What backslashes stand before, by the table; a backslash before anything else is a mistake."""
    return re.sub(r"\\(.|$)", lambda found: escapes[found[1]], text, flags=re.DOTALL)


def structured_data(text):
    """RFC 5424 section 6.3: one element, its parameters."""
    element = re.fullmatch(r'\[exfilwatch@32473((?: [^ ="\]]+="(?:[^"\\\]]|\\.)*")*)\]', text)
    assert element, f"one element and nothing else: {text}"
    escapes = {c: c for c in '"\\]'}
    return {name: (value, unescaped(value, escapes)) for name, value in SD_PARAM.findall(element[1])}


def cef(text):
    """ArcSight's "Implementing CEF": seven header fields, then key=value pairs."""
    header, rest = [], text
    for _ in range(7):
        field = re.match(r"((?:[^\\|]|\\.)*)\|", rest)
        assert field, f"seven header fields: {text}"
        header.append(unescaped(field[1], {"\\": "\\", "|": "|"}))
        rest = rest[field.end():]
    pairs = re.findall(r"([A-Za-z0-9]+)=((?:[^\\=]|\\.)*?)(?: (?=[A-Za-z0-9]+=)|$)", rest)
    assert rest == " ".join(f"{key}={value}" for key, value in pairs), f"pairs and nothing else: {rest}"
    escapes = {"\\": "\\", "=": "=", "n": "\n", "r": "\r"}
    return header, {key: (value, unescaped(value, escapes)) for key, value in pairs}


class Hostile(TestCase):
    def truth(self, path):
        """The documents that the same run wrote into a file, by finding and revision."""
        documents = map(json.loads, path.read_text("utf-8").split("\n")[:-1])
        return {(document["finding_info"]["uid"],
                 str(document["unmapped"]["exfilwatch"]["revision"])): document
                for document in documents}

    def through(self, receiver, transport, form):
        """What was sent, and what the receiver wrote of it."""
        truth = self.folder / f"{transport}.{form}.ndjson"
        kinds = '["findings", "signals"]'
        config = self.configuration(transport, receiver.ports[transport], f"""format = "{form}"
send = {kinds}

[emitters.ndjson.truth]
path = "{truth}"
send = {kinds}
""")
        # A burst of datagrams overflows the receiver's socket.
        sent = [one for one in records() if transport != "udp" or one["Id"].startswith("link")]
        before = len(receiver.lines())
        self.forwarded(config, self.write_records(sent))
        truth = self.truth(truth)
        self.assertGreaterEqual(len(truth), len(sent))
        lines = receiver.wait_for(before + len(truth))[before:]
        self.assertEqual(len(lines), len(truth), "one line each")
        lines = [json.loads(line) for line in lines]
        for line in lines:
            self.assertEqual((line["host"], line["app"]), ("contoso", "exfilwatch"), line)
            self.assertIn(line["msgid"], ("FINDING", "SIGNAL"))
        return truth, lines

    def same(self, name, field, expected):
        """A field, as written and as read; what is too long is cut and marked."""
        written, read = field
        if expected.startswith(read[:-1]) and read.endswith(CUT) and read != expected:
            length = len(written.encode())
            self.assertTrue(VALUE_BYTES_MAX - 16 < length <= VALUE_BYTES_MAX, (name, written))
        else:
            self.assertEqual(read, expected, name)

    def said(self, document):
        """Who, whence, to whom, and where that is."""
        ours = document["unmapped"]["exfilwatch"]
        evidence = document["evidences"][0]
        return {"user": evidence.get("actor", {}).get("user", {}).get("name"),
                "src": evidence.get("src_endpoint", {}).get("ip"),
                "target": ours.get("target"),
                "external_domain": ours.get("external_domain")}

    def check_names(self, documents):
        """Names of files are the record's own, as far as a field of an event goes."""
        links = [document["resources"][0]["name"] for document in documents
                 if document["unmapped"]["exfilwatch"]["detection"]
                 == "o365.sharepoint.anonymous_link_created"]
        self.assertEqual(sorted(links), sorted(text[:FIELD_BYTES_MAX] for text in HOSTILE.values()))

    def check_5424(self, receiver, transport):
        truth, lines = self.through(receiver, transport, "json")
        whole = 0
        for line in lines:
            parameters = structured_data(line["sd"])
            key = parameters["finding_uid"][1], parameters["revision"][1]
            document = truth.pop(key)
            message = json.loads(line["msg"])
            if "truncated" in parameters:
                self.assertEqual(message["finding_info"]["uid"], key[0])
            else:
                self.assertEqual(message, document)
                whole += 1
            for name, expected in self.said(document).items():
                with self.subTest(transport=transport, name=name, expected=expected):
                    if expected is None:
                        self.assertNotIn(name, parameters)
                    else:
                        self.same(name, parameters[name], shown(expected))
        self.assertGreaterEqual(whole, len(HOSTILE) - 2)

    def check_cef(self, receiver, transport):
        truth, lines = self.through(receiver, transport, "cef")
        self.check_names(truth.values())
        for line in lines:
            header, fields = cef(line["msg"])
            key = fields["externalId"][1], fields["cn2"][1]
            document = truth.pop(key)
            ours = document["unmapped"]["exfilwatch"]
            self.assertEqual(header[1:3] + header[4:5], ["exfilwatch", "exfilwatch", ours["detection"]])
            self.same("name", (header[5], header[5]), shown(document["finding_info"]["title"]))
            said = self.said(document)
            keys = {"suser": said["user"], "src": said["src"], "duser": said["target"],
                    "destinationDnsDomain": said["external_domain"]}
            for name, expected in keys.items():
                with self.subTest(transport=transport, name=name, expected=expected):
                    if expected is None:
                        self.assertNotIn(name, fields)
                    else:
                        # Line breaks have an escape of their own.
                        expected = "\n".join(map(self.shown_line, expected.split("\n")))
                        self.same(name, fields[name], expected)
        return lines

    @staticmethod
    def shown_line(text):
        return "\r".join(map(shown, text.split("\r")))

    def test_rsyslog_over_every_transport(self):
        receiver = self.started(Rsyslog)
        for transport in receiver.ports:
            self.check_5424(receiver, transport)
            lines = self.check_cef(receiver, transport)
            if transport == "relp":
                self.check_parser(lines)

    def test_syslog_ng_over_tcp_and_tls(self):
        receiver = self.started(SyslogNg)
        for transport in receiver.ports:
            self.check_5424(receiver, transport)
            self.check_cef(receiver, transport)

    def check_parser(self, lines):
        """nsyslog-parser finds the same fields, undoing no escapes. It does not know that of the equals sign."""
        done = subprocess.run(
            ["node", str(HERE / "parse.js")], input="\n".join(line["raw"] for line in lines), text=True,
            capture_output=True, env={**os.environ, "NODE_PATH": os.environ["NODE_MODULES"]})
        self.assertEqual(done.returncode, 0, done.stderr)
        results = [json.loads(line) for line in done.stdout.split("\n")[:-1]]
        self.assertEqual(len(results), len(lines))
        compared = 0
        for line, result in zip(lines, results):
            _, fields = cef(line["msg"])
            self.assertEqual(result["type"], "CEF")
            written = {name: written for name, (written, _) in fields.items()}
            if not any("\\=" in value for value in written.values()):
                self.assertEqual({name: result["fields"].get(name) for name in written}, written)
                compared += 1
        self.assertGreaterEqual(compared, len(HOSTILE))
