#!/usr/bin/env python3
"""Invented histories for the model, and traces for sync_test: what a broker may do passes, what it may not is found."""
import os
import sys
import types
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import sync_test  # noqa: E402
from model import SLACK_S, Model, Publication, matches  # noqa: E402


class History:
    """Tells a model short stories. Time passes only where a story says so."""

    def __init__(self):
        self.model, self.at, self.made, self.connections = Model(), 1000.0, 0, {}

    def connect(self, name, present=False, clean=False, expiry_s=3600, will=None, answered=True):
        self.connections[name] = self.connections.get(name, 0) + 1
        self.model.connect_sent(name, self.connections[name], clean, expiry_s, self.at, will)
        if answered:
            self.model.connack(name, present, self.at)

    def subscribe(self, name, text="t/#", qos=2, handling=0, answered=True):
        self.model.subscribing(name, [(text, qos, handling)])
        if answered:
            self.model.subscribed(name, [qos])

    def unsubscribe(self, name, text="t/#", code=0, answered=True):
        self.model.unsubscribing(name, [text])
        if answered:
            self.model.unsubscribed(name, [code])

    def message(self, qos=2, topic="t/1", payload=b"x", **options):
        self.made += 1
        return Publication(self.made, "p", topic, qos, payload, **options)

    def publish(self, message=None, acknowledged=True, reason=0, **options):
        message = message or self.message(**options)
        self.model.published(message, self.at)
        if acknowledged:
            self.model.acknowledged(message, self.at, reason)
        return message

    def deliver(self, name, message, pid=1, qos=None, dup=False, retain=False, payload=None, answer=True,
                remaining_s=None):
        packet = types.SimpleNamespace(
            pid=pid, qos=message.qos if qos is None else qos, dup=dup, retain=retain, topic=message.topic,
            payload=message.payload if payload is None else payload)
        self.model.delivered(name, self.connections[name], message, packet, self.at, remaining_s)
        if answer and packet.qos:
            self.receiver(name).answered(pid)

    def finish_qos2(self, name, pid=1):
        self.receiver(name).release(self.connections[name], pid)
        self.receiver(name).completed(pid)

    def receiver(self, name):
        return self.model.client(name).session.receiver

    def crash(self, down_s=0.1, forgets=True):
        self.model.crashed(self.at, forgets)
        self.at += down_s
        self.model.restarted(self.at)

    def pair(self):
        """A subscriber `s` with t/# and a publisher `p`."""
        self.connect("s")
        self.subscribe("s")
        self.connect("p")
        return self

    def end(self):
        for name, client in self.model.clients.items():
            if client.connection is not None:
                self.model.settled(name, self.at)
        self.model.finish(self.at)
        return [kind for kind, _ in self.model.violations]


class ModelTest(unittest.TestCase):
    def setUp(self):
        self.h = History()

    def expect(self, *kinds):
        self.assertEqual(sorted(self.h.end()), sorted(kinds), self.h.model.violations)

    # ---- filters

    def test_filters(self):
        for text, topic, wanted in (("a/b", "a/b", True), ("a/+", "a/b", True), ("a/#", "a", True),
                                    ("#", "a/b", True), ("a/+", "a/b/c", False), ("a/b/c", "a/b", False),
                                    ("+", "a", True), ("a/+/#", "a/b", True), ("b/#", "a", False)):
            self.assertEqual(matches(text, topic), wanted, (text, topic))

    # ---- messages

    def test_acknowledged_message_comes_after_a_crash(self):
        message = self.h.pair().publish()
        self.h.crash()
        self.h.connect("s", present=True)
        self.h.deliver("s", message)
        self.h.finish_qos2("s")
        self.expect()

    def test_acknowledged_message_is_lost(self):
        self.h.pair().publish(qos=1)
        self.h.crash()
        self.h.connect("s", present=True)
        self.expect("lost")

    def test_unacknowledged_message_may_be_lost(self):
        self.h.pair().publish(acknowledged=False)
        self.h.crash()
        self.h.connect("s", present=True)
        self.expect()

    def test_message_that_is_sent_again_is_a_promise_from_its_acknowledgement_on(self):
        message = self.h.pair().publish(acknowledged=False)
        self.h.crash()
        self.h.publish(message)
        self.expect("lost")

    def test_message_before_the_subscription_does_not_come(self):
        self.h.connect("s")
        message = self.h.publish()
        self.h.subscribe("s")
        self.h.deliver("s", message)
        self.h.finish_qos2("s")
        self.expect("unexpected")

    def test_message_during_the_subscription_may_come_or_not(self):
        self.h.connect("s")
        message = self.h.publish(acknowledged=False)
        self.h.subscribe("s")
        self.h.model.acknowledged(message, self.h.at)
        self.expect()

    def test_message_while_unsubscribing_may_come_or_not(self):
        self.h.pair()
        self.h.unsubscribe("s", answered=False)
        self.h.publish()
        self.h.crash()
        self.h.connect("s", present=True)
        self.expect()

    def test_no_matching_subscribers_although_there_is_one(self):
        message = self.h.pair().publish(reason=0x10)
        self.h.deliver("s", message)
        self.h.finish_qos2("s")
        self.expect("lost")

    def test_wrong_payload_and_wrong_qos(self):
        first, second = self.h.pair().publish(qos=1), self.h.publish(qos=1)
        self.h.deliver("s", first, pid=1, payload=b"y")  # is not it
        self.h.deliver("s", second, pid=2, qos=2)
        self.h.finish_qos2("s", 2)
        self.expect("corrupt", "unexpected", "lost")

    def test_refusal(self):
        self.h.pair().publish(reason=0x97)
        self.expect("refused")

    # ---- order

    def test_order_of_one_publisher_and_topic(self):
        self.h.pair()
        first, second = self.h.publish(qos=1), self.h.publish(qos=1)
        self.h.deliver("s", second, pid=1)
        self.h.deliver("s", first, pid=2)
        self.expect("order")

    def test_repetition_keeps_the_order_of_first_sight(self):
        self.h.pair()
        first = self.h.publish(qos=1, acknowledged=False)
        second = self.h.publish(qos=1, acknowledged=False)
        self.h.deliver("s", first, pid=1)
        self.h.deliver("s", second, pid=2)
        self.h.crash()
        self.h.connect("s", present=True)
        for pid, message in enumerate((first, second), 3):
            self.h.publish(message)
            self.h.deliver("s", message, pid=pid)
        self.expect()

    def test_resent_after_something_new(self):
        self.h.pair()
        first = self.h.publish()
        self.h.deliver("s", first, pid=1, answer=False)
        second = self.h.publish(topic="t/2")
        self.h.crash()
        self.h.connect("s", present=True)
        self.h.deliver("s", second, pid=2)
        self.h.deliver("s", first, pid=1, dup=True)
        self.h.finish_qos2("s", 1)
        self.h.finish_qos2("s", 2)
        self.expect("order")

    # ---- exactly once

    def test_qos2_repeated_before_pubrel_is_one(self):
        message = self.h.pair().publish()
        self.h.deliver("s", message)
        self.h.crash()
        self.h.connect("s", present=True)
        self.h.deliver("s", message, dup=True)
        self.h.finish_qos2("s")
        self.expect()

    def test_qos2_again_after_pubrel(self):
        message = self.h.pair().publish()
        self.h.deliver("s", message)
        self.h.receiver("s").release(1, 1)
        self.h.crash()
        self.h.connect("s", present=True)
        self.h.deliver("s", message, dup=True)
        self.h.finish_qos2("s")
        self.expect("twice")

    def test_qos2_under_another_identifier(self):
        message = self.h.pair().publish()
        self.h.deliver("s", message, pid=1)
        self.h.crash()
        self.h.connect("s", present=True)
        self.h.deliver("s", message, pid=2)
        self.h.finish_qos2("s", 1)
        self.h.finish_qos2("s", 2)
        self.expect("twice", "packet id")

    def test_qos2_of_the_publisher_twice(self):
        message = self.h.pair().publish(acknowledged=False)
        self.h.deliver("s", message)
        self.h.finish_qos2("s")
        self.h.crash()
        self.h.connect("s", present=True)
        self.h.publish(message)
        self.h.deliver("s", message, pid=2)
        self.h.finish_qos2("s", 2)
        self.expect("twice")

    def test_qos1_twice_needs_dup_or_a_second_publish(self):
        message = self.h.pair().publish(qos=1)
        self.h.deliver("s", message, pid=1)
        self.h.crash(forgets=False)
        self.h.connect("s", present=True)
        self.h.deliver("s", message, pid=1, dup=True)
        self.expect()
        self.h.deliver("s", message, pid=2)
        self.expect("duplicate", "packet id")

    # ---- packet identifiers

    def test_in_flight_is_continued(self):
        message = self.h.pair().publish(qos=1)
        self.h.deliver("s", message, answer=False)
        self.h.crash()
        self.h.connect("s", present=True)
        self.expect("lost")

    def test_exchange_that_got_pubrel_is_continued(self):
        message = self.h.pair().publish()
        self.h.deliver("s", message)
        self.h.crash()
        self.h.connect("s", present=True)
        self.expect("lost")
        self.h.model.violations.clear()
        self.h.finish_qos2("s")
        self.expect()

    def test_qos1_in_flight_at_a_crash_comes_under_its_identifier(self):
        message = self.h.pair().publish(qos=1)
        self.h.deliver("s", message, pid=1, answer=False)
        self.h.crash()
        self.h.connect("s", present=True)
        self.h.deliver("s", message, pid=1, dup=True)
        self.expect()

    def test_qos1_in_flight_at_a_crash_comes_on_each_connection_after_it(self):
        message = self.h.pair().publish(qos=1, acknowledged=False)
        self.h.deliver("s", message, pid=1, answer=False)
        self.h.crash()
        for _ in range(2):
            self.h.connect("s", present=True)
            self.h.deliver("s", message, pid=1, dup=True, answer=False)
            self.h.model.closed("s", self.h.at)
        self.expect()

    def test_qos1_in_flight_at_a_crash_comes_as_new(self):
        message = self.h.pair().publish(qos=1)
        self.h.deliver("s", message, pid=1, answer=False)
        self.h.crash()
        self.h.connect("s", present=True)
        self.h.deliver("s", message, pid=2)
        self.expect("packet id", "duplicate", "lost")

    def test_qos1_that_nobody_was_promised_comes_as_new_when_it_is_published_again(self):
        message = self.h.pair().publish(qos=1, acknowledged=False)
        self.h.deliver("s", message, pid=1, answer=False)
        self.h.crash()
        self.h.connect("s", present=True)
        self.h.connect("p", present=True)
        self.h.publish(message)
        self.h.deliver("s", message, pid=2)
        self.expect()

    def test_qos1_that_nobody_was_promised_comes_as_new_by_itself(self):
        message = self.h.pair().publish(qos=1, acknowledged=False)
        self.h.deliver("s", message, pid=1, answer=False)
        self.h.crash()
        self.h.connect("s", present=True)
        self.h.deliver("s", message, pid=2)
        self.expect("packet id")

    def test_dup_is_missing(self):
        message = self.h.pair().publish(qos=1)
        self.h.deliver("s", message, answer=False)
        self.h.crash(forgets=False)
        self.h.connect("s", present=True)
        self.h.deliver("s", message)
        self.expect("packet id", "duplicate")

    def test_dup_on_the_first_connection(self):
        message = self.h.pair().publish(qos=1)
        self.h.deliver("s", message, dup=True)
        self.expect("packet id")

    def test_identifier_in_flight_is_not_given_away(self):
        self.h.pair()
        first, second = self.h.publish(), self.h.publish()
        self.h.deliver("s", first)
        self.h.deliver("s", second)
        self.h.finish_qos2("s")
        self.expect("packet id")

    def test_identifier_is_free_after_the_exchange(self):
        self.h.pair()
        for _ in range(2):
            self.h.deliver("s", self.h.publish())
            self.h.finish_qos2("s")
        for _ in range(2):
            self.h.deliver("s", self.h.publish(qos=1))
        self.expect()

    def test_pubrel_without_pubrec(self):
        self.h.pair()
        self.h.finish_qos2("s", 7)
        self.expect("packet id")

    # ---- sessions

    def test_session_is_lost(self):
        self.h.pair()
        self.h.crash()
        self.h.connect("s", present=False)
        self.expect("lost")

    def test_session_whose_connack_never_came(self):
        self.h.connect("s", answered=False)
        self.h.crash()
        self.h.connect("s", present=True)
        self.h.crash()
        self.h.connect("s", present=True)
        self.expect()

    def test_clean_start_that_was_acknowledged_stays(self):
        message = self.h.pair().publish()
        self.h.connect("s", clean=True)
        self.h.crash()
        self.h.connect("s", present=True)
        self.h.deliver("s", message)
        self.h.finish_qos2("s")
        self.expect("unexpected")

    def test_clean_start_that_was_not_acknowledged_leaves_both(self):
        message = self.h.pair().publish()
        self.h.connect("s", clean=True, answered=False)
        self.h.crash()
        self.h.connect("s", present=True)
        self.h.deliver("s", message)
        self.expect()

    def test_present_after_clean_start(self):
        self.h.pair()
        self.h.connect("s", clean=True, present=True)
        self.expect("session")

    def test_expiry(self):
        for away_s, present, kinds in ((0.5, True, ()), (0.5, False, ("lost",)), (1.2, True, ()), (1.2, False, ()),
                                       (9.0, False, ()), (9.0, True, ("session",))):
            self.h = History()
            self.h.connect("s", expiry_s=1)
            self.h.model.closed("s", self.h.at)
            self.h.at += away_s
            self.h.connect("s", present=present, expiry_s=1)
            self.expect(*kinds)

    def test_expiry_goes_on_while_the_broker_is_away(self):
        self.h.connect("s", expiry_s=3)
        self.h.model.closed("s", self.h.at)
        self.h.at += 2.0
        self.h.crash(down_s=3.0)
        self.h.connect("s", present=True, expiry_s=3)
        self.expect("session")

    def test_expiry_of_a_client_that_was_connected_begins_with_the_crash_or_the_start(self):
        for present in (True, False):
            self.h = History()
            self.h.connect("s", expiry_s=2)
            self.h.crash(down_s=3.0)
            self.h.connect("s", present=present, expiry_s=2)
            self.expect()

    # ---- subscriptions

    def test_unsubscribe_tells_of_a_lost_subscription(self):
        self.h.pair()
        self.h.crash()
        self.h.connect("s", present=True)
        self.h.unsubscribe("s", code=0x11)
        self.expect("lost")

    def test_unsubscribed_stays_so(self):
        self.h.pair()
        self.h.unsubscribe("s")
        self.h.crash()
        self.h.connect("s", present=True)
        message = self.h.publish()
        self.h.deliver("s", message)
        self.h.finish_qos2("s")
        self.expect("unexpected")

    # ---- shared subscriptions

    def group(self):
        for name in ("a", "b"):
            self.h.connect(name)
            self.h.subscribe(name, "$share/g/t/#")
        self.h.connect("p")

    def test_one_member_gets_it(self):
        self.group()
        self.h.deliver("b", self.h.publish())
        self.h.finish_qos2("b")
        self.expect()

    def test_no_member_gets_it(self):
        self.group()
        self.h.publish()
        self.expect("lost")

    def test_both_members_get_it_at_qos2(self):
        self.group()
        message = self.h.publish()
        for name in ("a", "b"):
            self.h.deliver(name, message)
            self.h.finish_qos2(name)
        self.expect("twice")

    def test_the_last_member_leaves(self):
        self.group()
        self.h.publish()
        for name in ("a", "b"):
            self.h.unsubscribe(name, "$share/g/t/#")
        self.expect()

    # ---- retained messages

    def retained(self, payload=b"v", **options):
        return self.h.publish(topic="r/1", payload=payload, retain=True, qos=1, **options)

    def snapshot(self, *found):
        self.h.model.snapshot({each.topic: each for each in found}, self.h.at)

    def test_retained_is_the_last_acknowledged_or_newer(self):
        old, acknowledged = self.retained(), self.retained()
        newer = self.retained(acknowledged=False)
        self.snapshot(acknowledged)
        self.snapshot(newer)
        self.expect()
        self.snapshot(old)
        self.snapshot()
        self.expect("retained", "lost")

    def test_clear_is_kept(self):
        old = self.retained()
        self.retained(payload=b"")
        self.snapshot()
        self.expect()
        self.snapshot(old)
        self.expect("retained")

    def test_older_one_that_was_sent_again_at_qos1_may_be_the_last(self):
        old = self.retained(acknowledged=False)
        new = self.h.publish(topic="r/1", payload=b"w", retain=True, qos=2, acknowledged=False)
        self.h.crash()
        for message in (old, new):
            self.h.publish(message)
        self.snapshot(old)
        self.snapshot(new)
        self.expect()

    def test_retained_expires(self):
        message = self.retained(expiry_s=1)
        self.snapshot(message)
        self.h.at += 1.1
        self.snapshot()
        self.expect()
        self.h.at += 2.0
        self.snapshot(message)
        self.expect("expiry")

    def test_new_subscription_gets_the_retained_message(self):
        message = self.retained()
        self.h.connect("s")
        self.h.subscribe("s", "r/#", qos=1)
        self.h.crash()
        self.h.connect("s", present=True)
        self.assertEqual([owed for name, owed in self.h.model.owed(self.h.at) if name == "s"],
                         [["the retained message of r/1"]])
        self.h.deliver("s", message, retain=True)
        self.expect()

    def test_retained_message_comes_before_suback(self):
        message = self.retained()
        self.h.connect("s")
        self.h.subscribe("s", "r/#", qos=1, answered=False)
        self.h.deliver("s", message, retain=True)
        self.h.model.subscribed("s", [1])
        self.expect()

    def test_retained_after_a_newer_live_one(self):
        old = self.retained()
        self.h.connect("s")
        self.h.subscribe("s", "r/#", qos=1)
        new = self.retained()
        self.h.deliver("s", new, pid=1)
        self.h.deliver("s", old, pid=2, retain=True)
        self.expect("order")

    # ---- expiry and wills

    def test_expired_message_is_not_owed_and_does_not_come(self):
        message = self.h.pair().publish(qos=1, expiry_s=1)
        self.h.crash(down_s=1.5)
        self.h.connect("s", present=True)
        self.expect()
        self.h.at += 2.0
        self.h.deliver("s", message)
        self.expect("expiry")

    def test_remaining_time_counts_down(self):
        message = self.h.pair().publish(qos=1, expiry_s=60)
        self.h.crash(down_s=10.0)
        self.h.connect("s", present=True)
        self.h.deliver("s", message, remaining_s=50)
        self.expect()
        self.h = History()
        message = self.h.pair().publish(qos=1, expiry_s=60)
        self.h.crash(down_s=10.0)
        self.h.connect("s", present=True)
        self.h.deliver("s", message, remaining_s=60)
        self.expect("expiry")

    def will(self, delay_s=1.0):
        will = self.h.message(topic="t/w")
        will.delay_s = delay_s
        self.h.pair()
        self.h.connect("w", will=will)
        return will

    def test_will_comes_once_after_its_delay(self):
        will = self.will()
        self.h.crash()
        self.h.connect("s", present=True)
        self.h.at += 1.2
        self.h.deliver("s", will)
        self.h.finish_qos2("s")
        self.h.model.will_due("w", self.h.at)
        self.expect()

    def test_will_is_lost(self):
        self.will()
        self.h.model.closed("w", self.h.at)
        self.h.crash()
        self.h.at += 1.0 + SLACK_S + 0.1
        self.h.model.will_due("w", self.h.at)
        self.expect("lost")

    def test_will_comes_early_or_late(self):
        for wait_s, kinds in ((0.2, ["will"]), (4.0, ["will"])):
            self.h = History()
            will = self.will()
            self.h.model.closed("w", self.h.at)
            self.h.at += wait_s
            self.h.deliver("s", will)
            self.h.finish_qos2("s")
            self.expect(*kinds)

    def test_no_will_before_the_connection_ends(self):
        will = self.will()
        self.h.deliver("s", will)
        self.h.finish_qos2("s")
        self.expect("unexpected")

    def test_will_of_who_came_back_is_not_owed(self):
        self.will()
        self.h.crash()
        self.h.connect("w", present=True)
        self.h.at += 10.0
        self.h.model.will_due("w", self.h.at)
        self.expect()


class TraceTest(unittest.TestCase):
    """Invented traces: sync_test must see which acknowledgements leave early."""
    FILE = "4<%s>" % "".join("\\x%02x" % byte for byte in b"/data/dunlin.db")
    META = FILE.replace("4", "5", 1)
    SOCKET = "9<TCP:[127.0.0.1:1883->127.0.0.1:4000]>"

    def hex(self, data):
        return '"%s"' % "".join("\\x%02x" % byte for byte in data)

    def judge(self, *calls):
        lines = ["%d  1.0 %s\n" % (thread, text) for thread, text in calls]
        return sync_test.check(sync_test.parse_trace(lines), 4000,
                               sync_test.Promise("PUBACK", "mark", b"\x40\x02\x00\x01"))

    def calls(self):
        opened = (1, "openat(AT_FDCWD<\\x2f>, \"\\x64\", O_RDWR|O_DSYNC) = %s" % self.META)
        write = (1, "pwrite64(%s, %s, 6, 0) = 6" % (self.FILE, self.hex(b"xmarkx")))
        sync = (1, "fdatasync(%s) = 0" % self.FILE)
        meta = (1, "pwrite64(%s, %s, 2, 0) = 2" % (self.META, self.hex(b"mm")))
        send = (2, "write(%s, %s, 4) = 4" % (self.SOCKET, self.hex(b"\x40\x02\x00\x01")))
        return opened, write, sync, meta, send

    def test_right_order(self):
        opened, write, sync, meta, send = self.calls()
        self.assertIsNone(self.judge(opened, write, sync, meta, send))
        self.assertIsNone(self.judge(write, sync, send))

    def test_wrong_orders(self):
        opened, write, sync, meta, send = self.calls()
        for calls in ((write, send, sync), (sync, write, send), (write, send), (send,), (write, sync),
                      (opened, write, sync, send, meta), (opened, meta, write, sync, send)):
            self.assertIsNotNone(self.judge(*calls), calls)

    def test_sync_that_has_not_returned(self):
        _, write, sync, _, send = self.calls()
        begun = (1, "fdatasync(%s <unfinished ...>" % self.FILE)
        ended = (1, "<... fdatasync resumed>) = 0")
        self.assertIsNotNone(self.judge(write, begun, send, ended))
        self.assertIsNone(self.judge(write, begun, ended, send))
        self.assertIsNotNone(self.judge((3, begun[1]), write, (3, ended[1]), send))


class Result(unittest.TextTestResult):
    passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1


if __name__ == "__main__":
    outcome = unittest.TextTestRunner(resultclass=Result, stream=sys.stdout).run(
        unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__]))
    print("%d passed, %d failed" % (outcome.passed, outcome.testsRun - outcome.passed))
    sys.exit(not outcome.wasSuccessful())
