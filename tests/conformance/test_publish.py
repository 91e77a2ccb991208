"""PUBLISH and its acknowledgements: the three QoS both ways, identifiers, flags, properties, order."""
import mqtt
from harness import Skip, check, proves, same
from mqtt import (DISCONNECT, PINGREQ, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, Closed, ack, packet, prop,
                  publish)

ALL = (3, 4, 5)


@proves("3.3.4-1 4.3.1-1 4.3.2-1 4.3.2-2 4.3.3-1 4.3.3-2 2.3.1-5 2.3.1-6 3.8.4-6 4.5.0-1",
        "3.3.4-1 4.3.1-1 4.3.2-1 4.3.2-2 4.3.2-4 4.3.3-1 4.3.3-2 4.3.3-4 4.3.3-8 4.3.3-11 2.2.1-2 2.2.1-5 3.8.4-8 "
        "4.5.0-1", ALL)
def every_pair_of_published_and_granted_qos(t):
    p = t.client()
    for granted in (0, 1, 2):
        s = t.client()
        topic = t.topic()
        s.subscribe((topic, granted))
        for qos in (0, 1, 2):
            p.publish(topic, "q%d" % qos, qos)
            s.message(topic, "q%d" % qos, qos=min(qos, granted), dup=False, retain=False)
        t.nothing(p, s)


@proves("2.3.1-6", "2.2.1-5 3.4.2-1 3.5.2-1 3.7.2-1", ALL)
def acknowledgements_carry_the_identifier(t):
    c = t.client()
    for pid in (1, 255, 256, 65535):
        c.send(publish(t.v, t.topic(), b"x", 1, pid))
        c.expect(PUBACK, pid=pid)
        c.send(publish(t.v, t.topic(), b"x", 2, pid))
        c.expect(PUBREC, pid=pid)
        c.send(ack(PUBREL, pid))
        c.expect(PUBCOMP, pid=pid, reason=0)


@proves("2.3.1-4 4.3.2-1 4.3.3-1", "2.2.1-4 4.3.2-1 4.3.3-1", ALL)
def identifiers_in_flight_are_distinct(t):
    topic = t.topic()
    s = t.client()
    s.subscribe((topic, 2))
    p = t.client()
    for i in range(10):
        p.publish(topic, "%d" % i, qos=1 + i % 2)
    pids = [s.expect(PUBLISH).pid for _ in range(10)]
    check(len(set(pids)) == 10 and 0 not in pids, "packet identifiers %r", pids)


# mosquitto 2.0.11: takes the second repetition for a protocol error. mosquitto is wrong (4.3.3).
@proves("4.3.3-2", "4.3.3-10", ALL)
def repeated_qos_2_publish_is_delivered_once(t):
    topic = t.topic()
    s = t.client()
    s.subscribe((topic, 2))
    c = t.client()
    for dup in (False, True, True):
        c.send(publish(t.v, topic, b"once", 2, 5, dup=dup))
        c.expect(PUBREC, pid=5, reason={0, 0x10})
    c.send(ack(PUBREL, 5))
    c.expect(PUBCOMP, pid=5)
    s.message(topic, "once")
    t.nothing(c, s)


@proves("4.3.3-2", "4.3.3-12", ALL)
def identifier_after_pubcomp_is_a_new_message(t):
    topic = t.topic()
    s = t.client()
    s.subscribe((topic, 2))
    c = t.client()
    for dup in (False, True):
        c.send(publish(t.v, topic, b"again", 2, 5, dup=dup))
        c.expect(PUBREC, pid=5)
        c.send(ack(PUBREL, 5))
        c.expect(PUBCOMP, pid=5)
        s.message(topic, "again", dup=False)


@proves("", "4.3.3-9")
def identifier_after_a_failing_pubrec_is_a_new_message(t):
    topic = t.topic()
    s, c = t.client(), t.client()
    s.subscribe((topic, 2))
    c.send(publish(5, topic, b"\xff", 2, 5, properties={"payload_format": 1}))  # the one failure to be had
    p = c.receive()
    if p.kind != PUBREC or p.reason < 0x80:
        raise Skip("the server does not refuse a payload that is not what its format says")
    c.send(publish(5, topic, b"good", 2, 5, properties={"payload_format": 1}))
    c.expect(PUBREC, pid=5, reason={0})
    c.send(ack(PUBREL, 5))
    c.expect(PUBCOMP, pid=5, reason=0)
    s.message(topic, "good")
    t.nothing(c, s)


@proves("4.3.2-2 3.3.1-3", "4.3.2-5 3.3.1-3 4.3.2-2 4.3.3-2", ALL)
def identifier_after_puback_is_a_new_message_and_dup_is_not_passed_on(t):
    topic = t.topic()
    s = t.client()
    s.subscribe((topic, 1))
    c = t.client()
    for dup in (False, True):
        c.send(publish(t.v, topic, b"new", 1, 5, dup=dup))
        c.expect(PUBACK, pid=5)
        s.message(topic, "new", dup=False)


@proves("4.3.3-2", "4.3.3-11", ALL)
def repeated_pubrel_gets_pubcomp(t):
    c = t.client()
    c.send(publish(t.v, t.topic(), b"x", 2, 3))
    c.expect(PUBREC, pid=3)
    c.send(ack(PUBREL, 3))
    c.expect(PUBCOMP, pid=3, reason=0)
    c.send(ack(PUBREL, 3))
    c.expect(PUBCOMP, pid=3, reason={0, 0x92})


# mosquitto 2.0.11: answers 0x00. mosquitto is wrong in spirit (3.7.2.1 names 0x92 for it), not against a MUST.
@proves("", "3.7.2-1 4.3.3-11")
def pubrel_of_an_unknown_identifier_gets_0x92(t):
    c = t.client()
    c.send(ack(PUBREL, 4711))
    c.expect(PUBCOMP, pid=4711, reason=0x92)
    c.quiet()


# mosquitto 2.0.11: answers 0x00; the standard allows both codes and means this one (3.6.2.1).
@proves("", "3.6.2-1")
def pubrec_of_an_unknown_identifier_gets_0x92(t):
    c = t.client()
    c.send(ack(PUBREC, 4711))
    c.expect(PUBREL, pid=4711, reason=0x92)


@proves("4.3.3-1", "4.3.3-4 4.3.3-6", ALL)
def repeated_pubrec_gets_pubrel_again(t):
    topic = t.topic()
    s = t.client()
    s.subscribe((topic, 2))
    t.client().publish(topic, "x", qos=2)
    p = s.expect(PUBLISH, qos=2)
    for _ in range(2):
        s.send(ack(PUBREC, p.pid))
        s.expect(PUBREL, pid=p.pid)
    s.send(ack(PUBCOMP, p.pid))
    s.quiet()


@proves(versions=ALL)
def acknowledgements_of_unknown_identifiers_do_no_harm(t):
    c = t.client()
    c.send(ack(PUBACK, 9), ack(PUBCOMP, 9))
    c.quiet()


@proves("", "4.3.3-4 4.4.0-2")
def failing_pubrec_ends_the_exchange(t):
    topic = t.topic()
    s = t.session(properties={"receive_maximum": 1})
    s.subscribe((topic, 2))
    p = t.client()
    p.publish(topic, "refused", qos=2)
    p.publish(topic, "next", qos=2)
    x = s.expect(PUBLISH, payload=b"refused")
    s.send(ack(PUBREC, x.pid, 0x83))
    x = s.expect(PUBLISH, payload=b"next")  # no PUBREL, and the quota is free again
    s.answer(x)
    s.quiet()
    s.drop()
    s = t.session(s.id)
    t.nothing(p, s)


@proves("", "4.4.0-2")
def failing_puback_ends_the_exchange(t):
    topic = t.topic()
    s = t.session(properties={"receive_maximum": 1})
    s.subscribe((topic, 1))
    p = t.client()
    p.publish(topic, "refused", qos=1)
    p.publish(topic, "next", qos=1)
    x = s.expect(PUBLISH, payload=b"refused")
    s.send(ack(PUBACK, x.pid, 0x87, {"reason_string": "no", }))
    s.message(topic, "next")
    s.drop()
    t.nothing(p, t.session(s.id))


@proves("2.3.1-1", "2.2.1-3 4.13.1-1", ALL)
def packet_identifier_0_is_an_error(t):
    for qos in (1, 2):
        c = t.client()
        c.send(publish(t.v, t.topic(), b"x", qos, 0))
        c.expect_error(0x81, 0x82)


@proves("3.3.1-4", "3.3.1-4 4.13.1-1", ALL)
def qos_3_is_malformed(t):
    c = t.client()
    c.send(publish(t.v, t.topic(), b"x", 3, 1))
    c.expect_error(0x81, 0x82)


# mosquitto 2.0.11: accepts it. mosquitto is wrong (3.3.1.1).
@proves("3.3.1-2 4.8.0-1", "3.3.1-2")
def dup_with_qos_0_is_malformed(t):
    c = t.client()
    c.send(publish(t.v, t.topic(), b"x", dup=True))
    c.expect_error(0x81, 0x82)


@proves("3.3.2-2 4.7.1-1", "3.3.2-2 4.7.0-1", ALL)
def wildcards_in_a_topic_name_are_an_error(t):
    for topic in ("a/#", "#", "+", "a/+/b", "a+", "a#b"):
        c = t.client()
        c.send(publish(t.v, topic, b"x", 1, 1))
        try:
            p = c.receive()
        except Closed:
            check(t.v < 5 or mqtt.LENIENT, "no DISCONNECT before the end for %r", topic)
            continue
        check(t.v == 5, "topic name %r got %r", topic, p)
        if p.kind == PUBACK:
            same("reason", p.reason, 0x90)  # 5.0 lets a server refuse the message alone
            continue
        check(p.kind == DISCONNECT and p.reason in (0x81, 0x82, 0x90), "topic name %r got %r", topic, p)
        c.expect_closed()


@proves("4.7.3-1", "4.7.3-1", ALL)
def empty_topic_name_is_an_error(t):
    c = t.client()
    c.send(publish(t.v, "", b"x"))
    c.expect_error(0x81, 0x82, 0x90)


@proves("1.5.3-1 3.3.2-1", "1.5.4-1 3.3.2-1")
def topic_name_must_be_utf8(t):
    for bad in (b"a/\xff", b"a\xc3", b"\xc0\x80", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xed\xbf\xbf",
                b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\x80"):
        c = t.client()
        c.send(publish(t.v, bad, b"x"))
        c.expect_error(0x81, 0x82, 0x90)


@proves("1.5.3-2 4.7.3-2", "1.5.4-2 4.7.3-2")
def topic_name_may_not_have_a_null(t):
    c = t.client()
    c.send(publish(t.v, b"a\0b", b"x"))
    c.expect_error(0x81, 0x82, 0x90)


@proves("1.5.3-3", "1.5.4-3", ALL)
def byte_order_marks_are_kept(t):
    topic = "\ufeff" + t.topic("/\ufeff")
    s = t.client()
    s.subscribe(topic)
    p = t.client()
    p.publish(topic.replace("\ufeff", ""), "other")
    p.publish(topic, "same")
    s.message(topic, "same")


@proves("4.7.3-4", "4.7.3-4", ALL)
def topics_are_not_normalised(t):
    base = t.topic()
    topics = [base + tail for tail in ("", "/", "//", "/a", "/A", "//a", "/a/", "/ a", "/a ", "/\u00e9",
                                       "/e\u0301", "/.", "/..", "/%61", "/\U0001f41f", "/$SYS")]
    topics.append("/" + base)
    s = t.client()
    for i in range(0, len(topics), 4):
        s.subscribe(*[(x, 1) for x in topics[i:i + 4]])
    p = t.client()
    for i, topic in enumerate(topics):
        p.publish(topic, "%d" % i, qos=1)
        s.message(topic, "%d" % i)
    t.nothing(p, s)


@proves("4.7.3-3", "4.7.3-3", (4, 5))
def a_topic_may_have_65535_bytes(t):
    topic = t.topic("/")
    topic += "x" * (65535 - len(topic))
    s, p = t.client(), t.client()
    s.subscribe((topic, 1))
    p.publish(topic, "long", qos=1)
    s.message(topic, "long")


@proves("3.3.4-1", "3.3.4-1", ALL)
def payloads_of_all_sizes_pass_unaltered(t):
    topic = t.topic()
    s, p = t.client(), t.client()
    s.subscribe((topic, 1))
    for size in (0, 1, 100, 127, 128, 16383, 16384, 65535, 65536, 300000):
        payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
        p.publish(topic, payload, qos=1)
        got = s.message(topic).payload
        check(got == payload, "%d bytes arrived as %d other ones", size, len(got))


@proves("4.6.0-5 4.6.0-6", "4.6.0-5 4.6.0-6", ALL)
def messages_keep_their_order(t):
    for qos in (0, 1, 2):
        topic = t.topic()
        s, p = t.client(), t.client()
        s.subscribe((topic, qos))
        count, got, done = 100, [], 0
        s.patience = 10
        for start in range(0, count, 10):
            p.send(*[publish(t.v, topic, b"%d" % i, qos, i + 1 if qos else None)
                     for i in range(start, start + 10)])
            left = {0: 0, 1: 10, 2: 20}[qos]
            while left:
                x = p.receive()
                left -= 1
                if x.kind == PUBREC:
                    p.send(ack(PUBREL, x.pid))
            got += [x.payload for x in s.messages(10, topic=topic, qos=qos)]
            done += 10
        same("order at QoS %d" % qos, got, [b"%d" % i for i in range(count)])


@proves(versions=ALL)
def server_acknowledges_in_order(t):
    c = t.client()
    topic = t.topic()
    c.send(*[publish(t.v, topic, b"x", 1, i) for i in range(1, 16)])
    same("PUBACKs", [c.expect(PUBACK).pid for _ in range(15)], list(range(1, 16)))
    c.send(*[publish(t.v, topic, b"x", 2, i) for i in range(1, 16)])
    same("PUBRECs", [c.expect(PUBREC).pid for _ in range(15)], list(range(1, 16)))
    c.send(*[ack(PUBREL, i) for i in range(1, 16)])
    same("PUBCOMPs", [c.expect(PUBCOMP).pid for _ in range(15)], list(range(1, 16)))


@proves("3.3.2-3", "3.3.2-3", ALL)
def topic_name_arrives_as_published(t):
    base = t.topic()
    s, p = t.client(), t.client()
    s.subscribe(base + "/+/x", base + "/y/#")
    for tail in ("/1/x", "//x", "/y", "/y/z"):
        p.publish(base + tail, tail)
        s.message(base + tail, tail)


@proves("", "3.3.2-4 3.3.2-15 3.3.2-16 3.3.2-17 3.3.2-18 3.3.2-20 1.5.7-1")
def properties_pass_unaltered_and_in_order(t):
    topic = t.topic()
    s, p = t.client(), t.client()
    s.subscribe((topic, 2))
    user = [("z", "1"), ("a", "2"), ("z", "1"), ("", ""), ("\ufeffkey", "\U0001f41f"), ("a", "x" * 1000)]
    for qos in (0, 1, 2):
        p.publish(topic, "text", qos, properties=[("user", user[0]), ("payload_format", 1),
                                                  ("content_type", "text/plain; \u00fc"), ("user", user[1]),
                                                  ("response_topic", "reply/to/" + topic),
                                                  ("correlation_data", bytes(range(256)))]
                  + [("user", x) for x in user[2:]])
        x = s.message(topic, "text", qos=qos)
        same("payload format", x.get("payload_format"), 1)
        same("content type", x.get("content_type"), "text/plain; \u00fc")
        same("response topic", x.get("response_topic"), "reply/to/" + topic)
        same("correlation data", x.get("correlation_data"), bytes(range(256)))
        same("user properties", x.all("user"), user)


@proves("", "3.3.2-4")
def absent_and_zero_properties_stay_so(t):
    topic = t.topic()
    s, p = t.client(), t.client()
    s.subscribe(topic)
    p.publish(topic, "none")
    same("properties", list(s.message(topic, "none").properties), [])
    p.publish(topic, b"\xff\xfe", properties={"payload_format": 0, "correlation_data": b"",
                                              "content_type": ""})
    x = s.message(topic, b"\xff\xfe")
    check(x.get("payload_format") in (0, None), "payload format %r", x.get("payload_format"))
    same("correlation data", x.get("correlation_data"), b"")
    same("content type", x.get("content_type"), "")


@proves("", "3.3.2-15 3.3.2-16 3.3.2-18")
def queued_messages_keep_their_properties(t):
    topic = t.topic()
    s = t.session()
    s.subscribe((topic, 1))
    s.drop()
    p = t.client()
    user = [("b", "1"), ("a", "2"), ("b", "3")]
    p.publish(topic, "kept", qos=1, properties=[("user", x) for x in user]
              + [("response_topic", "r"), ("correlation_data", b"c"), ("content_type", "t")])
    x = t.session(s.id).message(topic, "kept")
    same("user properties", x.all("user"), user)
    same("request", (x.get("response_topic"), x.get("correlation_data"), x.get("content_type")), ("r", b"c", "t"))


# mosquitto 2.0.11: accepts them. mosquitto is wrong (3.3.2.3.5).
@proves("", "3.3.2-14 4.13.1-1")
def wildcards_in_a_response_topic_are_an_error(t):
    for topic in ("a/#", "+/b"):
        c = t.client()
        c.send(publish(5, t.topic(), b"x", properties={"response_topic": topic}))
        c.expect_error(0x81, 0x82, 0x90)


@proves("", "3.3.2-13 3.3.2-19 1.5.7-1 1.5.4-1")
def publish_property_strings_must_be_utf8(t):
    for item in (("response_topic", b"\xff"), ("content_type", b"\xed\xa0\x80"), ("content_type", b"a\0"),
                 ("user", (b"\xff", b"v")), ("user", (b"k", b"\xc0\x80"))):
        c = t.client()
        c.send(publish(5, t.topic(), b"x", properties=[item]))
        c.expect_error(0x81, 0x82, 0x90)


# mosquitto 2.0.11: accepts it. mosquitto is wrong (3.3.4).
@proves("", "3.3.4-6 4.13.1-1")
def subscription_identifier_from_a_client_is_a_protocol_error(t):
    c = t.client()
    c.send(publish(5, t.topic(), b"x", properties={"subscription_id": 1}))
    c.expect_error(0x82, 0x81)


@proves("", "4.13.1-1")
def repeated_publish_properties_are_protocol_errors(t):
    for item in (("payload_format", 1), ("message_expiry", 1), ("content_type", "a"), ("response_topic", "a"),
                 ("correlation_data", b"a"), ("topic_alias", 1)):
        c = t.client()
        c.send(publish(5, t.topic(), b"x", properties=[item, item]))
        c.expect_error(0x81, 0x82)


@proves("", "4.13.1-1")
def properties_of_other_packets_in_publish_are_malformed(t):
    for item in (prop("session_expiry", 1), prop("reason_string", "a"), prop("will_delay", 1), b"\x7f\0"):
        c = t.client()
        c.send(publish(5, t.topic(), b"x", properties=item))
        c.expect_error(0x81, 0x82)


@proves("", "4.13.1-1 3.3.2-4")
def payload_format_1_is_checked_or_passed_unaltered(t):
    topic = t.topic()
    s, c = t.client(), t.client()
    s.subscribe((topic, 1))
    c.send(publish(5, topic, b"\xff\xfe", 1, 1, properties={"payload_format": 1}))
    p = c.receive()
    if p.kind == PUBACK and p.reason < 0x80:
        s.message(topic, b"\xff\xfe")
    else:
        same("reason", p.reason, 0x99)


@proves("", "3.3.2-5 3.3.2-6")
def message_expiry_counts_down_while_a_message_waits(t):
    topic = t.topic()
    s = t.session()
    s.subscribe((topic, 1))
    s.drop()
    p = t.client()
    p.publish(topic, "long", qos=1, properties={"message_expiry": 100})
    p.publish(topic, "short", qos=1, properties={"message_expiry": 1})
    p.publish(topic, "for ever", qos=1)
    t.wait(2.3)
    s = t.session(s.id)
    got = s.messages(2)
    same("messages", [x.payload for x in got], [b"long", b"for ever"])
    check(96 <= got[0].get("message_expiry", 0) <= 98, "message expiry %r", got[0].get("message_expiry"))
    same("message expiry", got[1].get("message_expiry"), None)
    t.nothing(p, s)


@proves("", "3.3.2-6")
def message_expiry_is_passed_on(t):
    topic = t.topic()
    s, p = t.client(), t.client()
    s.subscribe(topic)
    p.publish(topic, "x", properties={"message_expiry": 3600})
    got = s.message(topic).get("message_expiry")
    check(got in (3599, 3600), "message expiry %r", got)


# mosquitto 2.0.11: an expired message keeps its place in the window. mosquitto is wrong (4.9).
@proves("", "3.3.2-5")
def messages_waiting_for_the_window_expire(t):
    topic = t.topic()
    s = t.client(properties={"receive_maximum": 1})
    s.subscribe((topic, 1))
    p = t.client()
    p.publish(topic, "first", qos=1)
    p.publish(topic, "expires", qos=1, properties={"message_expiry": 1})
    p.publish(topic, "last", qos=1)
    first = s.expect(PUBLISH, payload=b"first")
    t.wait(2.3)
    s.answer(first)
    s.message(topic, "last")


@proves("", "4.3.3-7 4.3.3-13")
def expiry_does_not_touch_messages_in_flight(t):
    topic = t.topic()
    s = t.session()
    s.subscribe((topic, 2))
    p = t.client()
    p.publish(topic, "sent", qos=2, properties={"message_expiry": 1})
    x = s.expect(PUBLISH, qos=2)
    c = t.client()
    c.send(publish(5, t.topic(), b"incoming", 2, 8, properties={"message_expiry": 1}))
    c.expect(PUBREC, pid=8)
    t.wait(2.3)
    s.answer(x)
    c.send(ack(PUBREL, 8))
    c.expect(PUBCOMP, pid=8, reason=0)


@proves("3.3.5-1", "3.3.4-2", ALL)
def overlapping_subscriptions_deliver_at_the_highest_qos(t):
    base = t.topic()
    s, p = t.client(), t.client()
    end = t.topic()
    s.subscribe((base + "/#", 0), (base + "/x", 2), (base + "/+", 1), (end, 0))
    p.publish(base + "/x", "overlap", qos=2)
    p.publish(end, "end", qos=0)
    got = s.messages_until(lambda so_far: any(x.payload == b"end" for x in so_far))
    copies = [x.qos for x in got if x.payload == b"overlap"]
    check(2 in copies, "QoS of the copies: %r", copies)


@proves("3.3.4-1", "3.3.4-1 3.4.2-1 3.5.2-1")
def publish_without_subscribers_is_acknowledged(t):
    c = t.client()
    for qos in (1, 2):
        check(c.publish(t.topic(), "x", qos) in (0, 0x10), "refused")


@proves(versions=(5,))
def acknowledgements_with_properties_are_read(t):
    topic = t.topic()
    s, p = t.client(), t.client()
    s.subscribe((topic, 2))
    extra = {"reason_string": "fine", "user": ("k", "v")}
    p.publish(topic, "1", qos=1)
    x = s.expect(PUBLISH)
    s.send(ack(PUBACK, x.pid, 0, extra))
    p.publish(topic, "2", qos=2)
    x = s.expect(PUBLISH)
    s.send(ack(PUBREC, x.pid, 0, extra))
    s.expect(PUBREL, pid=x.pid)
    s.send(ack(PUBCOMP, x.pid, 0, extra))
    p.send(publish(5, topic, b"3", 2, 99))
    p.expect(PUBREC)
    p.send(ack(PUBREL, 99, 0, extra))
    p.expect(PUBCOMP, pid=99)
    s.message(topic, "3")
    s.quiet()


# mosquitto 2.0.11: frees the quota at PUBREC already. mosquitto is wrong (4.9).
@proves("", "4.9.0-3 3.3.4-10 4.9.0-2 3.3.4-9 4.9.0-1", (5,))
def server_never_sends_more_than_the_receive_maximum(t):
    topic = t.topic()
    s = t.client(properties={"receive_maximum": 3})
    s.subscribe((topic, 2))
    p = t.client()
    for i in range(8):
        p.publish(topic, "%d" % i, qos=1 + i % 2)
    held = [s.expect(PUBLISH) for _ in range(3)]
    s.quiet()                                   # at quota 0 PINGREQ, SUBSCRIBE and the client's PUBLISH are answered
    s.subscribe((t.topic(), 1))
    s.publish(t.topic(), "own", qos=2)
    got = [x.payload for x in held]
    while held:
        x = held.pop(0)
        if x.qos == 2:
            s.send(ack(PUBREC, x.pid))
            s.expect(PUBREL, pid=x.pid)
            s.quiet()                           # PUBREC alone does not give the quota back
            s.send(ack(PUBCOMP, x.pid))
        else:
            s.send(ack(PUBACK, x.pid))
        if len(got) < 8:
            x = s.expect(PUBLISH)
            got.append(x.payload)
            held.append(x)
    same("order", got, [b"%d" % i for i in range(8)])
    s.quiet()


# mosquitto 2.0.11: answers PUBREC 0x97 and goes on. mosquitto is wrong (3.3.4).
@proves("", "3.3.4-7 4.13.1-1", (5,))
def client_above_the_servers_receive_maximum_gets_0x93(t):
    c = t.client()
    maximum = c.connack.get("receive_maximum", 65535)
    if maximum == 65535:
        raise Skip("the server announces no Receive Maximum")
    topic = t.topic()
    c.send(*[publish(5, topic, b"", 2, pid) for pid in range(1, maximum + 2)])
    got = c.drain()
    check(all(p.kind == PUBREC for p in got[:-1]) and len(got) <= maximum + 1, "got %r", got[-3:])
    check(got[-1].kind == 14 and got[-1].reason == 0x93, "expected DISCONNECT 0x93, got %r", got[-1])


# mosquitto 2.0.11: a dropped message keeps its place in the window. mosquitto is wrong (3.1.2.11.4).
@proves("", "3.1.2-24 3.1.2-25")
def messages_above_the_maximum_packet_size_are_dropped(t):
    topic = t.topic()
    s = t.session(properties={"maximum_packet_size": 200, "receive_maximum": 2})
    s.subscribe((topic, 2))
    other = t.client()
    other.subscribe((topic, 1))
    p = t.client()
    for qos in (0, 1, 2, 1, 2):
        p.publish(topic, "x" * 300, qos)
        p.publish(topic, "fits", qos)
        s.message(topic, "fits", qos=qos)
        other.messages(2)
    t.nothing(p, s)
    s.drop()
    s = t.session(s.id)
    t.nothing(p, s)


# mosquitto 2.0.11: counts one byte too few and sends 121 bytes. mosquitto is wrong (3.1.2.11.4).
@proves("", "3.1.2-24")
def a_packet_of_exactly_the_maximum_packet_size_is_sent(t):
    topic = t.topic()
    s = t.client(properties={"maximum_packet_size": 120})
    s.subscribe((topic, 1))
    p = t.client()
    size = 120 - (2 + 2 + len(topic) + 2 + 1)
    p.publish(topic, "e" * size, qos=1)
    same("packet", len(s.message(topic).raw), 120)
    p.publish(topic, "e" * (size + 1), qos=1)
    t.nothing(p, s)


@proves("", "3.2.2-15 4.13.1-1")
def client_above_the_servers_maximum_packet_size_gets_0x95(t):
    c = t.client()
    maximum = c.connack.get("maximum_packet_size")
    if maximum is None:
        raise Skip("the server announces no Maximum Packet Size")
    size = maximum + 1 - 5
    c.send(b"\x30" + bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21 & 127]))
    c.expect_error(0x95)


@proves("", "3.3.2-12 3.3.2-7")
def topic_aliases_of_a_client(t):
    topic, other = t.topic(), t.topic()
    s, c = t.client(), t.client()
    s.subscribe((topic, 1), (other, 1))
    maximum = c.connack.get("topic_alias_maximum", 0)
    for alias in {1, (maximum + 1) // 2, maximum} - {0}:
        c.send(publish(5, topic, b"set", 0, properties={"topic_alias": alias}),
               publish(5, "", b"used", 1, 1, properties={"topic_alias": alias}),
               publish(5, other, b"moved", 0, properties={"topic_alias": alias}),
               publish(5, "", b"again", 2, 2, properties={"topic_alias": alias}))
        c.expect(PUBACK, pid=1)
        c.expect(PUBREC, pid=2)
        c.send(ack(PUBREL, 2))
        c.expect(PUBCOMP, pid=2)
        for where, payload in ((topic, "set"), (topic, "used"), (other, "moved"), (other, "again")):
            same("alias passed on", s.message(where, payload).get("topic_alias"), None)
    t.nothing(c, s)


# mosquitto 2.0.11: answers alias 0 with 0x81. mosquitto is wrong (3.3.2.3.4 names 0x94).
@proves("", "3.3.2-8 3.3.2-9 3.2.2-17 3.2.2-18 4.13.1-1")
def topic_alias_0_and_above_the_maximum_get_0x94(t):
    maximum = t.client().connack.get("topic_alias_maximum", 0)
    for alias in (0, maximum + 1, 65535):
        if alias == 65535 == maximum:
            continue
        c = t.client()
        c.send(publish(5, t.topic(), b"x", properties={"topic_alias": alias & 0xFFFF}))
        c.expect_error(0x94)


@proves("", "3.3.2-7 4.13.1-1")
def topic_aliases_end_with_the_connection(t):
    c = t.session()
    if not c.connack.get("topic_alias_maximum", 0):
        raise Skip("the server takes no topic aliases")
    c.publish(t.topic(), "x", qos=1, properties={"topic_alias": 1})
    c.drop()
    c = t.session(c.id)
    c.send(publish(5, "", b"x", properties={"topic_alias": 1}))
    c.expect_error(0x82, 0x94)


@proves("", "3.1.2-26 3.1.2-27 3.3.2-11 3.3.2-8")
def topic_aliases_of_the_server(t):
    # The strict decoder fails an alias of 0, above the maximum, unknown, or sent when the client allows none.
    base = t.topic()
    p = t.client()
    for maximum in (None, 0, 1, 3):
        s = t.client(properties={} if maximum is None else {"topic_alias_maximum": maximum})
        s.subscribe((base + "/#", 1))
        for round_number in range(3):
            for name in "abcde":
                p.publish(base + "/" + name, "%s%d" % (name, round_number), qos=round_number % 2)
                s.message(base + "/" + name, "%s%d" % (name, round_number))


@proves("", "3.1.2-27 3.3.2-7")
def server_forgets_its_aliases_on_reconnection(t):
    base = t.topic()
    s = t.session(properties={"topic_alias_maximum": 5})
    s.subscribe((base + "/#", 1))
    p = t.client()
    for _ in range(3):
        p.publish(base + "/a", "x", qos=1)
        s.message(base + "/a")
    p.publish(base + "/a", "unacknowledged", qos=1)
    s.expect(PUBLISH)
    s.drop()
    p.publish(base + "/a", "queued", qos=1)
    s = t.session(s.id, properties={"topic_alias_maximum": 5})
    s.message(base + "/a", "unacknowledged", dup=True)
    s.message(base + "/a", "queued")


@proves("7.1.1-1", "4.2.0-1", ALL)
def bytes_may_come_in_any_pieces(t):
    topic = t.topic()
    s, p = t.client(), t.client()
    s.subscribe((topic, 2))
    p.dribble(publish(t.v, topic, b"slow", 2, 1))
    p.expect(PUBREC, pid=1)
    p.dribble(ack(PUBREL, 1))
    p.expect(PUBCOMP, pid=1)
    s.message(topic, "slow")
    stream = b"".join(publish(t.v, topic, b"%d" % i) for i in range(50)) + packet(PINGREQ, 0, b"")
    for i in range(0, len(stream), 7):
        p.send(stream[i:i + 7])
    p.expect(PINGRESP)
    same("payloads", [x.payload for x in s.messages(50)], [b"%d" % i for i in range(50)])


@proves("", "3.2.2-14 3.2.2-11")
def publish_above_the_servers_capability_is_refused(t):
    c = t.client()
    qos, retain = c.connack.get("maximum_qos"), c.connack.get("retain_available", 1)
    if qos is not None:
        c.send(publish(5, t.topic(), b"x", qos + 1, 1))
        c.expect_error(0x9B)
    if not retain:
        c = t.client()
        c.send(publish(5, t.topic(), b"x", retain=True))
        c.expect_error(0x9A)
    if qos is None and retain:
        raise Skip("the server limits neither QoS nor retained messages")


@proves("", "3.4.2-1 3.5.2-1")
def no_matching_subscribers_is_only_said_when_true(t):
    topic = t.topic()
    s, p = t.client(), t.client()
    s.subscribe((topic, 2))
    for qos in (1, 2):
        same("reason code", p.publish(topic, "x", qos), 0)
        s.message(topic, "x")
    s.unsubscribe(topic)
    check(p.publish(topic, "x", 1) in (0, 0x10), "refused")


@proves("", "4.9.0-1 3.3.4-7")
def the_servers_quota_is_free_again_after_each_exchange(t):
    c = t.client()
    maximum = c.connack.get("receive_maximum", 65535)
    topic = t.topic()
    count = min(maximum, 40)
    for _ in range(3):
        c.send(*[publish(5, topic, b"x", 2, pid) for pid in range(1, count + 1)])
        for pid in range(1, count + 1):
            c.expect(PUBREC, pid=pid)
        c.send(*[ack(PUBREL, pid) for pid in range(1, count + 1)])
        for pid in range(1, count + 1):
            c.expect(PUBCOMP, pid=pid)
    c.send(*[publish(5, topic, b"x", 1, pid) for pid in range(1, count + 1)])
    for pid in range(1, count + 1):
        c.expect(PUBACK, pid=pid)


@proves("4.3.3-2", "4.3.3-10", ALL)
def qos_1_and_2_of_a_client_share_their_identifiers(t):
    topic = t.topic()
    s, c = t.client(), t.client()
    s.subscribe((topic, 2))
    c.send(publish(t.v, topic, b"two", 2, 5), publish(t.v, topic, b"one", 1, 6), ack(PUBREL, 5))
    same("answers", [(p.kind, p.pid) for p in (c.receive(), c.receive(), c.receive())],
         [(PUBREC, 5), (PUBACK, 6), (PUBCOMP, 5)])
    same("messages", sorted(x.payload for x in s.messages(2)), [b"one", b"two"])


@proves("", "3.3.2-12")
def aliases_of_different_clients_do_not_mix(t):
    one, two = t.topic(), t.topic()
    s, a, b = t.client(), t.client(), t.client()
    if not a.connack.get("topic_alias_maximum", 0):
        raise Skip("the server takes no topic aliases")
    s.subscribe((one, 1), (two, 1))
    a.publish(one, "a", qos=1, properties={"topic_alias": 1})
    b.publish(two, "b", qos=1, properties={"topic_alias": 1})
    s.message(one, "a")
    s.message(two, "b")
    a.publish("", "a", qos=1, properties={"topic_alias": 1})
    s.message(one, "a")
    b.publish("", "b", qos=1, properties={"topic_alias": 1})
    s.message(two, "b")


@proves("", "3.3.2-7 4.3.3-10 3.3.2-12")
def an_alias_in_a_qos_2_publish_that_is_repeated(t):
    topic = t.topic()
    s = t.client()
    s.subscribe((topic, 2))
    c = t.session()
    if not c.connack.get("topic_alias_maximum", 0):
        raise Skip("the server takes no topic aliases")
    c.send(publish(5, topic, b"once", 2, 3, properties={"topic_alias": 1}))
    c.expect(PUBREC, pid=3)
    c.drop()
    c = t.session(c.id)
    c.send(publish(5, topic, b"once", 2, 3, dup=True, properties={"topic_alias": 1}))
    c.expect(PUBREC, pid=3)
    c.send(ack(PUBREL, 3))
    c.expect(PUBCOMP, pid=3, reason=0)
    c.publish("", "alias", qos=1, properties={"topic_alias": 1})
    same("messages", sorted(x.payload for x in s.messages(2)), [b"alias", b"once"])
