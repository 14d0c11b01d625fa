//! Who calls, and whether the endpoint is open to them.
//!
//! Keys come in the header `x-api-key` and are checked before the body is looked at. A caller on
//! the daemon's local socket has passed the file's permissions, which are the administrator's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hyper::HeaderMap;

use crate::config::MetricsAccess;
use crate::roster::Roster;
use crate::roster::audit::LOCAL;
use crate::store::{KeyRecord, Scope};
use crate::web::error::{ApiError, ErrorCode};
use crate::web::path::Access;
use crate::web::server::Caller;

/// The header that carries the key.
pub const KEY_HEADER: &str = "x-api-key";

/// In whose name a request is answered.
#[derive(Clone, Debug)]
pub enum Holder {
    /// Nobody's: the endpoint is open.
    Anyone,
    /// The administrator's, on this machine.
    LocalSocket,
    /// That of a key.
    Key(Arc<KeyRecord>),
}

impl Holder {
    /// Whether everything is allowed.
    pub fn is_admin(&self) -> bool {
        match self {
            Self::Anyone => false,
            Self::LocalSocket => true,
            Self::Key(record) => record.scopes.contains(&Scope::Admin),
        }
    }

    /// How the audit log calls them.
    pub fn name(&self) -> &str {
        match self {
            Self::Anyone => "anyone",
            Self::LocalSocket => LOCAL,
            Self::Key(record) => &record.id,
        }
    }

    /// Whether what was allowed at the beginning still is: the key has not been revoked.
    pub fn is_valid(&self, roster: &Roster) -> bool {
        match self {
            Self::Anyone | Self::LocalSocket => true,
            Self::Key(record) => roster.keys().iter().any(|own| own.id == record.id),
        }
    }
}

/// Checks that `caller` may use an endpoint that demands `access`.
pub fn authorise(
    roster: &Roster,
    headers: &HeaderMap,
    caller: Caller,
    access: Access,
) -> Result<Holder, ApiError> {
    if caller == Caller::LocalSocket {
        return Ok(Holder::LocalSocket);
    }
    let accepted = match access {
        Access::AnyOf(accepted) => Some(accepted),
        Access::LocalSocket => None,
        Access::Open | Access::Metrics => return Ok(Holder::Anyone),
    };
    let presented = headers.get(KEY_HEADER).filter(|value| !value.is_empty());
    let presented = presented.ok_or_else(|| ApiError::new(ErrorCode::ApiKeyNotPresent))?;
    let record = presented.to_str().ok().and_then(|key| roster.authenticate(key));
    let record = record.ok_or_else(|| ApiError::new(ErrorCode::ApiKeyNotValid))?;
    let suffices = |accepted: &[Scope]| {
        let one = |scope: &Scope| *scope == Scope::Admin || accepted.contains(scope);
        record.scopes.iter().any(one)
    };
    match accepted {
        Some(accepted) if suffices(accepted) => Ok(Holder::Key(Arc::new(record))),
        _ => Err(ApiError::new(ErrorCode::Forbidden)),
    }
}

/// What `/metrics` demands of this caller under the configured rule.
pub fn metrics_access(rule: MetricsAccess, caller: Caller) -> Access {
    match (rule, caller) {
        (MetricsAccess::Lan, Caller::Network { address }) if is_local_network(address) => {
            Access::Open
        }
        _ => Access::AnyOf(&[Scope::Events]),
    }
}

/// Loopback, link-local or private; an IPv4 address inside IPv6 counts as the IPv4 address.
fn is_local_network(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_local_v4(address),
        IpAddr::V6(address) => is_local_v6(address),
    }
}

fn is_local_v4(address: Ipv4Addr) -> bool {
    address.is_loopback() || address.is_link_local() || address.is_private()
}

fn is_local_v6(address: Ipv6Addr) -> bool {
    address.is_loopback() || address.is_unicast_link_local() || address.is_unique_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_on_the_local_network_only() {
        let table = [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("192.168.7.7", true),
            ("169.254.1.1", true),
            ("8.8.8.8", false),
            ("::1", true),
            ("fe80::1", true),
            ("fd00::1", true),
            ("2001:db8::1", false),
            ("::ffff:192.168.0.1", true),
            ("::ffff:8.8.8.8", false),
        ];
        for (address, open) in table {
            let caller = Caller::Network { address: address.parse().unwrap() };
            let access = metrics_access(MetricsAccess::Lan, caller);
            assert_eq!(access == Access::Open, open, "{address}");
            let access = metrics_access(MetricsAccess::Key, caller);
            assert_eq!(access, Access::AnyOf(&[Scope::Events]), "{address}");
        }
    }
}
