"""A receiver that is killed and started again while 100,000 events come: RELP and HEC with
acknowledgement miss none. What plain TCP loses in the same is printed."""

import collections
import random
import sys
import time

from receivers import EVENT_ID, Indexer, Rsyslog, TestCase, record, until

EVENTS = 100_000
TCP_EVENTS = 20_000
KILLS = 8
# A receiver that starts again takes so long at most, in seconds.
AWAY_MAX = 0.4
# Requests of 500 events, so that a crash finds some answered and not acknowledged.
HEC_OPTIONS = """
ack = "on"
batch_events_max = 500
ack_timeout_seconds = 10
ack_poll_seconds_max = 1
"""


class Crash(TestCase):
    def crash_syslog(self, receiver, transport, events, kills, seed, hang=0):
        """{event id: its lines}, torn lines, kills."""
        config = self.configuration(transport, receiver.ports[transport],
                                    'send = ["events"]\n[detectors]\nenabled = false\n')
        done = self.crash(receiver, config, events, kills, seed, hang)
        found = collections.defaultdict(list)
        torn = 0
        for line in receiver.lines():
            match = EVENT_ID.search(line)
            # A kill in the middle of a write leaves half a line, and the next one behind it.
            if match and line.count("event_id=") == 1 and line.endswith("}"):
                found[match[1]].append(line)
            else:
                torn += 1
        return found, torn, done

    def crash(self, receiver, config, events, kills, seed, hang=0):
        """Forwards, and kills the receiver at random places, having let it hang for so many
        seconds before. How often it was killed."""
        chance = random.Random(seed)
        source = self.write_records(record(at) for at in range(events))
        process = self.forward(config, source)
        size = lambda: receiver.out.stat().st_size if receiver.out.exists() else 0
        until(lambda: size() > 20_000, 60, "the first lines")
        with open(receiver.out, "rb") as out:
            begin = out.read(20_000)
        total = events * begin.rindex(b"\n") / begin.count(b"\n")
        # One in each stretch, so that there is something to send between two of them.
        stretch = 0.9 * total / kills
        marks = [(at + chance.random()) * stretch for at in range(kills)]
        done = 0
        for mark in marks:
            until(lambda: size() >= mark or process.poll() is not None, 120, f"{mark} bytes")
            if process.poll() is not None:
                break
            if hang:
                receiver.hang()
                time.sleep(hang)
            receiver.kill()
            done += 1
            time.sleep(chance.uniform(0, AWAY_MAX))
            receiver.start()
        self.finish(process)
        receiver.stop()
        return done

    def test_relp_misses_nothing(self):
        seed = random.randrange(1 << 32)
        receiver = self.started(Rsyslog, raw=True)
        begun = time.monotonic()
        found, torn, kills = self.crash_syslog(receiver, "relp", EVENTS, KILLS, seed)
        repeats = sum(len(lines) - 1 for lines in found.values())
        missing = EVENTS - len(found)
        print(f"relp: {EVENTS} events, {kills} crashes, {missing} missing, {repeats} repeats, "
              f"{torn} torn lines (seed {seed}, {time.monotonic() - begun:.0f} s)", file=sys.stderr)
        self.assertEqual(kills, KILLS, "the receiver was killed in between")
        self.assertEqual(missing, 0, f"seed {seed}")
        self.assertTrue(all(len(set(lines)) == 1 for lines in found.values()),
                        "a repeat is the same bytes")
        self.assertLessEqual(repeats, kills * 128, "no more than a window a crash")

    def test_hec_with_acknowledgement_misses_nothing(self):
        seed = random.randrange(1 << 32)
        indexer = self.started(Indexer)
        config = self.hec_configuration(indexer.ports["hec"], indexer, HEC_OPTIONS)
        begun = time.monotonic()
        kills = self.crash(indexer, config, EVENTS, KILLS, seed)
        seconds = time.monotonic() - begun
        found = collections.defaultdict(list)
        for line, entry in zip(indexer.lines(), indexer.events()):
            found[entry["fields"]["event_id"]].append(line)
        repeats = sum(len(lines) - 1 for lines in found.values())
        missing = EVENTS - len(found)
        print(f"hec with acknowledgement: {EVENTS} events, {kills} crashes, {missing} missing, {repeats} "
              f"repeats (seed {seed}, {seconds:.0f} s)", file=sys.stderr)
        self.assertEqual(kills, KILLS, "the indexer was killed in between")
        self.assertEqual(missing, 0, f"seed {seed}")
        self.assertTrue(all(len(set(lines)) == 1 for lines in found.values()),
                        "a repeat is the same bytes")

    def test_plain_tcp_loses_what_the_receiver_had_not_written(self):
        for hang in (0, 1):
            with self.subTest(hang=hang):
                receiver = self.started(Rsyslog, raw=True, direct=False)
                found, _, kills = self.crash_syslog(receiver, "tcp", TCP_EVENTS, 1, 7, hang)
                missing = TCP_EVENTS - len(found)
                repeats = sum(len(lines) - 1 for lines in found.values())
                print(f"tcp: {TCP_EVENTS} events, {kills} crash after {hang} s of hanging, "
                      f"{missing} missing, {repeats} repeats; our program was told of none missing",
                      file=sys.stderr)
                self.assertEqual(kills, 1)
                self.assertTrue(all(len(set(lines)) == 1 for lines in found.values()))
