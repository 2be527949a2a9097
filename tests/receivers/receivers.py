"""Receivers on loopback, each a process in a folder of its own, and our program that sends to them."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import uuid

# How long a receiver may take to listen, and to end.
START_SECONDS_MAX = 20
END_SECONDS_MAX = 20
# How long lines may take to be written by a receiver that has them.
WRITE_SECONDS_MAX = 30
# How long a run of our program may take.
FORWARD_SECONDS_MAX = 150
EVENT_ID = re.compile(r'event_id="([^"]*)"')


def free_port():
    """A port that nobody listens on, by TCP or UDP."""
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        stream.bind(("127.0.0.1", 0))
        port = stream.getsockname()[1]
        datagrams.bind(("127.0.0.1", port))
        return port


def until(condition, seconds, what):
    """Waits for a condition; its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return value


def openssl(*arguments, folder):
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"openssl {arguments[0]}: {done.stderr}")


def make_keys(folder):
    """An authority, a server's certificate for localhost and 127.0.0.1, a client's for exfilwatch."""
    elliptic = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *elliptic, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
            "-subj", "/CN=test authority", folder=folder)
    for name, subject, names in [
        ("server", "localhost", "DNS:localhost,IP:127.0.0.1"),
        ("client", "exfilwatch", "DNS:exfilwatch"),
    ]:
        pathlib.Path(folder, f"{name}.ext").write_text(
            f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n", encoding="utf-8")
        openssl("req", *elliptic, "-keyout", f"{name}.key", "-out", f"{name}.csr",
                "-subj", f"/CN={subject}", folder=folder)
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext",
                "-out", f"{name}.pem", folder=folder)
        os.chmod(pathlib.Path(folder, f"{name}.key"), 0o600)


class Receiver:
    """A receiver; `kill` ends it as a crash does, `start` starts it again on the same ports."""

    stdin = subprocess.DEVNULL

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.out = self.folder / "out"
        self.log = self.folder / "log"
        self._process = None

    def command(self):
        raise NotImplementedError

    def is_up(self):
        raise NotImplementedError

    def environment(self):
        return dict(os.environ)

    def start(self):
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                self.command(), cwd=self.folder, env=self.environment(), stdin=self.stdin,
                stdout=log, stderr=log)

        def up():
            if self._process.poll() is not None:
                raise AssertionError(f"the receiver ended at once:\n{self.words()}")
            return self.is_up()

        until(up, START_SECONDS_MAX, f"the receiver listens:\n{self.words()}")
        return self

    def hang(self):
        """It reads and writes nothing from now on."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self):
        self._process.kill()
        self._process.wait()

    def stop(self):
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(END_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.kill()

    def words(self):
        return self.log.read_text("utf-8", "replace")[-4000:] if self.log.exists() else ""

    def lines(self):
        """What it wrote, whole lines."""
        if not self.out.exists():
            return []
        text = self.out.read_bytes().decode("utf-8", "surrogateescape")
        return text[: text.rfind("\n") + 1].split("\n")[:-1]

    def wait_for(self, count):
        until(lambda: len(self.lines()) >= count, WRITE_SECONDS_MAX,
              f"{count} lines (there are {len(self.lines())}):\n{self.words()}")
        return self.lines()


def listening(port):
    """Whether somebody listens; asked of the kernel, since receivers complain of a connection that says
    nothing."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = (row.split() for row in list(table)[1:])
        return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


class Rsyslog(Receiver):
    """rsyslogd with an input for each transport. `direct` writes a line before it is answered; else
    rsyslog's own default, a queue in memory. `raw` writes the frame alone, else JSON with its parts."""

    def __init__(self, folder, keys, direct=True, raw=False):
        super().__init__(folder)
        names = ["udp", "tcp", "tls", "relp", "relp_tls"]
        self.ports = {name: free_port() for name in names}
        (self.folder / "work").mkdir()
        parts = {"raw": "rawmsg", "pri": "pri", "host": "hostname", "app": "app-name",
                 "msgid": "msgid", "sd": "structured-data", "msg": "msg"}
        fields = " ".join(f'property(outname="{name}" name="{source}" format="jsonf")'
                          for name, source in parts.items())
        template = ('template(name="form" type="string" string="%rawmsg%\\n")' if raw else
                    f'template(name="form" type="list" option.jsonf="on") {{ {fields} }}')
        queue = 'queue.type="Direct"' if direct else ""
        self._config = self.folder / "rsyslog.conf"
        self._config.write_text(f"""
global(workDirectory="{self.folder}/work" maxMessageSize="64k" defaultNetstreamDriver="gtls"
  defaultNetstreamDriverCAFile="{keys}/ca.pem" defaultNetstreamDriverCertFile="{keys}/server.pem"
  defaultNetstreamDriverKeyFile="{keys}/server.key")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
module(load="imptcp") module(load="imudp") module(load="imrelp")
{template}
ruleset(name="in" {queue}) {{
  action(type="omfile" file="{self.out}" template="form" flushOnTXEnd="on")
}}
input(type="imudp" address="127.0.0.1" port="{self.ports['udp']}" ruleset="in")
input(type="imptcp" address="127.0.0.1" port="{self.ports['tcp']}" ruleset="in")
input(type="imtcp" address="127.0.0.1" port="{self.ports['tls']}" ruleset="in")
input(type="imrelp" address="127.0.0.1" port="{self.ports['relp']}" ruleset="in")
input(type="imrelp" address="127.0.0.1" port="{self.ports['relp_tls']}" ruleset="in" tls="on"
  tls.caCert="{keys}/ca.pem" tls.myCert="{keys}/server.pem" tls.myPrivKey="{keys}/server.key"
  tls.authMode="name" tls.permittedPeer=["exfilwatch"])
if $syslogfacility-text == "syslog" then {{
  action(type="omfile" file="{self.folder}/own")
}}
""", encoding="utf-8")

    def command(self):
        return [shutil.which("rsyslogd", path=os.environ["PATH"] + ":/usr/sbin"), "-n",
                "-f", str(self._config), "-iNONE"]

    def is_up(self):
        return all(listening(port) for name, port in self.ports.items() if name != "udp")

    def own_words(self):
        """What it says of itself: its complaints."""
        own = self.folder / "own"
        return own.read_text("utf-8", "replace") if own.exists() else ""


class SyslogNg(Receiver):
    """syslog-ng as Debian builds it, unpacked beside (its package conflicts with rsyslog's). With an
    `indexer` it passes what it gets on to that, by its `http()`, as its manual has it for Splunk."""

    def __init__(self, folder, keys, indexer=None):
        super().__init__(folder)
        self.ports = {name: free_port() for name in ["tcp", "tls"]}
        self._root = pathlib.Path(os.environ["UNPACKED_ROOT"])
        self._config = self.folder / "syslog-ng.conf"
        self._config.write_text(f"""@version: 3.38
options {{ keep-hostname(yes); }};
source s {{
  syslog(ip("127.0.0.1") port({self.ports['tcp']}) transport("tcp"));
  syslog(ip("127.0.0.1") port({self.ports['tls']}) transport("tls") tls(
    key-file("{keys}/server.key") cert-file("{keys}/server.pem") ca-file("{keys}/ca.pem")
    peer-verify(required-trusted)));
}};
destination d {{ file("{self.out}" template(
  "$(format-json pri=$PRI host=$HOST app=$PROGRAM msgid=$MSGID sd=$SDATA msg=$MSG)\\n")); }};
log {{ source(s); destination(d); }};
{self.to_collector(indexer) if indexer else ""}
""", encoding="utf-8")

    @staticmethod
    def to_collector(indexer):
        return f"""
destination hec {{ http(
  url("http://127.0.0.1:{indexer.ports['hec']}/services/collector/event")
  headers("Authorization: Splunk {indexer.token}") method("POST")
  batch-lines(40) batch-timeout(200) delimiter("\n") workers(2)
  body("$(format-json time=$S_UNIXTIME host=$HOST source=$PROGRAM sourcetype=from:syslog-ng event=$MSG)"));
}};
log {{ source(s); destination(hec); }};"""

    def environment(self):
        root = self._root
        return {**os.environ,
                "NO_PROXY": "127.0.0.1",
                "LD_LIBRARY_PATH": ":".join(map(str, [
                    root / "usr/lib/syslog-ng", *root.glob("usr/lib/*-linux-gnu")]))}

    def command(self):
        root = self._root
        (module,) = root.glob("usr/lib/syslog-ng/3.*")
        return [f"{root}/usr/sbin/syslog-ng", "-F", "--no-caps", "--module-path", str(module),
                "-f", str(self._config), "--persist-file", "persist", "--pidfile", "pid",
                "--control", "control"]

    def is_up(self):
        return all(listening(port) for port in self.ports.values())


class Indexer(Receiver):
    """The simulator's collector as a process of its own: what it acknowledged is in its journal."""

    # It ends when its standard input does.
    stdin = subprocess.PIPE

    def __init__(self, folder, _keys, ack=True, token=None):
        super().__init__(folder)
        self.ports = {"hec": free_port()}
        self.ack = ack
        self.token = token or str(uuid.uuid4())
        self.token_file = self.folder / "token"
        self.token_file.write_text(self.token, encoding="utf-8")
        self.token_file.chmod(0o600)

    def command(self):
        options = [] if self.ack else ["--no-ack"]
        return [os.environ["EXFILWATCH_INDEXER"], *options, str(self.token_file), str(self.out),
                str(self.ports["hec"])]

    def is_up(self):
        return listening(self.ports["hec"])

    def stop(self):
        super().stop()
        self._process.stdin.close()

    def kill(self):
        super().kill()
        self._process.stdin.close()

    def events(self):
        return [json.loads(line) for line in self.lines()]


class Haproxy(Receiver):
    """haproxy before several collectors; `sticky` by a cookie of its own, as a cloud's balancer does."""

    def __init__(self, folder, _keys, indexers, sticky):
        super().__init__(folder)
        self.ports = {"hec": free_port()}
        self._root = pathlib.Path(os.environ["UNPACKED_ROOT"])
        self._config = self.folder / "haproxy.cfg"
        cookie = "cookie AWSALB insert indirect nocache" if sticky else ""
        servers = "\n".join(
            f"  server s{at} 127.0.0.1:{indexer.ports['hec']} cookie s{at}"
            for at, indexer in enumerate(indexers))
        self._config.write_text(f"""
global
  log stdout format raw local0
defaults
  mode http
  log global
  log-format "%ST %s %HM %HP"
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend in
  bind 127.0.0.1:{self.ports['hec']}
  default_backend indexers
backend indexers
  balance roundrobin
  {cookie}
{servers}
""", encoding="utf-8")

    def environment(self):
        libraries = ":".join(map(str, self._root.glob("usr/lib/*-linux-gnu")))
        return {**os.environ, "LD_LIBRARY_PATH": libraries}

    def command(self):
        return [f"{self._root}/usr/sbin/haproxy", "-db", "-f", str(self._config)]

    def is_up(self):
        return listening(self.ports["hec"])

    def calls(self):
        """Its log: (status, server, method, path) of each call."""
        lines = self.log.read_text("utf-8").splitlines()
        calls = (re.fullmatch(r"(\d{3}) (\S+) (\S+) (\S+)", line) for line in lines)
        return [call.groups() for call in calls if call]


class TestCase(unittest.TestCase):
    """A folder for each test, keys for all of a class."""

    maxDiff = 4000

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="exfilwatch-keys-")
        cls.addClassCleanup(folder.cleanup)
        cls.keys = folder.name
        make_keys(cls.keys)

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="exfilwatch-receivers-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def started(self, kind, **options):
        receiver_folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        receiver = kind(receiver_folder, self.keys, **options).start()
        self.addCleanup(receiver.stop)
        return receiver

    def configuration(self, transport, port, more=""):
        """A configuration with one syslog emitter."""
        tls = ""
        if transport in ("tls", "relp_tls"):
            tls = (f'ca_file = "{self.keys}/ca.pem"\nserver_name = "localhost"\n'
                   f'certificate_file = "{self.keys}/client.pem"\nkey_file = "{self.keys}/client.key"\n')
        return self.written_configuration(f"""
[emitters.syslog.main]
address = "127.0.0.1:{port}"
transport = "{transport}"
{tls}{more}
""")

    def hec_configuration(self, port, indexer, more=""):
        """A configuration that forwards records to one collector, or to what stands before it."""
        return self.written_configuration(f"""
[detectors]
enabled = false

[emitters.splunk_hec.main]
url = "http://127.0.0.1:{port}"
token = {{ file = "{indexer.token_file}" }}
send = ["events"]
{more}
""")

    def written_configuration(self, emitter):
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        path = folder / "exfilwatch.toml"
        path.write_text(f"""
[state]
folder = "{folder}/state"

[tenants.contoso]
internal_domains = ["contoso.example"]
{emitter}""", encoding="utf-8")
        return path

    def forward(self, config, *files, patience=60):
        """Our program at its work; ended when the test ends."""
        command = [os.environ["EXFILWATCH"], "forward", "--config", str(config),
                   "--tenant", "contoso", "--patience", str(patience), *map(str, files)]
        log = open(self.folder / "forward.log", "wb")
        self.addCleanup(log.close)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(lambda: process.poll() is None and process.kill())
        return process

    def forwarded(self, config, *files):
        """Runs our program to its end."""
        self.finish(self.forward(config, *files))

    def finish(self, process):
        code = process.wait(FORWARD_SECONDS_MAX)
        words = (self.folder / "forward.log").read_text("utf-8", "replace")
        self.assertEqual(code, 0, words[-4000:])
        return words

    def write_records(self, records):
        path = self.folder / "records.ndjson"
        with open(path, "w", encoding="utf-8") as file:
            for record in records:
                file.write(json.dumps(record) + "\n")
        return path


def record(number, **more):
    """A record of office365."""
    return {"CreationTime": "2026-11-20T02:15:00", "Id": f"n{number}", "Operation": "FileDownloaded",
            "RecordType": 6, "Workload": "SharePoint", "UserId": "alice@contoso.example",
            "OrganizationId": "o", **more}
