"""Will messages: when they go out, when they do not, and what they carry."""
from harness import Skip, check, proves, same
from mqtt import CONNACK, Will, connect, disconnect

ALL = (3, 4, 5)


def watcher(t, topic, opts=2):
    s = t.client()
    s.subscribe((topic, opts))
    return s


@proves("3.1.2-8", "3.1.2-7 3.1.2-8", ALL)
def will_is_published_when_the_network_fails(t):
    topic = t.topic()
    s = watcher(t, topic)
    for qos in (0, 1, 2):
        t.client(will=Will(topic, b"gone %d" % qos, qos)).drop()
        s.message(topic, "gone %d" % qos, qos=qos, retain=False)


@proves("3.1.2-8", "3.1.2-8", ALL)
def will_is_published_after_a_protocol_error(t):
    topic = t.topic()
    s = watcher(t, topic)
    c = t.client(will=Will(topic, b"broken"))
    c.send(b"\x36\x05\0\x01t\0\x01")  # PUBLISH with QoS 3
    c.drain()
    s.message(topic, "broken")


# mosquitto 2.0.11: drops the will. mosquitto is wrong (3.1.1 section 3.1.2.5, 5.0 section 3.1.2.5).
@proves("3.1.2-8", "3.1.2-8", ALL)
def will_is_published_after_a_second_connect(t):
    topic = t.topic()
    s = watcher(t, topic)
    c = t.client(will=Will(topic, b"twice"))
    c.send(connect(t.v, c.id))
    c.drain()
    s.message(topic, "twice")


@proves("3.1.2-8 3.1.2-24", "3.1.2-8 3.1.2-22", ALL)
def will_is_published_when_the_keep_alive_runs_out(t):
    topic = t.topic()
    s = watcher(t, topic)
    t.client(will=Will(topic, b"silent"), keepalive=1)
    s.message(topic, "silent", patience=8)


@proves("3.1.2-8", "3.1.2-8 3.1.4-3", ALL)
def will_is_published_when_the_session_is_taken_over(t):
    topic = t.topic()
    s = watcher(t, topic)
    old = t.client(will=Will(topic, b"replaced"))
    t.client(old.id)
    s.message(topic, "replaced")


@proves("3.1.2-10 3.14.4-3", "3.1.2-8 3.1.2-10 3.14.4-3", ALL)
def disconnect_deletes_the_will(t):
    topic = t.topic()
    s = watcher(t, topic)
    t.client(will=Will(topic, b"never", 1, True)).disconnect()
    t.nothing(t.client(), s)
    if t.v == 5:
        t.client(will=Will(topic, b"never", 1)).disconnect(0x00, {})
        t.nothing(t.client(), s)


@proves("", "3.1.2-8 3.14.2-1")
def disconnect_0x04_publishes_the_will(t):
    topic = t.topic()
    s = watcher(t, topic)
    t.client(will=Will(topic, b"leaving", 1)).disconnect(0x04)
    s.message(topic, "leaving", qos=1)


# mosquitto 2.0.11: drops the will. mosquitto is wrong (3.1.2.5: only DISCONNECT 0x00 deletes it).
@proves("", "3.1.2-8 3.14.2-1")
def disconnect_with_an_error_publishes_the_will(t):
    topic = t.topic()
    s = watcher(t, topic)
    for reason in (0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99):
        c = t.client(will=Will(topic, b"%d" % reason))
        c.send(disconnect(5, reason, {"reason_string": "because"}))
        c.expect_closed()
        s.message(topic, "%d" % reason)


@proves("3.1.2-10", "3.1.2-10", ALL)
def will_is_published_once(t):
    topic = t.topic()
    s = watcher(t, topic)
    c = t.session(will=Will(topic, b"once"))
    c.drop()
    s.message(topic, "once")
    c = t.session(c.id)
    c.drop()
    c = t.session(c.id)
    t.nothing(c, s)


@proves("3.1.2-12", "3.1.2-8", ALL)
def no_will_flag_no_will(t):
    topic = t.topic()
    s = watcher(t, topic)
    first = t.client(will=Will(topic, b"never"))
    first.disconnect()
    t.client(first.id).drop()
    t.nothing(t.client(), s)


@proves("3.1.2-16", "3.1.2-14", ALL)
def will_without_retain_is_not_retained(t):
    topic = t.topic()
    s = watcher(t, topic)
    t.client(will=Will(topic, b"live only", 1)).drop()
    s.message(topic, "live only", retain=False)
    late = watcher(t, topic)
    t.nothing(s, late)


@proves("3.1.2-17", "3.1.2-15", ALL)
def will_with_retain_is_retained(t):
    topic = t.topic()
    s = watcher(t, topic)
    t.client(will=Will(topic, b"state: gone", 1, True)).drop()
    s.message(topic, "state: gone", retain=False)
    late = watcher(t, topic)
    late.message(topic, "state: gone", retain=True)
    t.client().publish(topic, b"", qos=1, retain=True)


@proves("3.3.1-10 3.1.2-17", "3.3.1-6 3.1.2-15", ALL)
def empty_retained_will_clears_the_retained_message(t):
    topic = t.topic()
    p = t.client()
    p.publish(topic, "state", qos=1, retain=True)
    s = watcher(t, topic)
    s.message(topic, "state", retain=True)
    t.client(will=Will(topic, b"", 1, True)).drop()
    s.message(topic, b"", retain=False)
    t.nothing(p, watcher(t, topic))


@proves("", "3.1.3-10 3.3.2-4 3.3.2-15 3.3.2-16 3.3.2-17 3.3.2-20")
def will_carries_its_properties(t):
    topic = t.topic()
    s = watcher(t, topic)
    user = [("user", ("b", "1")), ("user", ("a", "2")), ("user", ("b", "0"))]
    t.client(will=Will(topic, b"text", 1, properties=[
        ("payload_format", 1), ("message_expiry", 300), ("content_type", "text/plain"),
        ("response_topic", "answers/here"), ("correlation_data", b"\0\1\xff")] + user)).drop()
    p = s.message(topic, "text")
    same("payload format", p.get("payload_format"), 1)
    check(295 <= p.get("message_expiry", 0) <= 300, "message expiry %r", p.get("message_expiry"))
    same("content type", p.get("content_type"), "text/plain")
    same("response topic", p.get("response_topic"), "answers/here")
    same("correlation data", p.get("correlation_data"), b"\0\1\xff")
    same("user properties", p.all("user"), [value for _, value in user])


@proves("", "3.1.2-8")
def will_waits_for_its_delay(t):
    topic = t.topic()
    s = watcher(t, topic)
    c = t.session(will=Will(topic, b"late", 1, properties={"will_delay": 2}))
    c.drop()
    p = t.client()
    p.ping()
    t.wait(0.8)
    t.nothing(p, s)
    s.message(topic, "late", patience=5)


@proves("", "3.1.3-9 3.1.2-8")
def reconnection_within_the_delay_cancels_the_will(t):
    topic = t.topic()
    s = watcher(t, topic)
    c = t.session(will=Will(topic, b"never", 1, properties={"will_delay": 1}))
    c.drop()
    c = t.session(c.id)
    t.wait(2.6)
    t.nothing(c, s)


@proves("", "3.1.3-9 3.1.4-3")
def takeover_within_the_delay_cancels_the_will(t):
    topic = t.topic()
    s = watcher(t, topic)
    c = t.session(will=Will(topic, b"never", 1, properties={"will_delay": 1}))
    c = t.session(c.id)
    t.wait(2.6)
    t.nothing(c, s)


@proves("", "3.1.2-8")
def end_of_the_session_publishes_a_delayed_will(t):
    topic = t.topic()
    s = watcher(t, topic)
    c = t.session(expiry=1, will=Will(topic, b"session over", 1, properties={"will_delay": 3600}))
    c.drop()
    s.message(topic, "session over", patience=6)


# mosquitto 2.0.11: waits for the delay. mosquitto is wrong (3.1.3.2.2: the session's end comes first).
@proves("", "3.1.2-8")
def delayed_will_goes_out_at_once_without_a_session(t):
    topic = t.topic()
    s = watcher(t, topic)
    t.client(will=Will(topic, b"no session", 1, properties={"will_delay": 3600})).drop()
    s.message(topic, "no session")


# mosquitto 2.0.11: drops the will. mosquitto is wrong (3.1.3.2.2: Clean Start ends the session, so the will goes out).
@proves("", "3.1.2-8 3.1.2-4")
def clean_start_ends_the_session_and_publishes_a_delayed_will(t):
    topic = t.topic()
    s = watcher(t, topic)
    c = t.session(will=Will(topic, b"old session", 1, properties={"will_delay": 3600}))
    c.drop()
    t.client(c.id)
    s.message(topic, "old session")


@proves("3.1.2-8", "3.1.2-8", (4, 5))
def will_reaches_the_queue_of_an_offline_subscriber(t):
    topic = t.topic()
    s = t.session()
    s.subscribe((topic, 1))
    s.disconnect()
    c = t.client(will=Will(topic, b"for later", 1))
    c.drop()
    other = t.client()
    other.subscribe((topic, 0))  # only to wait until the will has been published
    s = t.session(s.id)
    s.message(topic, "for later", patience=5)


@proves("3.1.2-8", "3.1.2-8", ALL)
def will_follows_what_its_client_sent_before(t):
    topic = t.topic()
    s = watcher(t, topic)
    c = t.client(will=Will(topic, b"last", 1))
    for i in range(20):
        c.publish(topic, "%d" % i, qos=1)
    c.drop()
    got = [s.message(topic).payload for _ in range(21)]
    same("order", got, [b"%d" % i for i in range(20)] + [b"last"])


@proves("3.1.2-8", "3.1.2-8", ALL)
def refused_connect_has_no_will(t):
    topic = t.topic()
    s = watcher(t, topic)
    t.refused(connect(4, t.id(), will=Will(topic, b"never"), flags=0x07), version=4)
    c = t.open(4)
    c.send(connect(4, "", clean=False, will=Will(topic, b"never")))
    c.drain()
    t.nothing(t.client(), s)


@proves("", "3.2.2-12 3.2.2-13")
def will_above_the_servers_capability_is_refused(t):
    p = t.client().connack
    qos, retain = p.get("maximum_qos"), p.get("retain_available", 1)
    if qos is None and retain:
        raise Skip("the server limits neither QoS nor retained messages")
    for will in ([Will(t.topic(), qos=qos + 1)] if qos is not None else []) + (
            [] if retain else [Will(t.topic(), retain=True)]):
        c = t.open()
        c.send(connect(5, t.id(), will=will))
        c.expect(CONNACK, reason=0x9A if will.retain else 0x9B)
        c.expect_closed()


# mosquitto 2.0.11: waits for the delay. mosquitto is wrong (3.1.3.2.2: the session's end comes first).
@proves("", "3.1.2-8 3.14.2-1")
def disconnect_0x04_respects_the_delay_and_the_end_of_the_session(t):
    topic = t.topic()
    s = watcher(t, topic)
    t.session(will=Will(topic, b"at once", 1, properties={"will_delay": 3600})).disconnect(0x04, {"session_expiry": 0})
    s.message(topic, "at once")
    p = t.client()
    t.session(will=Will(topic, b"later", 1, properties={"will_delay": 1})).disconnect(0x04)
    t.nothing(p, s)
    s.message(topic, "later", patience=5)


@proves("", "3.1.2-7 3.1.2-10")
def the_will_of_the_newest_connection_counts(t):
    topic = t.topic()
    s = watcher(t, topic)
    c = t.session(will=Will(topic, b"old", 1, properties={"will_delay": 60}))
    c.drop()
    c = t.session(c.id, will=Will(topic, b"new", 1))
    c.drop()
    s.message(topic, "new")
    t.nothing(t.client(), s)


@proves("", "3.1.2-24 3.1.2-25")
def will_above_the_maximum_packet_size_is_not_sent(t):
    topic = t.topic()
    s = t.client(properties={"maximum_packet_size": 100})
    s.subscribe((topic, 1))
    t.client(will=Will(topic, b"x" * 200, 1)).drop()
    other = watcher(t, topic)
    c = t.client(will=Will(topic, b"small", 1))
    c.drop()
    other.message(topic, "small")
    s.message(topic, "small")
