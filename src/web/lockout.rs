//! Addresses that present keys which do not exist, again and again, are locked out for a while.
//!
//! A key has 256 random bits, so nobody guesses one; what this gains is a line in the log for the
//! administrator, and a program that tries keys is told to wait. A key that exists always passes:
//! people behind one address (NAT) must not be locked out by one of them with an old key. Loopback
//! is never counted, and the local socket has no keys at all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use crate::clock::Moment;
use crate::telemetry::Metrics;
use crate::telemetry::door::KeyFault;
use crate::web::error::ApiError;
use crate::web::server::Caller;

/// Bad keys of one address within [`WINDOW`]. A client whose key was revoked asks every second or
/// two; a program that tries keys asks hundreds of times.
pub const BAD_KEYS_MAX: u32 = 50;
/// See [`BAD_KEYS_MAX`].
pub const WINDOW: Duration = Duration::from_secs(60);
/// How long an address is locked out.
pub const LOCK: Duration = Duration::from_secs(300);
/// Addresses that are remembered; some hundred kilobytes. When all are taken and none has become
/// old, further ones are not counted: they still meet the other limits.
const ADDRESSES_MAX: usize = 4096;

/// The bad keys of every address; one for the service.
#[derive(Default)]
pub struct BadKeys(Mutex<HashMap<IpAddr, Count>>);

#[derive(Clone, Copy)]
struct Count {
    /// Beginning of the window.
    began: Moment,
    bad: u32,
    locked_until: Option<Moment>,
}

impl Count {
    fn is_old(&self, now: Moment) -> bool {
        now.since(self.began) > WINDOW && self.locked_until.is_none_or(|until| until <= now)
    }
}

impl BadKeys {
    /// What a key that does not exist is answered: `Err` while its address is locked out.
    pub fn admit(&self, caller: Caller, now: Moment, metrics: &Metrics) -> Result<(), ApiError> {
        let Some(address) = counted(caller) else { return Ok(()) };
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = counts.get(&address).and_then(|count| count.locked_until);
        match until {
            Some(until) if now < until => {
                metrics.key_fault(KeyFault::LockedOut);
                Err(ApiError::too_many(until.since(now)))
            }
            _ => Ok(()),
        }
    }

    /// Counts a key that does not exist; the one too many locks its address out.
    pub fn note(&self, caller: Caller, now: Moment, metrics: &Metrics) {
        metrics.key_fault(KeyFault::BadKey);
        let Some(address) = counted(caller) else { return };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= ADDRESSES_MAX && !counts.contains_key(&address) {
            counts.retain(|_, count| !count.is_old(now));
            if counts.len() >= ADDRESSES_MAX {
                return;
            }
        }
        let fresh = Count { began: now, bad: 0, locked_until: None };
        let count = counts.entry(address).or_insert(fresh);
        if count.is_old(now) {
            *count = fresh;
        }
        count.bad = count.bad.saturating_add(1);
        if count.bad > BAD_KEYS_MAX {
            *count = Count { began: now, bad: 0, locked_until: Some(now.plus(LOCK)) };
            tracing::warn!(%address, "an address is locked out after many bad keys");
        }
    }
}

/// The address that is counted. Of IPv6 it is the network: a host chooses the rest at will. Link-local
/// and unique-local addresses are counted whole: all of a house is one such network, and its hosts
/// are known to it.
fn counted(caller: Caller) -> Option<IpAddr> {
    match caller {
        Caller::LocalSocket => None,
        Caller::Network { address } => match address.to_canonical() {
            own if own.is_loopback() => None,
            IpAddr::V4(own) => Some(own.into()),
            IpAddr::V6(own) if own.is_unicast_link_local() || own.is_unique_local() => {
                Some(own.into())
            }
            IpAddr::V6(own) => {
                let network = own.to_bits() & !u128::from(u64::MAX);
                Some(Ipv6Addr::from_bits(network).into())
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Caller {
        Caller::Network { address: address.parse().unwrap() }
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn many_bad_keys_lock_their_own_address_out_and_for_a_while_only() {
        let (keys, metrics) = (BadKeys::default(), Metrics::new("0"));
        let bad = from("192.168.1.9");
        for _ in 0..BAD_KEYS_MAX {
            keys.note(bad, at(5), &metrics);
        }
        assert!(keys.admit(bad, at(5), &metrics).is_ok());
        keys.note(bad, at(6), &metrics);
        let refused = keys.admit(bad, at(7), &metrics).unwrap_err().into_response();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["retry-after"]),
            (429, &hyper::header::HeaderValue::from_static("299"))
        );
        assert!(keys.admit(from("192.168.1.10"), at(7), &metrics).is_ok());
        assert!(keys.admit(bad, at(306), &metrics).is_ok());
        let text = metrics.render();
        assert!(text.contains("key_faults_total{fault=\"bad_key\"} 51"), "{text}");
        assert!(text.contains("key_faults_total{fault=\"locked_out\"} 1"), "{text}");
    }

    #[test]
    fn the_device_itself_is_never_locked_out_and_slow_mistakes_are_forgiven() {
        let (keys, metrics) = (BadKeys::default(), Metrics::new("0"));
        for caller in
            [from("127.0.0.1"), from("::1"), from("::ffff:127.0.0.9"), Caller::LocalSocket]
        {
            for _ in 0..10 * BAD_KEYS_MAX {
                keys.note(caller, at(1), &metrics);
            }
            assert!(keys.admit(caller, at(1), &metrics).is_ok(), "{caller:?}");
        }
        let slow = from("192.168.1.9");
        for second in 0..10 * u64::from(BAD_KEYS_MAX) {
            keys.note(slow, at(2 * second), &metrics);
        }
        assert!(keys.admit(slow, at(2000), &metrics).is_ok());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_memory_is_bounded() {
        let (keys, metrics) = (BadKeys::default(), Metrics::new("0"));
        for host in 0..=BAD_KEYS_MAX {
            keys.note(from(&format!("2001:db8:1:2::{host:x}")), at(1), &metrics);
        }
        assert!(keys.admit(from("2001:db8:1:2::ffff"), at(2), &metrics).is_err());
        assert!(keys.admit(from("2001:db8:1:3::1"), at(2), &metrics).is_ok());
        for (host, neighbour) in [("fe80::1", "fe80::2"), ("fd00:1::1", "fd00:1::2")] {
            (0..=BAD_KEYS_MAX).for_each(|_| keys.note(from(host), at(1), &metrics));
            assert!(keys.admit(from(host), at(2), &metrics).is_err());
            assert!(keys.admit(from(neighbour), at(2), &metrics).is_ok());
        }
        for host in 0..2 * ADDRESSES_MAX {
            let [_, _, high, low] = u32::try_from(host).unwrap().to_be_bytes();
            keys.note(from(&format!("10.0.{high}.{low}")), at(3), &metrics);
        }
        assert_eq!(keys.0.lock().unwrap().len(), ADDRESSES_MAX);
        // A lock outlives the crowd; what is old makes room.
        assert!(keys.admit(from("2001:db8:1:2::1"), at(4), &metrics).is_err());
        keys.note(from("10.9.9.9"), at(100), &metrics);
        assert_eq!(keys.0.lock().unwrap().len(), 4);
    }
}
