#!/usr/bin/env python3
"""Kills a broker again and again and looks for what it had acknowledged.

    crash.py BROKER [--rounds 25] [--seed 1] [--keep DIRECTORY]

A round has a seed, a new directory and its own clients. The broker is killed one to four times, at random instants or
right after a random acknowledgement, sometimes again while it starts, and started again on the same files. In between
the clients publish, subscribe, come and go. In the end all of them come back, and everything that was promised must
come. The last line is the tally; the exit code is 0 when no round failed.
"""
import argparse
import collections
import os
import shutil
import sys
import tempfile
import time

import client  # noqa: F401  (finds the codec)
import mqtt
from client import Device
from model import Model
from world import Broker, World

LARGE = (66_000, 200_000)
TREE = ["t/%d/%d" % (i, k) for i in range(3) for k in range(3)]
CHURN = ["t/0/#", "t/+/1", "t/2/2", "t/#", "x/#"]


class Round:
    def __init__(self, world):
        self.world, self.model, self.random = world, world.model, world.random
        choose = self.random
        self.publishers = [Device(world, "p0"), Device(world, "p1", version=4),
                           Device(world, "p2", websocket=True)]
        for publisher in self.publishers:
            publisher.window = choose.choice((1, 4, 8, 16, 30))
        self.online = Device(world, "s0", websocket=True)
        self.offline = Device(world, "s1")
        self.slow = Device(world, "s2", version=4)
        self.churn = Device(world, "s3")
        self.will_reader = Device(world, "s4")
        self.retained_reader = Device(world, "r0")
        self.members = [Device(world, "m%d" % i, version=4 if i == 1 else 5) for i in range(5)]
        self.starter = Device(world, "c0")
        self.taker = Device(world, "k0", websocket=True)
        self.expiring = Device(world, "e0", expiry_s=1)
        self.willers = [Device(world, "w0"), Device(world, "w1"), Device(world, "w2", websocket=True)]
        self.slow.hold_answers = self.members[1].hold_answers = True
        self.subscribed = {
            self.online: [("t/#", 2, 0)],
            self.offline: [("t/+/0", 1, 0), ("t/1/#", 2, 0), ("x/#", 1, 0)],
            self.slow: [("t/0/+", 2, 0)],
            self.will_reader: [("w/#", 2, 0)],
            self.starter: [("t/2/#", 1, 0)],
            self.taker: [("t/1/#", 2, 0), ("x/#", 2, 0)],
            self.expiring: [("t/0/0", 1, 0)],
            **{member: [("$share/g/sh/#", 2, 0)] for member in self.members[:3]},
            **{member: [("$share/h/sh/+", 1, 0)] for member in self.members[3:]},
        }

    # ---- what clients do

    def ensure(self, device):
        """Brings a device back and gives it the subscriptions that it is to have."""
        if device.connection is None:
            state = self.model.client(device.name)
            uncertain = state.session is not None and state.session.loose
            device.connect(clean=uncertain, will=self.new_will(device))
        elif device.ready and device.pending is None:
            missing = [each for each in self.subscribed.get(device, ()) if each[0] not in device.filters]
            if missing:
                device.subscribe(missing)

    def new_will(self, device):
        if device not in self.willers:
            return None
        which = self.willers.index(device)
        will = self.world.publication(device.name, "w/%s" % device.name, 1 + which % 2, size=40)
        will.delay_s = (0.0, 1.0, 2.0)[which]
        return will

    def publish(self):
        device = self.random.choice(self.publishers)
        if not device.may_publish():
            return
        choose, kind = self.random, self.random.random()
        size = choose.randrange(*LARGE) if choose.random() < 0.01 else choose.randrange(8, 120)
        options = {"size": size}
        if kind < 0.62:
            topic = choose.choice(TREE)
        elif kind < 0.76:
            topic = "sh/%d" % choose.randrange(3)
        elif kind < 0.78:
            topic = "nobody"
        elif device.version == 5 and kind < 0.92:
            topic = "r/%s/%d" % (device.name, choose.randrange(5))
            options["retain"] = True
            options["clear"] = choose.random() < 0.25
            if not options["clear"] and choose.random() < 0.1:
                options["expiry_s"] = 1
        elif device.version == 5:
            topic = "x/%d" % choose.randrange(2)
            options["expiry_s"] = choose.choice((1, 1, 60))
        else:
            topic = choose.choice(TREE)
        device.publish(self.world.publication(device.name, topic, choose.choice((1, 2)), **options))

    def change(self):
        """Something other than a message."""
        choose = self.random
        act = choose.choice((self.resubscribe, self.resubscribe, self.member, self.come_and_go, self.come_and_go,
                             self.take_over, self.clean_start, self.will, self.expire, self.answer))
        act()

    def resubscribe(self):
        device = self.random.choice((self.churn, self.retained_reader))
        if not device.ready or device.pending is not None:
            return
        if device is self.churn:
            filters = self.random.sample(CHURN, self.random.randrange(1, 3))
        else:
            filters = ["r/#"] if self.random.random() < 0.5 else ["r/p0/#", "r/p2/+"]
        if self.random.random() < 0.4:
            device.unsubscribe(filters)
        else:
            device.subscribe([(text, self.random.choice((1, 2)), self.random.choice((0, 0, 1)))
                              for text in filters])

    def member(self):
        member = self.random.choice(self.members)
        if member.ready and member.pending is None and member.filters and self.random.random() < 0.5:
            member.unsubscribe([self.subscribed[member][0][0]])
        elif member.ready and self.random.random() < 0.5:
            member.drop()

    def come_and_go(self):
        device = self.random.choice((self.slow, self.churn, self.retained_reader, self.starter, self.members[1],
                                     self.publishers[0], self.publishers[1], self.online))
        if device.ready:
            if device in self.publishers or self.random.random() < 0.5:
                device.drop()
            else:
                device.disconnect()

    def take_over(self):
        if self.taker.ready and not self.taker.older:
            self.taker.connect()

    def clean_start(self):
        if self.starter.connection is None or self.starter.ready:
            if self.starter.connection is not None:
                self.starter.drop()
            self.starter.connect(clean=self.random.random() < 0.6)

    def will(self):
        device = self.random.choice(self.willers)
        if device.ready:
            if self.random.random() < 0.7:
                device.drop()
            else:
                device.disconnect()

    def expire(self):
        if self.expiring.ready:
            self.expiring.drop()

    def answer(self):
        for device in (self.slow, self.members[1]):
            if device.ready:
                device.release_answers()

    # ---- phases

    def set_up(self):
        """Everybody gets a session; the offline one is not seen again until the end."""
        everybody = list(self.world.devices.values())
        self.world.pump_until(lambda: self._ready(everybody), "set up")
        self.offline.disconnect()

    def _ready(self, devices):
        for device in devices:
            self.ensure(device)
        return all(device.ready and device.pending is None and
                   all(each[0] in device.filters for each in self.subscribed.get(device, ()))
                   for device in devices)

    def load(self, seconds):
        """Until the broker is killed; at the latest after `seconds`."""
        away = {self.offline, self.expiring}
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.world.is_dead:
            for device in self.world.devices.values():
                if device not in away and (device.connection is not None or self.random.random() < 0.1) and \
                        not (device in self.willers and device.connection is None):
                    self.ensure(device)
            for _ in range(self.random.randrange(1, 12)):
                self.publish()
            if self.random.random() < 0.5:
                self.change()
            self.world.pump(self.random.choice((0.0, 0.001, 0.004)))

    def crashes(self):
        choose = self.random
        for _ in range(choose.choice((1, 1, 2, 2, 3, 4))):
            if choose.random() < 0.7:
                self.world.kill_in = choose.randrange(1, 500)
            self.load(choose.uniform(0.02, 0.4))
            self.world.crash(gently=choose.random() < 0.1)
            if choose.random() < 0.1:
                time.sleep(choose.uniform(0, 1.2))  # times go on counting while the broker is away
            self.world.start(killed_first=choose.choice((0, 0, 0, 0, 1, 2)))
            if choose.random() < 0.5:
                self.look_at_retained()

    def look_at_retained(self):
        """A new client reads all retained messages. A message of its own marks their end."""
        found, ended = {}, []
        world = self.world
        probe = Device(world, "probe", expiry_s=0)
        last = world.publication("probe", "probe", 1, size=20)

        def on_message(publication, packet):
            if publication is last:
                ended.append(True)
            elif packet.topic in found or not packet.retain:
                self.model.report("retained", "the probe got %s twice or live", publication)
            else:
                found[packet.topic] = publication
        probe.model, probe.on_message = Model(), on_message
        probe.connect(clean=True)
        problem = world.pump_until(lambda: probe.ready, "CONNACK of the probe")
        probe.subscribe([("probe", 0, 0), ("r/#", 0, 0)])
        problem = problem or world.pump_until(lambda: probe.pending is None, "SUBACK of the probe")
        probe.publish(last)
        problem = problem or world.pump_until(lambda: ended, "retained messages")
        if problem:
            mqtt.fail("%s never came", problem)
        self.model.snapshot(found, world.now())
        probe.disconnect()
        del world.devices["probe"]

    def end(self):
        """Everybody comes back and waits for what is still to come."""
        world, model = self.world, self.model
        self.slow.hold_answers = self.members[1].hold_answers = False
        waiting = [device for device in self.willers if self.stays_away(device)]
        if self.expiring.connection is None and self.random.random() < 0.06:
            waiting.append(self.expiring)
        back = [device for device in world.devices.values() if device not in waiting]
        if world.pump_until(lambda: self._ready(back), "all clients"):
            mqtt.fail("not all clients came back: %s", [each.name for each in back if not each.ready])
        seen = model.client(self.will_reader.name).session.receiver.times

        def over():
            now = world.now()
            for device in self.willers:
                if device in waiting:
                    model.will_due(device.name, now)
            return not any(device.outgoing for device in back) and \
                all(device is self.expiring or model.client(device.name).will in seen for device in waiting) and \
                not any(owed for name, owed in model.owed(now) if name != self.expiring.name or self.expiring in back)
        world.pump_until(over, "everything")
        if self.expiring in waiting:
            self.expire_at_last()
        self.settle(back)
        self.look_at_retained()
        model.finish(world.now())

    def stays_away(self, device):
        """Some of those who are away without having said good-bye stay so until their will has been published."""
        will = self.model.client(device.name).will
        likely = 0.1 if will is not None and will.delay_s > 1 else 0.4
        return device.connection is None and will is not None and will.open and self.random.random() < likely

    def expire_at_last(self):
        """The session that ends after a second must be gone when that is certain."""
        latest = self.model.client(self.expiring.name).expires[1] + 0.1
        self.world.pump_until(lambda: self.world.now() > latest, "expiry")
        if self.world.pump_until(lambda: self._ready([self.expiring]), "the client whose session expired"):
            mqtt.fail("the client whose session expired did not come back")

    def settle(self, devices):
        for device in devices:
            device.ping()
        self.world.pump_until(lambda: all(device.pings == 0 for device in devices), "PINGRESP")
        for device in devices:
            self.model.settled(device.name, self.world.now())


class Tally:
    def __init__(self):
        self.rounds = self.failed = self.crashes = 0
        self.acknowledged = self.delivered = self.published = self.repeated_scans = 0
        self.kinds = collections.Counter()
        self.start_s = []

    def add(self, world, violations):
        self.rounds += 1
        self.failed += bool(violations)
        self.kinds.update(kind for kind, _ in violations)
        self.crashes += len(world.start_s) - 1
        self.acknowledged += world.model.acknowledgements
        self.delivered += world.model.deliveries
        self.published += len(world.publications)
        self.start_s += world.start_s[1:]
        for state in world.model.clients.values():
            if state.session is not None:
                self.repeated_scans += state.session.receiver.repeated_scans

    def show(self):
        starts = sorted(self.start_s) or [0.0]
        print("%d rounds, %d crashes, %d messages, %d acknowledgements, %d deliveries" % (
            self.rounds, self.crashes, self.published, self.acknowledged, self.delivered))
        print("start after a crash: median %.0f ms, longest %.0f ms" % (
            starts[len(starts) // 2] * 1000, starts[-1] * 1000))
        print("retained messages again at QoS 2: %d" % self.repeated_scans)
        print("lost %d, duplicated at QoS 2 %d%s" % (
            self.kinds["lost"], self.kinds["twice"],
            "".join(", %s %d" % each for each in sorted(self.kinds.items()) if each[0] not in ("lost", "twice"))))
        print("%d passed, %d failed" % (self.rounds - self.failed, self.failed))


def run_round(options, seed, tally):
    directory = tempfile.mkdtemp(prefix="crash-", dir=options.directory)
    broker = world = None
    violations = []
    try:
        inflight = (1, 3, 20, 100)[seed % 4]
        settings = ["max_queued_messages 0", "max_queued_bytes 0", "max_inflight_messages %d" % inflight]
        if seed % 3 == 2:
            settings.append("io_threads 2")
        broker = Broker(options.broker, directory, settings)
        world = World(broker, seed, options.network_only)
        story = Round(world)
        world.start()
        try:
            story.set_up()
            story.crashes()
            story.end()
            for device in world.devices.values():
                device.forget()
            broker.terminate()
        except mqtt.TestFailure as failure:
            world.model.report("protocol", "%s", failure)
        violations = world.model.violations
        tally.add(world, violations)
        if violations:
            print("seed %d: %d violations" % (seed, len(violations)))
            for kind, text in violations[:options.show]:
                print("    %-10s %s" % (kind, text[:300]))
            if any(kind == "protocol" for kind, _ in violations):
                print("    log: %s" % broker.log_tail()[-600:])
            for name, device in world.devices.items():
                if name in options.trace.split(","):
                    print("    %s" % "\n    ".join([name] + device.history))
            sys.stdout.flush()
    finally:
        if broker is not None:
            broker.kill()
        if violations and options.keep:
            shutil.move(directory, os.path.join(options.keep, "seed-%d" % seed))
        else:
            shutil.rmtree(directory, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description="Kills a broker and looks for what it had acknowledged.")
    parser.add_argument("broker", help="the executable")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each has the next one")
    parser.add_argument("--network-only", action="store_true",
                        help="cut all connections instead of killing: what a broker without files passes too")
    parser.add_argument("--directory", help="where the broker's files are put; default: the system's")
    parser.add_argument("--keep", help="a directory for the files and logs of failed rounds")
    parser.add_argument("--trace", default="", help="clients (s0, r0, ...) whose packets are shown when a round fails")
    parser.add_argument("--show", type=int, default=10, help="violations of a round that are shown")
    options = parser.parse_args()
    tally = Tally()
    begin = time.monotonic()
    for seed in range(options.seed, options.seed + options.rounds):
        run_round(options, seed, tally)
        if options.rounds > 100 and tally.rounds % 100 == 0:
            print("%d rounds, %d failed, %.0f s" % (tally.rounds, tally.failed, time.monotonic() - begin), flush=True)
    tally.show()
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
