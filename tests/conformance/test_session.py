"""Sessions: clean or kept, their expiry, what they keep, and what is sent again after reconnection."""
import time

import mqtt
from harness import check, proves, same
from mqtt import PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, ack, connect, disconnect, publish, u16

ALL = (3, 4, 5)


@proves("3.1.2-4 3.1.2-6 3.1.4-3 3.2.2-1 3.2.2-2 3.2.2-3",
        "3.1.2-4 3.1.2-5 3.1.2-6 3.1.2-23 3.1.4-4 3.2.2-2 3.2.2-3")
def session_present_tells_whether_a_session_was_kept(t):
    name = t.id()
    for clean, wanted in ((False, False), (False, True), (False, True), (True, False)):
        c = t.session(name, clean=clean)
        same("session present with clean %r" % clean, c.connack.session_present, wanted)
        c.disconnect()
    c = t.session(name)
    # 3.1.1: the session of a Clean Session 1 connection ends with it; 5.0: its expiry interval decides.
    same("session present after a clean one", c.connack.session_present, t.v == 5)


@proves("3.1.2-4 3.1.2-5 4.1.0-1 4.5.0-1", "3.1.2-5 3.1.2-23 4.1.0-1 4.5.0-1", ALL)
def messages_wait_for_a_kept_session(t):
    topic = t.topic()
    s = t.session()
    s.subscribe((topic, 2))
    s.disconnect()
    p = t.client()
    for i in range(20):
        p.publish(topic, "%d" % i, qos=1 + i % 2)
    s = t.session(s.id)
    got = s.messages(20, topic=topic)
    for qos in (1, 2):  # order holds within a QoS
        same("QoS %d" % qos, [x.payload for x in got if x.qos == qos],
             [b"%d" % i for i in range(20) if 1 + i % 2 == qos])
    t.nothing(p, s)


@proves("4.6.0-6", "4.6.0-5", ALL)
def messages_queued_offline_come_in_order(t):
    topic = t.topic()
    s = t.session()
    s.subscribe((topic, 1))
    s.drop()
    p = t.client()
    for i in range(60):
        p.publish(topic, "%d" % i, qos=1)
    s = t.session(s.id)
    same("order", [x.payload for x in s.messages(60)], [b"%d" % i for i in range(60)])


@proves("3.1.2-6 4.1.0-2", "3.1.2-4", ALL)
def clean_session_discards_subscriptions_and_messages(t):
    topic = t.topic()
    s = t.session()
    s.subscribe((topic, 1))
    s.disconnect()
    p = t.client()
    p.publish(topic, "lost", qos=1)
    s = t.client(s.id)
    same("session present", s.connack.session_present, False)
    p.publish(topic, "not subscribed", qos=1)
    t.nothing(p, s)


@proves("3.1.2-6", "4.1.0-2 3.1.2-23", ALL)
def session_without_expiry_ends_with_the_connection(t):
    topic = t.topic()
    s = t.client()
    s.subscribe((topic, 1))
    s.drop()
    p = t.client()
    again = t.session(s.id)
    same("session present", again.connack.session_present, False)
    p.publish(topic, "not subscribed", qos=1)
    t.nothing(p, again)


@proves("3.1.3-2", "3.1.3-2", ALL)
def sessions_belong_to_their_client_id(t):
    a, b = t.session(), t.session()
    one, two = t.topic(), t.topic()
    a.subscribe((one, 1))
    b.subscribe((two, 1))
    a.disconnect()
    b.disconnect()
    p = t.client()
    p.publish(one, "a", qos=1)
    p.publish(two, "b", qos=1)
    a, b = t.session(a.id), t.session(b.id)
    a.message(one, "a")
    b.message(two, "b")
    t.nothing(p, a, b)
    other = t.session(a.id.upper())
    same("session of the same name in upper case", other.connack.session_present, False)


@proves("", "4.1.0-2 3.1.2-23")
def session_expires_after_its_interval(t):
    s = t.session(expiry=1)
    s.subscribe((t.topic(), 1))
    s.drop()
    t.wait(3.2)
    same("session present", t.session(s.id).connack.session_present, False)


@proves("", "4.1.0-1 4.1.0-2")
def session_lives_until_its_interval_is_over(t):
    s = t.session(expiry=3)
    t.wait(1.2)  # the interval counts from the end of the connection, not from its start
    s.drop()
    t.wait(1.2)
    same("session present", t.session(s.id).connack.session_present, True)


@proves("", "4.1.0-2")
def session_expiry_can_be_set_at_disconnect(t):
    s = t.session(expiry=120)
    s.disconnect(0, {"session_expiry": 0})
    same("session present", t.session(s.id).connack.session_present, False)
    s = t.session(expiry=1)
    s.disconnect(0, {"session_expiry": 120})
    t.wait(3.2)
    same("session present", t.session(s.id).connack.session_present, True)


@proves("", "4.13.1-1")
def session_expiry_cannot_rise_from_zero_at_disconnect(t):
    s = t.client(properties={"session_expiry": 0})
    s.send(disconnect(5, 0, {"session_expiry": 60}))
    s.expect_error(0x82)
    same("session present", t.session(s.id).connack.session_present, False)


@proves("", "3.1.2-23")
def session_expiry_ffffffff_never_ends(t):
    s = t.session(expiry=0xFFFFFFFF)
    s.disconnect()
    c = t.session(s.id)
    same("session present", c.connack.session_present, True)
    same("session expiry", c.connack.get("session_expiry", 0xFFFFFFFF) > 0, True)


@proves("", "4.1.0-2 3.1.2-23")
def clean_start_with_expiry_keeps_the_new_session(t):
    s = t.client(properties={"session_expiry": 60})
    s.disconnect()
    same("session present", t.session(s.id).connack.session_present, True)


@proves("3.1.2-7", "", ALL)
def retained_messages_outlive_the_session(t):
    topic = t.topic()
    c = t.client()
    c.publish(topic, "stays", qos=1, retain=True)
    c.disconnect()
    s = t.client()
    s.subscribe(topic)
    s.message(topic, "stays", retain=True)
    t.client(c.id).publish(topic, b"", qos=1, retain=True)


@proves("3.3.1-1 4.4.0-1 2.3.1-4 4.3.2-1", "3.3.1-1 4.4.0-1 4.3.2-3 2.2.1-4", ALL)
def unacknowledged_qos_1_is_sent_again_with_dup(t):
    topic = t.topic()
    s = t.session()
    s.subscribe((topic, 1))
    p = t.client()
    for i in range(5):
        p.publish(topic, "%d" % i, qos=1)
    first = [s.expect(PUBLISH, topic=topic, qos=1, dup=False) for _ in range(5)]
    s.send(ack(PUBACK, first[1].pid))
    s.ping()
    s.drop()
    s = t.session(s.id)
    again = [s.expect(PUBLISH, topic=topic, qos=1, dup=True) for _ in range(4)]
    left = first[:1] + first[2:]
    same("payloads", [x.payload for x in again], [x.payload for x in left])
    same("packet identifiers", [x.pid for x in again], [x.pid for x in left])
    for x in again:
        s.answer(x)
    t.nothing(p, s)


@proves("4.4.0-1 4.3.3-1 4.6.0-1", "4.4.0-1 4.3.3-3 4.3.3-5 4.3.3-6", ALL)
def unacknowledged_qos_2_continues_where_it_was(t):
    topic = t.topic()
    s = t.session()
    s.subscribe((topic, 2))
    p = t.client()
    for i in range(3):
        p.publish(topic, "%d" % i, qos=2)
    first = [s.expect(PUBLISH, topic=topic, qos=2, dup=False) for _ in range(3)]
    s.send(ack(PUBREC, first[0].pid))
    s.expect(PUBREL, pid=first[0].pid)
    s.drop()
    s = t.session(s.id)
    got = [s.receive() for _ in range(3)]
    rel = [x for x in got if x.kind == PUBREL]
    pub = [x for x in got if x.kind == PUBLISH]
    same("PUBREL", [x.pid for x in rel], [first[0].pid])
    same("PUBLISH", [(x.pid, x.payload, x.dup) for x in pub],
         [(x.pid, x.payload, True) for x in first[1:]])
    s.send(ack(PUBCOMP, first[0].pid))
    for x in pub:
        s.answer(x)
    t.nothing(p, s)


@proves("4.3.3-2", "4.3.3-10 4.3.3-8 4.3.3-11", ALL)
def qos_2_from_a_client_survives_reconnection_without_duplicates(t):
    topic = t.topic()
    s = t.client()
    s.subscribe((topic, 2))
    c = t.session()
    c.send(publish(t.v, topic, b"once", 2, 77))
    c.expect(PUBREC, pid=77)
    c.drop()
    c = t.session(c.id)
    c.send(publish(t.v, topic, b"once", 2, 77, dup=True))
    c.expect(PUBREC, pid=77)
    c.send(ack(PUBREL, 77))
    c.expect(PUBCOMP, pid=77, reason=0)
    s.message(topic, "once")
    t.nothing(c, s)


@proves("", "4.4.0-1")
def nothing_is_sent_again_on_the_same_connection(t):
    topic = t.topic()
    s = t.client()
    s.subscribe((topic, 2))
    p = t.client()
    p.publish(topic, "one", qos=1)
    p.publish(topic, "two", qos=2)
    s.expect(PUBLISH, payload=b"one")
    s.expect(PUBLISH, payload=b"two")
    t.wait(2)
    s.quiet()


@proves("4.6.0-1 4.4.0-1", "4.6.0-5 4.4.0-1", ALL)
def redelivery_keeps_order_before_newer_messages(t):
    topic = t.topic()
    s = t.session()
    s.subscribe((topic, 1))
    p = t.client()
    for i in range(10):
        p.publish(topic, "%d" % i, qos=1)
    for i in range(10):
        x = s.expect(PUBLISH, payload=b"%d" % i)
        if i < 3:
            s.send(ack(PUBACK, x.pid))
    s.ping()
    s.drop()
    for i in range(10, 30):
        p.publish(topic, "%d" % i, qos=1)
    s = t.session(s.id)
    same("order", [x.payload for x in s.messages(27)], [b"%d" % i for i in range(3, 30)])


@proves("4.1.0-1", "4.1.0-1 3.1.2-23", ALL)
def subscriptions_and_their_options_survive_reconnection(t):
    topic = t.topic()
    s = t.session()
    if t.v == 5:
        s.subscribe((topic + "/#", 1 | 4 | 8), properties={"subscription_id": 9})
    else:
        s.subscribe((topic + "/#", 1))
    s.disconnect()
    s = t.session(s.id)
    s.publish(topic + "/own", "own", qos=0)
    p = t.client()
    p.publish(topic + "/x", "kept", qos=2, retain=True)
    if t.v != 5:
        s.message(topic + "/own")
    x = s.message(topic + "/x", "kept", qos=1, retain=t.v == 5)
    if t.v == 5:
        same("subscription identifiers", x.all("subscription_id"), [9])
    p.publish(topic + "/x", b"", qos=1, retain=True)


@proves("3.1.4-2 4.4.0-1", "3.1.4-3 4.4.0-1", ALL)
def takeover_redelivers_to_the_new_connection(t):
    topic = t.topic()
    old = t.session()
    old.subscribe((topic, 1))
    p = t.client()
    p.publish(topic, "unacknowledged", qos=1)
    first = old.expect(PUBLISH, payload=b"unacknowledged")
    new = t.session(old.id)
    again = new.message(topic, "unacknowledged", dup=True)
    same("packet identifier", again.pid, first.pid)


@proves("4.1.0-2", "4.1.0-1", (4, 5))
def session_kept_by_another_version_is_resumed(t):
    topic = t.topic()
    s = t.session()
    s.subscribe((topic, 1))
    s.disconnect()
    t.client().publish(topic, "across", qos=1)
    other = t.session(s.id, version=9 - t.v)
    same("session present", other.connack.session_present, True)
    other.message(topic, "across")


@proves("3.2.2-3", "3.2.2-3 4.1.0-2", ALL)
def refused_connect_leaves_the_session_alone(t):
    s = t.session()
    topic = t.topic()
    s.subscribe((topic, 1))
    s.disconnect()
    t.refused(connect(4, s.id, flags=0x01), version=4)
    again = t.session(s.id)
    if t.v > 3:
        same("session present", again.connack.session_present, True)
    t.client().publish(topic, "still subscribed", qos=1)
    again.message(topic, "still subscribed")


@proves("3.2.0-1", "3.2.0-1 3.2.0-2", ALL)
def many_reconnections_keep_every_message(t):
    topic = t.topic()
    s = t.session()
    s.subscribe((topic, 1))
    p = t.client()
    got = []
    for i in range(9):
        p.publish(topic, "%d" % i, qos=1)
        if i % 3 == 0:
            s.ping()  # the acknowledgements have arrived, and message i is on its way to nobody
            s.drop()
            s = t.session(s.id)
        if i % 3 == 2:
            got += [x.payload for x in s.messages(3)]
    same("messages", got, [b"%d" % i for i in range(9)])


# mosquitto 2.0.11: sends all six at once. mosquitto is wrong (4.9).
@proves("", "3.3.4-9 4.9.0-1 4.4.0-1")
def redelivery_respects_a_smaller_receive_maximum(t):
    topic = t.topic()
    s = t.session()
    s.subscribe((topic, 1))
    p = t.client()
    for i in range(6):
        p.publish(topic, "%d" % i, qos=1)
    for i in range(6):
        s.expect(PUBLISH, payload=b"%d" % i)
    s.drop()
    s = t.session(s.id, properties={"receive_maximum": 2})
    held = [s.expect(PUBLISH, dup=True) for _ in range(2)]
    s.quiet()
    for i in range(2, 6):
        s.send(ack(PUBACK, held.pop(0).pid))
        held.append(s.expect(PUBLISH, payload=b"%d" % i, dup=True))
    s.send(ack(PUBACK, held[0].pid), ack(PUBACK, held[1].pid))
    t.nothing(p, s)


# mosquitto 2.0.11: a dropped message keeps its place in the window. mosquitto is wrong (3.1.2.11.4).
@proves("", "3.1.2-24 3.1.2-25 4.4.0-1")
def redelivery_respects_a_smaller_maximum_packet_size(t):
    topic = t.topic()
    s = t.session()
    s.subscribe((topic, 2))
    p = t.client()
    p.publish(topic, "x" * 500, qos=1)
    p.publish(topic, "y" * 500, qos=2)
    p.publish(topic, "small", qos=1)
    for _ in range(3):
        s.expect(PUBLISH)
    s.drop()
    p.publish(topic, "z" * 500, qos=1)
    p.publish(topic, "last", qos=1)
    s = t.session(s.id, properties={"maximum_packet_size": 100, "receive_maximum": 1})
    same("messages", [x.payload for x in s.messages(2)], [b"small", b"last"])
    t.nothing(p, s)


# mosquitto 2.0.11: uses the identifier again. mosquitto is wrong (2.2.1).
@proves("2.3.1-4", "2.2.1-4", (4, 5))
def identifiers_in_use_are_passed_over_when_they_wrap_around(t):
    topic = t.topic()
    s, p = t.client(), t.client()
    s.subscribe((topic, 1))
    p.publish(topic, "held", qos=1)
    held = s.expect(PUBLISH, payload=b"held").pid
    seen, batch = 0, 200
    stream = b"".join(publish(t.v, topic, b"", 1, pid) for pid in range(1, batch + 1))
    size = len(publish(t.v, topic, b"", 1, 1))
    while seen < 66000:
        p.send(stream)
        got = 0
        while got < batch:
            s.buffer += s.stream.receive(_deadline(s))
            whole = len(s.buffer) // size
            acks = bytearray()
            for at in range(0, whole * size, size):
                pid = s.buffer[at + 4 + len(topic):at + 6 + len(topic)]
                if pid == b"\0\0" or pid == u16(held):
                    mqtt.fail("packet identifier %d, while %d is in use", int.from_bytes(pid, "big"), held)
                acks += b"\x40\x02" + pid
            s.buffer = s.buffer[whole * size:]
            s.send(bytes(acks))
            got += whole
        answers = 0
        while answers < batch:  # PUBACK: 4 bytes, or 5 with a reason code
            p.expect(PUBACK)
            answers += 1
        seen += batch
    s.send(ack(PUBACK, held))
    s.quiet()


def _deadline(client):
    return time.monotonic() + client.patience


@proves("", "3.3.4-3 3.3.4-4")
def queued_messages_keep_their_subscription_identifiers(t):
    base = t.topic()
    s = t.session()
    s.subscribe((base + "/#", 1), properties={"subscription_id": 7})
    s.subscribe((base + "/a", 1), properties={"subscription_id": 8})
    s.drop()
    p = t.client()
    p.publish(base + "/a", "both", qos=1)
    p.publish(base + "/b", "one", qos=1)
    s = t.session(s.id)
    found = {}
    while len(found) < 2 or sum(map(len, found.values())) < 3:
        x = s.message()
        found.setdefault(x.payload, []).extend(x.all("subscription_id"))
    same("identifiers", {k: sorted(v) for k, v in found.items()}, {b"both": [7, 8], b"one": [7]})
    t.nothing(p, s)


@proves("", "4.1.0-2")
def connack_tells_a_session_expiry_that_the_server_changed(t):
    for asked in (0, 60, 0xFFFFFFFF):
        c = t.client(properties={"session_expiry": asked})
        told = c.connack.get("session_expiry")
        check(told is None or told <= asked, "asked for %d, told %r", asked, told)
