//! A bounded queue of events that the broker has not acknowledged. Pure.
//!
//! Events leave in the order in which they came, and stay in the queue until the broker has
//! acknowledged every packet of them (some go to two topics): a lost connection takes nothing with
//! it, everything without acknowledgement is sent again in the same order on the next one. An event
//! may therefore arrive twice (`QoS` 1); its `id` tells.
//!
//! The event log is what lasts. [`Outbox::delivered_seq`] tells up to where in the log the broker
//! has everything; whoever keeps that number begins there after a restart.
//!
//! When the queue is full, by count or by bytes, the oldest event goes and is counted: news of now
//! is worth more than news of then, and the event log keeps all of it.

use std::collections::VecDeque;
use std::sync::Arc;

/// Most payload bytes that wait at one time, whatever their number: 16 MiB, so that a broker that
/// is away for days cannot fill the memory of a small board.
pub const OUTBOX_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Names an event in the queue; grows with every event, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Most events; 0 is taken as 1.
    pub messages_max: usize,
    /// Most payload bytes; one event is always kept, however large.
    pub bytes_max: usize,
}

/// Where an event goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To those who follow decisions.
    Decisions,
    /// To those who follow the door.
    Door,
    /// To both.
    Both,
}

impl Route {
    /// Packets, one for each topic.
    pub fn packets(self) -> u8 {
        match self {
            Self::Decisions | Self::Door => 1,
            Self::Both => 2,
        }
    }
}

/// An event on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its number in the event log; 0 when the log has not got it.
    pub seq: u64,
    /// As it is sent.
    pub payload: Arc<[u8]>,
    /// Where to.
    pub route: Route,
}

/// What an acknowledgement means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// The event was dropped meanwhile, was acknowledged before, or is not on its way.
    Nothing,
    /// Another packet of the event is still on its way.
    Part,
    /// The event has left the queue.
    Whole {
        /// Whether the broker took every packet.
        accepted: bool,
    },
}

/// The queue. Invariant: the first `sent` entries are with the broker and unacknowledged, the rest
/// waits; tokens, and numbers but 0, increase from front to back.
#[derive(Debug)]
pub struct Outbox {
    entries: VecDeque<Entry>,
    sent: usize,
    bytes: usize,
    next: u64,
    limits: OutboxLimits,
    dropped: u64,
    newest_seq: u64,
}

#[derive(Debug)]
struct Entry {
    token: Token,
    event: Outgoing,
    unacknowledged: u8,
    accepted: bool,
}

impl Outbox {
    /// An empty queue. The broker has everything up to `delivered_seq`.
    pub fn new(limits: OutboxLimits, delivered_seq: u64) -> Self {
        let limits = OutboxLimits { messages_max: limits.messages_max.max(1), ..limits };
        Self {
            entries: VecDeque::new(),
            sent: 0,
            bytes: 0,
            next: 0,
            limits,
            dropped: 0,
            newest_seq: delivered_seq,
        }
    }

    /// Appends an event; makes room by dropping the oldest ones. `None` for one that the queue has
    /// had: the log numbers events in their order.
    pub fn push(&mut self, event: Outgoing) -> Option<Token> {
        if event.seq != 0 {
            if event.seq <= self.newest_seq {
                return None;
            }
            self.newest_seq = event.seq;
        }
        let token = Token(self.next);
        self.next += 1;
        self.bytes += event.payload.len();
        let unacknowledged = event.route.packets();
        self.entries.push_back(Entry { token, event, unacknowledged, accepted: true });
        while self.is_over() {
            self.drop_oldest();
        }
        Some(token)
    }

    /// An event that cannot be sent in any form counts as one that was dropped.
    pub fn pass_over(&mut self, seq: u64) {
        self.newest_seq = self.newest_seq.max(seq);
        self.dropped += 1;
    }

    /// Events that the log lost before the queue could take them count as dropped.
    pub fn count_dropped(&mut self, events: u64) {
        self.dropped += events;
    }

    /// The next event to send, or `None` when nothing waits or `window` events are already
    /// unacknowledged. Asking again answers the same until [`Self::mark_sent`].
    pub fn next_to_send(&self, window: usize) -> Option<(Token, &Outgoing)> {
        if self.sent >= window {
            return None;
        }
        self.entries.get(self.sent).map(|entry| (entry.token, &entry.event))
    }

    /// The event that [`Self::next_to_send`] answered is on its way, all packets of it.
    pub fn mark_sent(&mut self, token: Token) {
        if self.entries.get(self.sent).is_some_and(|entry| entry.token == token) {
            self.sent += 1;
        }
    }

    /// The broker has a packet of it, or has refused that for good.
    pub fn acknowledge(&mut self, token: Token, accepted: bool) -> Acknowledged {
        let mut on_its_way = self.entries.iter_mut().take(self.sent).enumerate();
        let Some((at, entry)) = on_its_way.find(|(_, entry)| entry.token == token) else {
            return Acknowledged::Nothing;
        };
        entry.accepted &= accepted;
        entry.unacknowledged = entry.unacknowledged.saturating_sub(1);
        if entry.unacknowledged > 0 {
            return Acknowledged::Part;
        }
        let accepted = entry.accepted;
        self.sent -= 1;
        self.remove(at);
        Acknowledged::Whole { accepted }
    }

    /// Takes an event out that can never be delivered, and counts it as dropped.
    pub fn discard(&mut self, token: Token) {
        if let Ok(at) = self.entries.binary_search_by_key(&token, |entry| entry.token) {
            if at < self.sent {
                self.sent -= 1;
            }
            self.remove(at);
            self.dropped += 1;
        }
    }

    /// The connection is gone, and with it every acknowledgement that was still to come: all events
    /// wait again.
    pub fn connection_lost(&mut self) {
        for entry in self.entries.iter_mut().take(self.sent) {
            entry.unacknowledged = entry.event.route.packets();
            entry.accepted = true;
        }
        self.sent = 0;
    }

    /// Up to which number of the log nothing waits any more: it was acknowledged or dropped.
    pub fn delivered_seq(&self) -> u64 {
        let oldest = self.entries.iter().map(|entry| entry.event.seq).find(|seq| *seq != 0);
        oldest.map_or(self.newest_seq, |seq| seq - 1)
    }

    /// The newest number that the queue has had.
    pub fn newest_seq(&self) -> u64 {
        self.newest_seq
    }

    /// Events without acknowledgement, on their way or not.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether everything was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Events on their way to the broker.
    pub fn in_flight(&self) -> usize {
        self.sent
    }

    /// Payload bytes in the queue.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Events that left without an acknowledgement since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn is_over(&self) -> bool {
        let too_many = self.entries.len() > self.limits.messages_max;
        too_many || (self.bytes > self.limits.bytes_max && self.entries.len() > 1)
    }

    fn drop_oldest(&mut self) {
        self.sent = self.sent.saturating_sub(1);
        self.remove(0);
        self.dropped += 1;
    }

    fn remove(&mut self, at: usize) {
        if let Some(entry) = self.entries.remove(at) {
            self.bytes -= entry.event.payload.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: usize = 4;

    fn outbox(messages_max: usize) -> Outbox {
        Outbox::new(OutboxLimits { messages_max, bytes_max: 1 << 20 }, 0)
    }

    /// An event that the log has not got.
    fn add(outbox: &mut Outbox, payload: Vec<u8>) -> Token {
        add_numbered(outbox, 0, payload, Route::Decisions).unwrap()
    }

    fn add_numbered(
        outbox: &mut Outbox,
        seq: u64,
        payload: Vec<u8>,
        route: Route,
    ) -> Option<Token> {
        outbox.push(Outgoing { seq, payload: payload.into(), route })
    }

    const ACCEPTED: Acknowledged = Acknowledged::Whole { accepted: true };

    fn send(outbox: &mut Outbox, window: usize) -> Option<(Token, Vec<u8>)> {
        let (token, event) = outbox.next_to_send(window)?;
        let payload = event.payload.to_vec();
        outbox.mark_sent(token);
        Some((token, payload))
    }

    #[test]
    fn messages_stay_until_they_are_acknowledged() {
        let mut outbox = outbox(10);
        add(&mut outbox, vec![1]);
        let (token, payload) = send(&mut outbox, WINDOW).unwrap();
        assert_eq!((payload, outbox.len(), outbox.in_flight()), (vec![1], 1, 1));
        assert_eq!(outbox.acknowledge(token, true), ACCEPTED);
        assert!(outbox.is_empty());
        assert_eq!(
            outbox.acknowledge(token, true),
            Acknowledged::Nothing,
            "a second acknowledgement means nothing"
        );
    }

    #[test]
    fn the_window_is_kept_and_opens_with_every_acknowledgement() {
        let mut outbox = outbox(10);
        for value in 0..6 {
            add(&mut outbox, vec![value]);
        }
        let first = send(&mut outbox, 2).unwrap().0;
        let second = send(&mut outbox, 2).unwrap().0;
        assert_eq!(outbox.next_to_send(2), None);
        assert_eq!(
            outbox.acknowledge(second, true),
            ACCEPTED,
            "the broker may acknowledge out of order"
        );
        assert_eq!(send(&mut outbox, 2).unwrap().1, vec![2]);
        assert_eq!(outbox.acknowledge(first, true), ACCEPTED);
        assert_eq!(send(&mut outbox, 2).unwrap().1, vec![3]);
    }

    #[test]
    fn a_lost_connection_sends_the_unacknowledged_again_in_order() {
        let mut outbox = outbox(10);
        for value in 0..4 {
            add(&mut outbox, vec![value]);
        }
        let tokens: Vec<Token> =
            std::iter::from_fn(|| send(&mut outbox, 3)).map(|sent| sent.0).collect();
        assert_eq!(outbox.acknowledge(tokens[1], true), ACCEPTED);
        outbox.connection_lost();
        assert_eq!(
            outbox.acknowledge(tokens[0], true),
            Acknowledged::Nothing,
            "an acknowledgement of the old connection"
        );
        let again: Vec<u8> =
            std::iter::from_fn(|| send(&mut outbox, 9)).map(|sent| sent.1[0]).collect();
        assert_eq!(again, [0, 2, 3]);
    }

    #[test]
    fn a_full_queue_drops_and_counts_the_oldest() {
        let mut outbox = outbox(3);
        let oldest = add(&mut outbox, vec![0]);
        let _ = send(&mut outbox, WINDOW);
        for value in 1..5 {
            add(&mut outbox, vec![value]);
        }
        assert_eq!((outbox.len(), outbox.dropped(), outbox.in_flight()), (3, 2, 0));
        assert_eq!(
            outbox.acknowledge(oldest, true),
            Acknowledged::Nothing,
            "late news of a dropped message changes nothing"
        );
        assert_eq!(send(&mut outbox, WINDOW).unwrap().1, vec![2]);
    }

    #[test]
    fn bytes_are_bounded_but_one_message_always_fits() {
        let mut outbox = Outbox::new(OutboxLimits { messages_max: 100, bytes_max: 10 }, 0);
        add(&mut outbox, vec![0; 6]);
        add(&mut outbox, vec![0; 4]);
        assert_eq!((outbox.len(), outbox.dropped()), (2, 0));
        add(&mut outbox, vec![0; 1]);
        assert_eq!((outbox.len(), outbox.bytes(), outbox.dropped()), (2, 5, 1));
        add(&mut outbox, vec![0; 99]);
        assert_eq!((outbox.len(), outbox.bytes(), outbox.dropped()), (1, 99, 3));
    }

    #[test]
    fn discarding_counts_once() {
        let mut outbox = outbox(5);
        let token = add(&mut outbox, vec![1]);
        add(&mut outbox, vec![2]);
        outbox.discard(token);
        outbox.discard(token);
        assert_eq!((outbox.len(), outbox.dropped()), (1, 1));
        assert_eq!(send(&mut outbox, WINDOW).unwrap().1, vec![2]);
    }

    #[test]
    fn an_event_on_two_topics_counts_when_both_are_acknowledged() {
        let mut outbox = outbox(5);
        add_numbered(&mut outbox, 7, vec![1], Route::Both).unwrap();
        add_numbered(&mut outbox, 8, vec![2], Route::Door).unwrap();
        let first = send(&mut outbox, WINDOW).unwrap().0;
        let second = send(&mut outbox, WINDOW).unwrap().0;
        assert_eq!(outbox.acknowledge(second, true), ACCEPTED);
        assert_eq!(outbox.acknowledge(first, false), Acknowledged::Part);
        assert_eq!(outbox.delivered_seq(), 6);
        outbox.connection_lost();
        let first = send(&mut outbox, WINDOW).unwrap().0;
        assert_eq!(outbox.acknowledge(first, true), Acknowledged::Part, "both go again");
        let refused = Acknowledged::Whole { accepted: false };
        assert_eq!(outbox.acknowledge(first, false), refused);
        assert_eq!(outbox.delivered_seq(), 8);
    }

    #[test]
    fn the_cursor_stays_before_the_oldest_event_that_waits() {
        let mut outbox = Outbox::new(OutboxLimits { messages_max: 3, bytes_max: 1000 }, 40);
        assert_eq!(outbox.delivered_seq(), 40);
        assert_eq!(add_numbered(&mut outbox, 40, vec![0], Route::Door), None, "it was delivered");
        for seq in [41, 0, 43] {
            add_numbered(&mut outbox, seq, vec![seq as u8], Route::Door).unwrap();
        }
        assert_eq!(add_numbered(&mut outbox, 43, vec![0], Route::Door), None, "it waits already");
        assert_eq!(outbox.delivered_seq(), 40);
        let tokens: Vec<Token> =
            std::iter::from_fn(|| send(&mut outbox, 9)).map(|sent| sent.0).collect();
        outbox.acknowledge(tokens[2], true);
        assert_eq!(outbox.delivered_seq(), 40);
        outbox.acknowledge(tokens[0], true);
        assert_eq!(outbox.delivered_seq(), 43, "what the log has not got does not count");
        for seq in 44..48 {
            add_numbered(&mut outbox, seq, vec![0], Route::Door).unwrap();
        }
        assert_eq!((outbox.delivered_seq(), outbox.dropped()), (44, 2));
        outbox.pass_over(48);
        assert_eq!(outbox.newest_seq(), 48);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Send,
        Acknowledge(usize),
        Discard(usize),
        Lose,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..12_usize).prop_map(Step::Push),
            4 => Just(Step::Send),
            3 => (0..WINDOW + 2).prop_map(Step::Acknowledge),
            1 => (0..8_usize).prop_map(Step::Discard),
            1 => Just(Step::Lose),
        ];
        prop::collection::vec(step, 0..200)
    }

    /// The same queue in the plainest form: a list of (number, size, on its way).
    #[derive(Default)]
    struct Model {
        waiting: Vec<(u64, usize, bool)>,
        dropped: u64,
    }

    impl Model {
        fn push(&mut self, number: u64, size: usize, limits: OutboxLimits) {
            self.waiting.push((number, size, false));
            let bytes = |list: &[(u64, usize, bool)]| list.iter().map(|m| m.1).sum::<usize>();
            while self.waiting.len() > limits.messages_max
                || (bytes(&self.waiting) > limits.bytes_max && self.waiting.len() > 1)
            {
                self.waiting.remove(0);
                self.dropped += 1;
            }
        }

        fn next(&self) -> Option<u64> {
            let on_their_way = self.waiting.iter().filter(|message| message.2).count();
            let first = self.waiting.iter().find(|message| !message.2)?;
            (on_their_way < WINDOW).then_some(first.0)
        }
    }

    proptest! {
        #[test]
        fn behaves_like_the_plain_model(steps in steps(), messages_max in 1..9_usize) {
            let limits = OutboxLimits { messages_max, bytes_max: 40 };
            let mut outbox = Outbox::new(limits, 0);
            let mut model = Model::default();
            let mut handed: Vec<Token> = Vec::new();
            for step in steps {
                match step {
                    Step::Push(size) => {
                        let token = add(&mut outbox, vec![7; size]);
                        model.push(token.0, size, limits);
                    }
                    Step::Send => {
                        let sent = send(&mut outbox, WINDOW).map(|sent| sent.0);
                        prop_assert_eq!(sent.map(|token| token.0), model.next());
                        if let Some(token) = sent {
                            model.waiting.iter_mut().find(|m| m.0 == token.0).unwrap().2 = true;
                            handed.push(token);
                        }
                    }
                    Step::Acknowledge(which) => {
                        let Some(token) = handed.get(which).copied() else { continue };
                        let known = model.waiting.iter().position(|m| m.0 == token.0 && m.2);
                        prop_assert_eq!(outbox.acknowledge(token, true) == ACCEPTED, known.is_some());
                        if let Some(at) = known {
                            model.waiting.remove(at);
                        }
                        handed.remove(which);
                    }
                    Step::Discard(which) => {
                        let Some(number) = model.waiting.get(which).map(|m| m.0) else { continue };
                        outbox.discard(Token(number));
                        model.waiting.remove(which);
                        model.dropped += 1;
                    }
                    Step::Lose => {
                        outbox.connection_lost();
                        model.waiting.iter_mut().for_each(|message| message.2 = false);
                        handed.clear();
                    }
                }
                prop_assert_eq!(outbox.len(), model.waiting.len());
                prop_assert_eq!(outbox.bytes(), model.waiting.iter().map(|m| m.1).sum::<usize>());
                prop_assert_eq!(outbox.in_flight(), model.waiting.iter().filter(|m| m.2).count());
                prop_assert_eq!(outbox.dropped(), model.dropped);
            }
        }

        /// With a broker that acknowledges some of what it gets and breaks off at will, everything
        /// that was not dropped arrives, and first arrivals come in order.
        #[test]
        fn nothing_is_lost_and_order_is_kept(breaks in prop::collection::vec(0..7_usize, 0..20)) {
            let mut outbox = outbox(1000);
            for value in 0..100_u8 {
                add(&mut outbox, vec![value]);
            }
            let mut arrived: Vec<u8> = Vec::new();
            let mut breaks = breaks.into_iter();
            while !outbox.is_empty() {
                let burst: Vec<(Token, Vec<u8>)> =
                    std::iter::from_fn(|| send(&mut outbox, WINDOW)).collect();
                let acknowledged = breaks.next().unwrap_or(usize::MAX);
                for (index, (token, payload)) in burst.into_iter().enumerate() {
                    if !arrived.contains(&payload[0]) {
                        arrived.push(payload[0]);
                    }
                    if index < acknowledged {
                        outbox.acknowledge(token, true);
                    }
                }
                if acknowledged != usize::MAX {
                    outbox.connection_lost();
                }
            }
            prop_assert_eq!(arrived, (0..100).collect::<Vec<u8>>());
        }
    }
}
