"""Two collectors behind haproxy, each with acknowledgements of its own: with a cookie all come true; the
worst case without one still ends with nothing missing."""

import collections
import sys
import time

from receivers import Haproxy, Indexer, TestCase, record

EVENTS = 20_000
# Small, so that there are many requests.
BATCH = 200
OPTIONS = f"""
ack = "on"
batch_events_max = {BATCH}
ack_timeout_seconds = 20
ack_poll_seconds_max = 1
"""


class Balancer(TestCase):
    def through(self, sticky):
        """Forwards through the balancer: (lines by event id, the balancer's log, events at each)."""
        first = self.started(Indexer)
        indexers = [first, self.started(Indexer, token=first.token)]
        balancer = self.started(Haproxy, indexers=indexers, sticky=sticky)
        config = self.hec_configuration(balancer.ports["hec"], first, OPTIONS)
        source = self.write_records(record(at) for at in range(EVENTS))
        begun = time.monotonic()
        self.forwarded(config, source)
        seconds = time.monotonic() - begun
        balancer.stop()
        found = collections.defaultdict(list)
        for indexer in indexers:
            for line, entry in zip(indexer.lines(), indexer.events()):
                found[entry["fields"]["event_id"]].append(line)
        self.assertTrue(all(len(set(lines)) == 1 for lines in found.values()),
                        "a repeat is the same bytes")
        calls = balancer.calls()
        sends = [call for call in calls if call[3].endswith("/event")]
        repeats = sum(len(lines) - 1 for lines in found.values())
        missing = EVENTS - len(found)
        servers = collections.Counter(call[1] for call in calls)
        print(f"haproxy, {'with' if sticky else 'without'} a cookie: {EVENTS} events, {missing} missing, "
              f"{repeats} repeats, {len(sends)} sends, calls by collector {dict(servers)} "
              f"({seconds:.0f} s)", file=sys.stderr)
        self.assertEqual(missing, 0)
        return repeats, sends, servers

    def test_with_a_cookie_every_acknowledgement_comes_true(self):
        repeats, sends, servers = self.through(sticky=True)
        # No send was done twice: each was acknowledged where it went.
        self.assertEqual(repeats, 0)
        self.assertGreaterEqual(len(sends), EVENTS // BATCH)
        self.assertEqual({call[0] for call in sends}, {"200"})

    def test_without_a_cookie_nothing_is_missing(self):
        _, _, servers = self.through(sticky=False)
        self.assertEqual(set(servers), {"s0", "s1"}, "it goes by turns")
