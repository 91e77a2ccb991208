"""What one session has received: packet identifiers in flight, DUP flags, order, and how often.

A session is followed from its creation to its end, across connections and crashes of the broker. The rules:

- A packet identifier belongs to one message from PUBLISH until the client's PUBACK or PUBCOMP (4.3, 2.2.1).
- What the client has not acknowledged comes again after a reconnection, with DUP 1 and the same packet
  identifier (4.4.0-1, 3.3.1-1), before anything new. What it has acknowledged may come again that way at
  QoS 1, because the acknowledgement may have got lost in the crash.
- At QoS 2 a message is passed on once, however often its PUBLISH comes (4.3.3).
- A message that was sent at QoS 1 before it was durable itself, which its publisher was not told, is forgotten in
  a crash together with its identifier. It comes as new only when it is published again.
- Messages of one publisher on one topic at one QoS are seen for the first time in the order of publication.
"""

SEEN = "seen"          # PUBLISH came, no answer was sent
ANSWERED = "answered"  # PUBACK (QoS 1) or PUBREC (QoS 2) was sent; nobody knows whether it arrived
RELEASED = "released"  # QoS 2: PUBREL came
DONE = "done"          # QoS 2: PUBCOMP was sent


class Held:
    """One packet identifier as the client knows it."""
    __slots__ = ("publication", "qos", "connection", "state", "shared", "retain")

    def __init__(self, publication, qos, connection, shared=False, retain=False):
        self.publication, self.qos, self.connection = publication, qos, connection
        self.state, self.shared, self.retain = SEEN, shared, retain

    def over(self):
        """The client owes nothing more for it."""
        return self.state == (ANSWERED if self.qos == 1 else DONE)


class Receiver:
    def __init__(self, report):
        self.report = report    # report(kind, text, *arguments)
        self.held = {}          # packet identifier: Held
        self.doubtful = {}      # those at QoS 1 from before a crash
        self.times = {}         # live publication: how often it was passed on
        self.plain = {}         # live publication: how often it came without DUP
        self.retained = {}      # retained publication: how often it was passed on
        self.newest = {}        # (publisher, topic, qos): number of the newest seen
        self.connections = 0
        self.fresh = False      # something new came on this connection
        self.repeated_scans = 0
        self.unsure = {}        # publication at QoS 1 in flight at a crash: whether it has to come again
        self.awaited = set()    # those of them that have not come since

    @staticmethod
    def _is_known(held):
        """The broker had the message on disk, and so the identifier. That of a shared one may go to another member."""
        publication = held.publication
        return held.qos == 2 or (publication is not None and publication.acknowledged is not None and
                                 publication.attempts == 1 and not publication.is_will and not held.shared)

    def crashed(self):
        """What is in flight at QoS 1 is unknown to the broker if it was not acknowledged."""
        for pid, held in list(self.held.items()):
            if self._is_known(held):
                continue
            if not held.retain and not held.shared and held.publication is not None:
                owed = held.state == SEEN and held.publication.acknowledged is not None
                self.unsure[held.publication] = owed or self.unsure.get(held.publication, False)
                self.awaited.add(held.publication)
            self.doubtful[pid] = self.held.pop(pid)

    def connected(self):
        self.connections += 1
        self.fresh = False

    def publish(self, publication, connection, packet, shared, ordered):
        """A PUBLISH came. Returns whether the client passes it on."""
        if packet.qos == 0:
            self._count(publication, packet)
            return True
        repeated = self._identifier(publication, connection, packet, shared)
        if packet.dup:
            if self.connections == 1:
                self.report("packet id", "DUP on the first connection: %s #%d", publication, packet.pid)
            if self.fresh:
                self.report("order", "%s #%d was sent again after something new", publication, packet.pid)
        else:
            self.fresh = True
        if repeated and packet.qos == 2:
            return False
        if not packet.retain and ordered and publication not in self.times:
            self._order(publication)
        self._count(publication, packet, shared)
        return True

    def note(self, publication, connection, packet):
        """A PUBLISH came that is wrong in itself: its exchange goes on all the same."""
        if packet.qos:
            self.held[packet.pid] = Held(publication, packet.qos, connection)

    def _identifier(self, publication, connection, packet, shared):
        """Returns whether this is the repetition of what is held under the same identifier."""
        doubtful = self.doubtful.pop(packet.pid, None)
        if publication in self.unsure and packet.qos == 1 and not packet.retain:
            self.unsure[publication] = False
            came_as_new = not packet.dup or doubtful is None or doubtful.publication is not publication
            if publication in self.awaited and came_as_new and publication.attempts == 1 and not publication.is_will:
                self.report("packet id", "%s was in flight at a crash and came as new, as #%d", publication, packet.pid)
            self.awaited.discard(publication)
        held = self.held.get(packet.pid)
        fresh = Held(publication, packet.qos, connection, shared, packet.retain)
        self._elsewhere(publication, packet, shared)
        if held is None or (held.over() and (held.publication is not publication or packet.retain and not packet.dup)):
            self.held[packet.pid] = fresh
            return False
        if held.publication is not publication:
            self.report("packet id", "#%d was given to %s while %s is in flight (%s)", packet.pid,
                        publication, held.publication, held.state)
            self.held[packet.pid] = fresh
            return False
        if held.connection == connection and not held.over():
            self.report("packet id", "%s #%d came twice on one connection", publication, packet.pid)
        if not packet.dup and not (held.over() and publication.attempts > 1):
            self.report("packet id", "%s #%d came again without DUP", publication, packet.pid)
        repeated = held.state in (SEEN, ANSWERED) and held.qos == packet.qos
        self.held[packet.pid] = fresh
        return repeated

    def _elsewhere(self, publication, packet, shared):
        """The same message under another identifier: only if it was published again, or handed over."""
        if publication.attempts > 1 or shared or packet.retain:
            return
        for pid, held in self.held.items():
            if pid != packet.pid and held.publication is publication and not held.retain and not (
                    held.qos == 2 and held.state in (RELEASED, DONE)):
                self.report("packet id", "%s came as #%d and as #%d", publication, pid, packet.pid)
                return

    def _order(self, publication):
        key = (publication.publisher, publication.topic, publication.qos)
        if publication.number < self.newest.get(key, -1):
            self.report("order", "%s came after number %d of the same publisher and topic",
                        publication, self.newest[key])
        self.newest[key] = max(publication.number, self.newest.get(key, -1))

    def _count(self, publication, packet, shared=False):
        if packet.retain:
            count = self.retained[publication] = self.retained.get(publication, 0) + 1
            if count > 1 and packet.qos == 2:
                self.repeated_scans += 1
            return
        count = self.times[publication] = self.times.get(publication, 0) + 1
        if packet.qos == 2 and count > 1:
            self.report("twice", "%s came twice at QoS 2", publication)
        if packet.qos == 1 and not packet.dup and not shared:
            plain = self.plain[publication] = self.plain.get(publication, 0) + 1
            if publication not in self.unsure and (
                    plain > publication.attempts or (count > 1 and publication.attempts == 1)):
                self.report("duplicate", "%s came %d times at QoS 1, published %d times, without DUP",
                            publication, count, publication.attempts)

    def answered(self, pid):
        """The client sent PUBACK or PUBREC."""
        if self.held[pid].state == SEEN:
            self.held[pid].state = ANSWERED

    def release(self, connection, pid):
        """PUBREL came."""
        held = self.held.get(pid)
        if held is None or held.qos != 2 or held.state == SEEN:
            self.report("packet id", "PUBREL #%d without PUBREC (%s)", pid,
                        "nothing held" if held is None else "%s %s" % (held.publication, held.state))
        elif held.connection == connection and held.state in (RELEASED, DONE):
            self.report("packet id", "PUBREL #%d twice on one connection", pid)
        else:
            held.state, held.connection = RELEASED, connection
        self.held.setdefault(pid, Held(None, 2, connection))

    def completed(self, pid):
        """The client sent PUBCOMP."""
        self.held[pid].state = DONE

    def settled(self, connection, is_expired):
        """Nothing more comes on this connection: what was in flight must have been continued on it."""
        for publication, owed in self.unsure.items():
            if owed and not is_expired(publication):
                self.report("lost", "%s was in flight at QoS 1 and did not come again", publication)
        for pid, held in self.held.items():
            if not held.over() and held.connection != connection and not (held.shared and held.qos == 1):
                self.report("lost", "%s #%d was in flight (%s) and was not continued", held.publication, pid,
                            held.state)
