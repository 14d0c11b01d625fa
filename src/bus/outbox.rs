//! A bounded queue of messages that the broker has not acknowledged. Pure.
//!
//! Messages leave in the order in which they came, and stay in the queue until the broker's
//! acknowledgement: a lost connection takes nothing with it, everything without acknowledgement is
//! sent again in the same order on the next one. A message may therefore arrive twice (`QoS` 1); the
//! event's `id` tells.
//!
//! When the queue is full, by count or by bytes, the oldest message goes and is counted: news of
//! now is worth more than news of then, and the event log keeps all of it.

use std::collections::VecDeque;

/// Most payload bytes that wait at one time, whatever their number: 16 MiB, so that a broker that
/// is away for days cannot fill the memory of a small board.
pub const OUTBOX_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Names a message in the queue; grows with every message, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Most messages; 0 is taken as 1.
    pub messages_max: usize,
    /// Most payload bytes; one message is always kept, however large.
    pub bytes_max: usize,
}

/// The queue. Invariant: the first `sent` entries are with the broker and unacknowledged, the rest
/// waits; tokens increase from front to back.
#[derive(Debug)]
pub struct Outbox {
    entries: VecDeque<Entry>,
    sent: usize,
    bytes: usize,
    next: u64,
    limits: OutboxLimits,
    dropped: u64,
}

#[derive(Debug)]
struct Entry {
    token: Token,
    payload: Vec<u8>,
}

impl Outbox {
    /// An empty queue.
    pub fn new(limits: OutboxLimits) -> Self {
        let limits = OutboxLimits { messages_max: limits.messages_max.max(1), ..limits };
        Self { entries: VecDeque::new(), sent: 0, bytes: 0, next: 0, limits, dropped: 0 }
    }

    /// Appends a message; makes room by dropping the oldest ones.
    pub fn push(&mut self, payload: Vec<u8>) -> Token {
        let token = Token(self.next);
        self.next += 1;
        self.bytes += payload.len();
        self.entries.push_back(Entry { token, payload });
        while self.is_over() {
            self.drop_oldest();
        }
        token
    }

    /// The next message to send, or `None` when nothing waits or `window` messages are already
    /// unacknowledged. Asking again answers the same until [`Self::mark_sent`].
    pub fn next_to_send(&self, window: usize) -> Option<(Token, &[u8])> {
        if self.sent >= window {
            return None;
        }
        self.entries.get(self.sent).map(|entry| (entry.token, entry.payload.as_slice()))
    }

    /// The message that [`Self::next_to_send`] answered is on its way.
    pub fn mark_sent(&mut self, token: Token) {
        if self.entries.get(self.sent).is_some_and(|entry| entry.token == token) {
            self.sent += 1;
        }
    }

    /// The broker has it, or has refused it for good: the message leaves the queue. Answers `false`
    /// for one that was dropped meanwhile, was acknowledged before, or is not on its way.
    pub fn acknowledge(&mut self, token: Token) -> bool {
        let on_its_way = self.entries.iter().take(self.sent);
        let Some(at) = on_its_way.into_iter().position(|entry| entry.token == token) else {
            return false;
        };
        self.sent -= 1;
        self.remove(at);
        true
    }

    /// Takes a message out that can never be delivered, and counts it as dropped.
    pub fn discard(&mut self, token: Token) {
        if let Ok(at) = self.entries.binary_search_by_key(&token, |entry| entry.token) {
            if at < self.sent {
                self.sent -= 1;
            }
            self.remove(at);
            self.dropped += 1;
        }
    }

    /// The connection is gone, and with it every acknowledgement that was still to come: all
    /// messages wait again.
    pub fn connection_lost(&mut self) {
        self.sent = 0;
    }

    /// Messages without acknowledgement, on their way or not.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether everything was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Messages on their way to the broker.
    pub fn in_flight(&self) -> usize {
        self.sent
    }

    /// Payload bytes in the queue.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages that left without an acknowledgement since the start.
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
            self.bytes -= entry.payload.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: usize = 4;

    fn outbox(messages_max: usize) -> Outbox {
        Outbox::new(OutboxLimits { messages_max, bytes_max: 1 << 20 })
    }

    fn send(outbox: &mut Outbox, window: usize) -> Option<(Token, Vec<u8>)> {
        let (token, payload) = outbox.next_to_send(window)?;
        let payload = payload.to_vec();
        outbox.mark_sent(token);
        Some((token, payload))
    }

    #[test]
    fn messages_stay_until_they_are_acknowledged() {
        let mut outbox = outbox(10);
        outbox.push(vec![1]);
        let (token, payload) = send(&mut outbox, WINDOW).unwrap();
        assert_eq!((payload, outbox.len(), outbox.in_flight()), (vec![1], 1, 1));
        assert!(outbox.acknowledge(token));
        assert!(outbox.is_empty());
        assert!(!outbox.acknowledge(token), "a second acknowledgement means nothing");
    }

    #[test]
    fn the_window_is_kept_and_opens_with_every_acknowledgement() {
        let mut outbox = outbox(10);
        for value in 0..6 {
            outbox.push(vec![value]);
        }
        let first = send(&mut outbox, 2).unwrap().0;
        let second = send(&mut outbox, 2).unwrap().0;
        assert_eq!(outbox.next_to_send(2), None);
        assert!(outbox.acknowledge(second), "the broker may acknowledge out of order");
        assert_eq!(send(&mut outbox, 2).unwrap().1, vec![2]);
        assert!(outbox.acknowledge(first));
        assert_eq!(send(&mut outbox, 2).unwrap().1, vec![3]);
    }

    #[test]
    fn a_lost_connection_sends_the_unacknowledged_again_in_order() {
        let mut outbox = outbox(10);
        for value in 0..4 {
            outbox.push(vec![value]);
        }
        let tokens: Vec<Token> =
            std::iter::from_fn(|| send(&mut outbox, 3)).map(|sent| sent.0).collect();
        assert!(outbox.acknowledge(tokens[1]));
        outbox.connection_lost();
        assert!(!outbox.acknowledge(tokens[0]), "an acknowledgement of the old connection");
        let again: Vec<u8> =
            std::iter::from_fn(|| send(&mut outbox, 9)).map(|sent| sent.1[0]).collect();
        assert_eq!(again, [0, 2, 3]);
    }

    #[test]
    fn a_full_queue_drops_and_counts_the_oldest() {
        let mut outbox = outbox(3);
        let oldest = outbox.push(vec![0]);
        let _ = send(&mut outbox, WINDOW);
        for value in 1..5 {
            outbox.push(vec![value]);
        }
        assert_eq!((outbox.len(), outbox.dropped(), outbox.in_flight()), (3, 2, 0));
        assert!(!outbox.acknowledge(oldest), "late news of a dropped message changes nothing");
        assert_eq!(send(&mut outbox, WINDOW).unwrap().1, vec![2]);
    }

    #[test]
    fn bytes_are_bounded_but_one_message_always_fits() {
        let mut outbox = Outbox::new(OutboxLimits { messages_max: 100, bytes_max: 10 });
        outbox.push(vec![0; 6]);
        outbox.push(vec![0; 4]);
        assert_eq!((outbox.len(), outbox.dropped()), (2, 0));
        outbox.push(vec![0; 1]);
        assert_eq!((outbox.len(), outbox.bytes(), outbox.dropped()), (2, 5, 1));
        outbox.push(vec![0; 99]);
        assert_eq!((outbox.len(), outbox.bytes(), outbox.dropped()), (1, 99, 3));
    }

    #[test]
    fn discarding_counts_once() {
        let mut outbox = outbox(5);
        let token = outbox.push(vec![1]);
        outbox.push(vec![2]);
        outbox.discard(token);
        outbox.discard(token);
        assert_eq!((outbox.len(), outbox.dropped()), (1, 1));
        assert_eq!(send(&mut outbox, WINDOW).unwrap().1, vec![2]);
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
            let mut outbox = Outbox::new(limits);
            let mut model = Model::default();
            let mut handed: Vec<Token> = Vec::new();
            for step in steps {
                match step {
                    Step::Push(size) => {
                        let token = outbox.push(vec![7; size]);
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
                        prop_assert_eq!(outbox.acknowledge(token), known.is_some());
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
                outbox.push(vec![value]);
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
                        outbox.acknowledge(token);
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
