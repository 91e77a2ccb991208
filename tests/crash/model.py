"""A model of what a durable broker has promised, kept outside of it.

The harness tells the model everything that clients send and receive, in the order in which that happened at the
clients, and when the broker was killed and started. The model knows three kinds of truth about each thing:
promised (an acknowledgement came), possible (it was asked for, and the answer may have been lost in a crash) and
ruled out. Whatever is promised and does not come is `lost`; whatever is ruled out and comes is a violation.

A message must reach a session when a subscription that matches was in force (acknowledged, and not being undone)
from the first PUBLISH until its PUBACK or PUBREC; it may when a subscription was so at any time in between.

A session that may or may not have been discarded (a Clean Start whose CONNACK never came, an expiry that may have
fallen into a crash) is `loose`: nothing is demanded of it until it is known to be new. Names and times come from
the caller: there is no clock and no randomness here, so tests invent histories (model_test.py).
"""
from receiver import Receiver

NO, MAYBE, YES = "no", "maybe", "yes"
SLACK_S = 1.5     # what a timer of the broker may be late by, on a busy machine
EARLY_S = 0.2     # what the harness may be late by in seeing a connection end
NOTICED_S = 1.0   # a lost connection is noticed, and that is durable, after so long
FOREVER = float("inf")


def matches(topic_filter, topic):
    """4.7; topics beginning with $ are not used here."""
    levels, names = topic_filter.split("/"), topic.split("/")
    for i, level in enumerate(levels):
        if level == "#":
            return True
        if i >= len(names) or level not in ("+", names[i]):
            return False
    return len(levels) == len(names)


class Publication:
    """One message, however often it is sent. Numbers grow in the order of first sending."""

    def __init__(self, number, publisher, topic, qos, payload, retain=False, expiry_s=None):
        self.number, self.publisher, self.topic, self.qos = number, publisher, topic, qos
        self.payload, self.retain, self.expiry_s = payload, retain, expiry_s
        self.attempts = 0
        self.first_sent = self.last_sent = None
        self.acknowledged = None    # when
        self.open = False           # the broker may route it now
        self.is_will = False
        self.delay_s = 0.0          # wills: from the loss of the connection
        self.not_before = 0.0
        self.not_after = FOREVER
        self.routes = {}            # Session or Group: Route

    def clears(self):
        return self.retain and not self.payload

    def __repr__(self):
        return "%d(%s from %s at QoS %d%s)" % (self.number, self.topic, self.publisher, self.qos,
                                               "" if self.expiry_s is None else ", expiry %d s" % self.expiry_s)


class Route:
    """Why a message may or must reach a session or a group."""
    __slots__ = ("must", "qos")

    def __init__(self, must):
        self.must, self.qos = must, set()


class Subscription:
    __slots__ = ("state", "qos", "topic_filter", "group")

    def __init__(self, topic_filter, group):
        self.state, self.qos, self.topic_filter, self.group = MAYBE, set(), topic_filter, group


class Group:
    """The members of one shared subscription."""

    def __init__(self, name):
        self.name = name
        self.members = {}      # Session: Subscription
        self.past = set()      # sessions that are or were members: they may finish what was begun
        self.owed = {}         # publications that a member must receive
        self.times = {}        # publication: how often a member passed it on at QoS 2

    def in_force(self):
        return any(each.state == YES for each in self.members.values())


class Session:
    """From the creation of a client's session to its end."""

    def __init__(self, client, report):
        self.client = client
        self.subscriptions = {}   # filter as sent: Subscription
        self.past = set()         # filters that it has or had: what was begun may come later
        self.owed = {}            # publications that must come
        self.owed_retained = {}   # (filter as sent, topic): number of the oldest retained message that will do
        self.asking = []          # the same for a SUBSCRIBE without SUBACK: topic to number, for each filter
        self.live_newest = {}     # topic: newest live number seen
        self.loose = False
        self.receiver = Receiver(self._report)
        self._to = report

    def _report(self, kind, text, *arguments):
        if not self.loose:
            self._to(kind, "%s: " % self.client + text, *arguments)

    report = _report


class Client:
    """A client identifier."""

    def __init__(self, name):
        self.name = name
        self.exists = NO
        self.was = NO              # when the newest CONNECT was sent
        self.session = None
        self.connection = None     # the number of the newest one, while it lives
        self.clean = False
        self.expiry_s = 0.0
        self.expires = None        # (earliest, latest) once disconnected
        self.gone_at = None
        self.connected_at = FOREVER
        self.asked = None          # the pending SUBSCRIBE or UNSUBSCRIBE
        self.will = None           # of the newest connection
        self.last_will = None      # of the one before, until CONNACK


class Model:
    def __init__(self):
        self.violations = []   # (kind, text)
        self.clients = {}
        self.groups = {}
        self.unacknowledged = {}
        self.retained = {}     # topic: publications in order
        self.ever_retained = set()
        self.acknowledgements = 0
        self.deliveries = 0
        self.down = None       # when the broker was killed, while it is down

    def report(self, kind, text, *arguments):
        self.violations.append((kind, text % arguments if arguments else text))

    def client(self, name):
        if name not in self.clients:
            self.clients[name] = Client(name)
        return self.clients[name]

    # ---- connections

    def connect_sent(self, name, connection, clean, expiry_s, at, will=None):
        client = self.client(name)
        if client.connection is None:
            self._expire(client, at)
        if client.will is not None:
            self._will_possible(client, at)
            client.will.not_before = 0.0  # a session that ends, ends its delay too
            client.will.not_after = FOREVER
            client.last_will = client.will
        if clean and client.exists != NO:
            self._loosen(client)
        client.was = client.exists
        if client.exists == NO:
            client.session = Session(name, self.report)
            client.exists = MAYBE
        client.connection, client.clean, client.expiry_s = connection, clean, expiry_s
        client.expires = client.asked = None
        client.will = will
        if will is not None:
            will.is_will, will.attempts = True, 1

    def connack(self, name, present, at):
        client = self.client(name)
        self.acknowledgements += 1
        if client.last_will is not None:
            client.last_will.open = False
            client.last_will = None
        client.connected_at = at
        if present and client.clean:
            self.report("session", "%s: session present after Clean Start", name)
        if present and client.was == NO:
            self.report("session", "%s: session present, but there was none", name)
        if not present and client.exists == YES and not client.clean:
            self.report("lost", "%s: session not present", name)
        if not present and (client.clean or client.exists != MAYBE or client.session.loose
                            or client.session.receiver.connections):
            self._end(client)
            client.session = Session(name, self.report)
        client.exists = YES
        client.session.receiver.connected()

    def disconnect_sent(self, name, at, expiry_s=None):
        """A normal end. It is not acknowledged, so its effects are only possible."""
        client = self.client(name)
        if client.will is not None:
            self._will_possible(client, at)
            client.will = None
        if expiry_s is not None and expiry_s != client.expiry_s:
            low, high = sorted((expiry_s, client.expiry_s))
            client.expires = (at + low, at + high + SLACK_S)
        self.closed(name, at)

    def closed(self, name, at):
        """The connection is gone, and the broker lives."""
        client = self.client(name)
        client.connection, client.asked = None, None
        client.gone_at = at
        if client.expires is None:
            client.expires = (at + client.expiry_s, at + client.expiry_s + SLACK_S)
        if client.will is not None:
            self._will_possible(client, at)
            client.will.not_before = at + min(client.will.delay_s, client.expiry_s)
            client.will.not_after = client.will.not_before + SLACK_S
        client.connected_at = FOREVER

    def crashed(self, at, forgets=True):
        """The broker was killed or stopped; or lost all connections at once, when it `forgets` nothing."""
        self.down = at
        for client in self.clients.values():
            if client.session is not None and forgets:
                client.session.receiver.crashed()
                client.session.live_newest.clear()  # what came live may not have been durable yet
        for publication in self.unacknowledged.values():
            publication.open = publication.open and publication.is_will
        for client in self.clients.values():
            client.asked = None
            if client.connection is not None:
                client.gone_at = at
                client.expires = (at + client.expiry_s, None)
                if client.will is not None:
                    self._will_possible(client, at)
                    client.will.not_before = at + min(client.will.delay_s, client.expiry_s)
                client.connection = None
            elif client.expires is None or at - client.gone_at >= NOTICED_S:
                continue
            client.expires = (client.expires[0], None)  # counted from the restart, perhaps
            if client.will is not None:
                client.will.not_after = None
        for client in self.clients.values():
            client.connected_at = FOREVER

    def restarted(self, at):
        """The broker accepts connections again."""
        self.down = None
        for client in self.clients.values():
            if client.expires is not None and client.expires[1] is None:
                client.expires = (client.expires[0], at + client.expiry_s + SLACK_S)
            if client.will is not None and client.will.not_after is None:
                client.will.not_after = at + min(client.will.delay_s, client.expiry_s) + SLACK_S
            elif client.will is not None:
                client.will.not_after = max(client.will.not_after, at + SLACK_S)

    def _expire(self, client, at):
        if client.exists == NO or client.expires is None:
            return
        low, high = client.expires
        if at > high:
            self._end(client)
            client.exists = NO
        elif at >= low - EARLY_S:
            self._loosen(client)

    def _loosen(self, client):
        """The session may be gone."""
        session = client.session
        client.exists = MAYBE
        session.loose = True
        session.owed.clear()
        session.owed_retained.clear()
        for publication in self.unacknowledged.values():
            route = publication.routes.get(session)
            if route:
                route.must = False
        for subscription in session.subscriptions.values():
            subscription.state = MAYBE
            self._group_changed(subscription.group)

    def _end(self, client):
        """The session is gone: nothing of it may come back."""
        if client.session is None:
            return
        self._loosen(client)
        for subscription in client.session.subscriptions.values():
            if subscription.group:
                subscription.group.members.pop(client.session, None)
        client.session.subscriptions.clear()

    # ---- subscriptions

    def subscribing(self, name, filters):
        """`filters`: (filter, QoS, Retain Handling) each."""
        client = self.client(name)
        session = client.session
        fresh = []
        for text, qos, handling in filters:
            subscription = session.subscriptions.get(text)
            was = subscription.state if subscription else NO
            if subscription is None:
                subscription = self._new_subscription(session, text)
            subscription.qos.add(qos)
            self._forget_scan(session, text)
            scans = handling == 0 or (handling == 1 and was == NO)
            newest = self._retained_now(subscription) if scans and not subscription.group else {}
            fresh.append((text, qos, subscription, newest))
        client.asked = fresh
        session.asking = [newest for _, _, _, newest in fresh]
        for publication in self.unacknowledged.values():
            if publication.open:
                self._route(publication, session, False)

    @staticmethod
    def _forget_scan(session, text):
        """Nobody says what becomes of a scan under way when its subscription is replaced."""
        for key in [key for key in session.owed_retained if key[0] == text]:
            del session.owed_retained[key]

    def _new_subscription(self, session, text):
        group, topic_filter = None, text
        if text.startswith("$share/"):
            topic_filter = text.split("/", 2)[2]
            group = self.groups.setdefault(text, Group(text))
        subscription = session.subscriptions[text] = Subscription(topic_filter, group)
        session.past.add(topic_filter)
        if group:
            group.members[session] = subscription
            group.past.add(session)
        return subscription

    def subscribed(self, name, codes):
        client = self.client(name)
        self.acknowledgements += 1
        for (text, qos, subscription, newest), code in zip(client.asked, codes):
            if code != qos:
                self.report("refused", "%s: SUBACK %#x for %s at QoS %d", name, code, text, qos)
                continue
            subscription.state, subscription.qos = YES, {qos}
            for topic, number in newest.items():
                client.session.owed_retained[text, topic] = number
        client.asked = None

    def _retained_now(self, subscription):
        """What a new subscription must see: topics whose retained message is known and stays."""
        newest = {}
        for topic, publications in self.retained.items():
            last = publications[-1]
            if matches(subscription.topic_filter, topic) and last.acknowledged is not None and \
                    last.payload and last.expiry_s is None and not self._repeated_later(publications, last):
                newest[topic] = last.number
        return newest

    @staticmethod
    def _repeated_later(publications, last):
        """Older messages that were sent again at QoS 1 after `last`: they take its place when that was known already
        and was at QoS 2."""
        return [each for each in publications
                if each.qos == 1 and each.attempts > 1 and each.last_sent > last.first_sent]

    def unsubscribing(self, name, filters):
        client = self.client(name)
        session = client.session
        client.asked = [(text, session.subscriptions[text].state if text in session.subscriptions else NO)
                        for text in filters]
        for text in filters:
            if text in session.subscriptions:
                subscription = session.subscriptions[text]
                subscription.state = MAYBE
                self._group_changed(subscription.group)
                self._forget_scan(session, text)
        self._recheck(session)

    def _in_force(self, session, topic):
        return any(each.state == YES and not each.group and matches(each.topic_filter, topic)
                   for each in session.subscriptions.values())

    def _recheck(self, session):
        """A subscription is being undone: what is queued for it alone may be dropped."""
        for number, publication in list(session.owed.items()):
            if not self._in_force(session, publication.topic):
                del session.owed[number]
        for publication in self.unacknowledged.values():
            route = publication.routes.get(session)
            if route and route.must and not self._in_force(session, publication.topic):
                route.must = False

    def _group_changed(self, group):
        if group is None or group.in_force():
            return
        group.owed.clear()
        for publication in self.unacknowledged.values():
            route = publication.routes.get(group)
            if route:
                route.must = False

    def unsubscribed(self, name, codes=None):
        client = self.client(name)
        session = client.session
        self.acknowledgements += 1
        for i, (text, was) in enumerate(client.asked):
            if codes is not None and not session.loose and codes[i] not in {
                    YES: (0x00,), MAYBE: (0x00, 0x11), NO: (0x11,)}[was]:
                kind = "lost" if was == YES else "unexpected"
                self.report(kind, "%s: UNSUBACK %#x for %s, subscribed: %s", name, codes[i], text, was)
            subscription = session.subscriptions.pop(text, None)
            if subscription and subscription.group:
                subscription.group.members.pop(session, None)
                self._group_changed(subscription.group)
        client.asked = None

    # ---- publications

    def _route(self, publication, session, fresh):
        """Notes that `publication` may reach `session`; must, if it is `fresh` and the subscription in force."""
        for subscription in session.subscriptions.values():
            if not matches(subscription.topic_filter, publication.topic):
                continue
            target = subscription.group or session
            client = self.clients[session.client]
            sure = subscription.state == YES and client.exists == YES and not session.loose
            route = publication.routes.get(target)
            if route is None:
                route = publication.routes[target] = Route(fresh and sure)
            elif fresh and sure:
                route.must = True
            route.qos |= {min(publication.qos, each) for each in subscription.qos}

    def _route_all(self, publication, fresh):
        for client in self.clients.values():
            if client.session is not None and client.exists != NO:
                self._route(publication, client.session, fresh)

    def published(self, publication, at):
        """PUBLISH was sent, for the first time or again."""
        first = publication.attempts == 0
        publication.attempts += 1
        publication.last_sent = at
        publication.open = True
        if first:
            publication.first_sent = at
            if publication.retain:
                self.retained.setdefault(publication.topic, []).append(publication)
                self._retained_changes(publication)
        self.unacknowledged[publication.number] = publication
        self._route_all(publication, first)

    def _retained_changes(self, publication):
        """Newer ones satisfy a new subscription as well, but not if they clear or expire."""
        if publication.clears() or publication.expiry_s is not None:
            for client in self.clients.values():
                if client.session is not None:
                    self._sees(client.session, publication)

    def acknowledged(self, publication, at, reason=0):
        """PUBACK or PUBREC came. Only the first one counts."""
        self.acknowledgements += 1
        if reason >= 0x80:
            self.report("refused", "%s was refused with %#x", publication, reason)
            return
        if publication.acknowledged is None:
            publication.acknowledged = at
            self._promise(publication, reason)

    def _promise(self, publication, reason=0):
        publication.open = False
        self.unacknowledged.pop(publication.number, None)
        for target, route in publication.routes.items():
            if not route.must:
                continue
            if reason == 0x10:
                self.report("lost", "%s: no matching subscribers, but %s is one", publication,
                            getattr(target, "client", None) or target.name)
            elif isinstance(target, Group):
                if publication not in target.times:
                    target.owed[publication.number] = publication
            elif publication not in target.receiver.times:
                target.owed[publication.number] = publication

    # ---- wills

    def _will_possible(self, client, at):
        """The will may be published from now on, and by whoever sees it last at not_after."""
        will = client.will
        if not will.open and will.acknowledged is None:
            will.open = True
            will.first_sent = will.last_sent = at
            self.unacknowledged[will.number] = will
            self._route_all(will, True)

    def will_due(self, name, at):
        """When its time is over and the client did not come back, its will must be published."""
        will = self.client(name).will
        if will is not None and will.acknowledged is None and will.open and at > will.not_after:
            will.acknowledged = will.first_sent
            self._promise(will)

    # ---- deliveries

    def delivered(self, name, connection, publication, packet, at, remaining_s=None):
        """`packet` has pid, qos, dup, retain, topic and payload."""
        client = self.client(name)
        session = client.session
        self.deliveries += 1
        if packet.topic != publication.topic or packet.payload != publication.payload:
            self.report("corrupt", "%s: %s came as %d bytes on %s", name, publication, len(packet.payload),
                        packet.topic)
            session.receiver.note(publication, connection, packet)
            return
        if packet.retain:
            self._retained_delivered(session, publication, packet)
            session.receiver.publish(publication, connection, packet, False, False)
            return
        group, route = self._why(session, publication)
        if route is None:
            session.report("unexpected", "%s came, but no subscription matched", publication)
            session.receiver.note(publication, connection, packet)
            return
        if packet.qos not in route.qos and not session.loose:
            session.report("unexpected", "%s came at QoS %d", publication, packet.qos)
        self._times(client, publication, packet, at, remaining_s)
        # One copy may have expired, and a later one of what was published again not.
        ordered = group is None and (publication.attempts == 1 or route.must and publication.expiry_s is None)
        if session.receiver.publish(publication, connection, packet, group is not None, ordered):
            self._passed_on(session, group, publication, packet)

    def _why(self, session, publication):
        if session in publication.routes:
            return None, publication.routes[session]
        for target, route in publication.routes.items():
            if isinstance(target, Group) and session in target.past:
                return target, route
        return None, None

    def _passed_on(self, session, group, publication, packet):
        if group is None:
            session.owed.pop(publication.number, None)
        else:
            group.owed.pop(publication.number, None)
            count = group.times[publication] = group.times.get(publication, 0) + 1
            if packet.qos == 2 and count > 1 and session.receiver.times[publication] < 2:
                session.report("twice", "%s came to two members of %s at QoS 2", publication, group.name)
        if publication.retain:
            self._sees(session, publication)
            session.live_newest[publication.topic] = max(
                publication.number, session.live_newest.get(publication.topic, -1))

    def _times(self, client, publication, packet, at, remaining_s):
        session = client.session
        if publication.is_will:
            if at < publication.not_before - EARLY_S:
                session.report("will", "%s came %.2f s early", publication, publication.not_before - at)
            if at > publication.not_after > client.connected_at + SLACK_S and not packet.dup:
                session.report("will", "%s came %.2f s late", publication, at - publication.not_after)
        if publication.expiry_s is None or packet.dup:
            return
        if at > publication.last_sent + publication.expiry_s + SLACK_S:
            session.report("expiry", "%s came %.2f s after it was sent, expiry %d s", publication,
                           at - publication.last_sent, publication.expiry_s)
        if remaining_s is not None:
            longest = publication.expiry_s - (at - publication.last_sent) + SLACK_S
            shortest = publication.expiry_s - (at - publication.first_sent) - SLACK_S
            if not max(0, shortest) <= remaining_s <= longest:
                session.report("expiry", "%s came with %d s left, not %.1f to %.1f", publication, remaining_s,
                               max(0, shortest), longest)

    # ---- retained

    @staticmethod
    def _sees(session, publication):
        """The message, or a newer one that takes its place, satisfies what a new subscription asks for."""
        for newest in session.asking:  # SUBACK may come after them (3.8.4)
            if newest.get(publication.topic, FOREVER) <= publication.number:
                del newest[publication.topic]
        for key, number in list(session.owed_retained.items()):
            if key[1] == publication.topic and number <= publication.number:
                del session.owed_retained[key]

    def _retained_delivered(self, session, publication, packet):
        if not publication.retain or not any(matches(each, publication.topic) for each in session.past):
            session.report("unexpected", "%s came as retained", publication)
        if publication.number < session.live_newest.get(publication.topic, -1) and not packet.dup and \
                publication.attempts == 1:
            session.report("order", "%s came as retained after number %d on the topic", publication,
                           session.live_newest[publication.topic])
        self._sees(session, publication)

    def snapshot(self, found, at):
        """`found`: topic to publication, all retained messages as a new client got them, up to `at`."""
        for topic, publications in self.retained.items():
            last = max((i for i, each in enumerate(publications) if each.acknowledged is not None), default=-1)
            possible = publications[max(last, 0):] + self._repeated_later(publications, publications[max(last, 0)])
            absent = last < 0 or any(
                not each.payload or (each.expiry_s is not None and at >= each.first_sent + each.expiry_s - EARLY_S)
                for each in possible)
            got = found.get(topic)
            if got is None:
                if not absent:
                    self.report("lost", "retained: nothing on %s instead of %s", topic, possible[0])
            elif got not in possible or not got.payload:
                self.report("retained", "%s instead of %s", got, possible)
            elif got.expiry_s is not None and at > got.last_sent + got.expiry_s + SLACK_S:
                self.report("expiry", "%s is still retained", got)
        for topic in found:
            if topic not in self.retained:
                self.report("retained", "nobody set %s", topic)

    # ---- the end

    def owed(self, at):
        """(client or group, publications) that are still to come; expired messages are not owed."""
        for client in self.clients.values():
            if client.session is not None:
                yield client.name, self._unexpired(client.session.owed, at) + [
                    "the retained message of %s" % topic for _, topic in client.session.owed_retained]
        for group in self.groups.values():
            yield group.name, self._unexpired(group.owed, at)

    @staticmethod
    def _unexpired(owed, at):
        return [each for each in owed.values()
                if each.expiry_s is None or at < each.first_sent + each.expiry_s - 0.1]

    def settled(self, name, at):
        """Everything that comes to this client has come."""
        client = self.client(name)
        client.session.receiver.settled(
            client.connection, lambda each: each.expiry_s is not None and at >= each.first_sent + each.expiry_s - 0.1)

    def finish(self, at):
        """The end of a history: whatever is still owed is lost."""
        for name, publications in self.owed(at):
            for publication in publications:
                self.report("lost", "%s did not get %s", name, publication)
