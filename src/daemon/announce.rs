//! Multicast DNS: the device tells the local network that it is there, and finds others.
//!
//! The service is `_facelatch._tcp`. Its name is the device's name; two devices with one name are
//! told apart by a number that the later one adds. Its host is `facelatch-<device id>.local`, which
//! no other device has, so the host name that the system announces stays the system's.
//!
//! Whoever is in the network learns name, id, address, port, version and the certificate's
//! fingerprint, and nothing about people. A fingerprint from here proves nothing by itself: anybody
//! in the network can announce anything. It is there to be compared with the claim file.
//!
//! A thread of its own does it; no part of the daemon waits for it, and it is never the reason for a
//! failed start. Interfaces that come later are found within seconds.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use mdns_sd::DaemonEvent;
use mdns_sd::IfKind;
use mdns_sd::IfPredicate;
use mdns_sd::Metrics;
use mdns_sd::ResolvedService;
use mdns_sd::ServiceDaemon;
use mdns_sd::ServiceEvent;
use mdns_sd::ServiceInfo;
use serde::Serialize;
use tracing::debug;
use tracing::info;
use tracing::warn;

use crate::bus::wire::DeviceId;
use crate::config::Config;
use crate::daemon::assembly::machine_id;
use crate::daemon::claim::announced_host;
use crate::shutdown::StopSignal;
use crate::web::server::Server;

/// The service type, with the domain of multicast DNS.
const SERVICE: &str = "_facelatch._tcp.local.";
/// Most bytes of the service's name: a label of DNS holds 63 (RFC 1035), and a conflict adds up to
/// five characters.
const INSTANCE_BYTES_MAX: usize = 56;
/// How often the thread looks at what the responder reports; a stop wakes it at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A responder that has announced nothing for so long is replaced: its sockets may have been refused
/// while there was no network, and it never opens them again.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Most records of others that a responder may hold. It keeps what anybody in the network sends, up to
/// 9 KB each, without a limit of its own and often past its time; a house has a few hundred.
const CACHED_MAX: i64 = 1000;
/// Most timers that it may hold; a record sets up to three, and they run for as long as its sender
/// wants.
const TIMERS_MAX: i64 = 20_000;
/// A responder is replaced when the records that were counted at each look add up to this: names stay
/// in its memory after their records, up to 255 bytes each, and no figure of it tells how many.
const COUNTED_MAX: i64 = 200_000;
/// Longest wait for a responder's figures; without them the next look asks again.
const FIGURES_TIME_MAX: Duration = Duration::from_millis(500);
/// Longest wait for a responder's goodbye; it is two packets.
const GOODBYE_TIME_MAX: Duration = Duration::from_millis(500);
/// Most devices that a search lists: more than a local network has doors.
const FOUND_MAX: usize = 256;

/// Why a responder is no longer used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The daemon stops.
    Stopped,
    /// It has ended, has announced nothing, or has heard enough.
    Replaced,
    /// The network has sent more than it may keep.
    Flooded,
}

/// What a responder keeps of what others sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    cached: i64,
    timers: i64,
}

impl Load {
    fn of(figures: &Metrics) -> Self {
        let cached = figures.iter().filter(|(name, _)| name.starts_with("cached-"));
        let timers = figures.get("timer").copied().unwrap_or_default();
        Self { cached: cached.map(|(_, count)| *count).sum(), timers }
    }

    /// Asks a responder; `None` when it is too busy to answer.
    fn now(responder: &ServiceDaemon) -> Option<Self> {
        let answer = responder.get_metrics().ok()?;
        answer.recv_timeout(FIGURES_TIME_MAX).ok().map(|figures| Self::of(&figures))
    }

    fn is_too_much(self) -> bool {
        self.cached > CACHED_MAX || self.timers > TIMERS_MAX
    }
}

/// What is announced.
#[derive(Clone, Debug)]
pub struct Announcement {
    name: String,
    device: DeviceId,
    address: SocketAddr,
    fingerprint: Option<String>,
}

/// Starts the announcements of a server that listens; `None` where there are to be none: switched
/// off, or a server that only this machine reaches. A failure is told and is no reason not to start.
pub fn start(config: &Config, server: &Server, stop: &StopSignal) -> Option<JoinHandle<()>> {
    let address = server.local_addr();
    if !config.device.announce || address.ip().is_loopback() {
        return None;
    }
    let fingerprint = server.tls().map(|tls| tls.fingerprint.clone());
    let (name, stop) = (config.device.name.clone(), stop.clone());
    let started = machine_id(&config.store.dir).and_then(|machine| {
        let device = DeviceId::from_machine_id(&machine);
        let announcement = Announcement { name, device, address, fingerprint };
        let run = move || announcement.run(&stop);
        Ok(thread::Builder::new().name("announce".into()).spawn(run)?)
    });
    started.inspect_err(|error| warn!(%error, "announcements_fail")).ok()
}

impl Announcement {
    fn run(&self, stop: &StopSignal) {
        let (mut complained, mut flooded) = (false, false);
        while !stop.stopped() {
            match self.serve(stop, flooded) {
                Ok(End::Flooded) => {
                    if !flooded {
                        warn!(records = CACHED_MAX, "the_network_announces_too_much");
                    }
                    flooded = true;
                }
                Ok(_) => {}
                Err(error) => {
                    if !complained {
                        warn!(%error, "announcements_fail");
                    }
                    complained = true;
                }
            }
            stop.sleep(LOOK_EVERY);
        }
    }

    /// Announces until the stop, or until the responder is to be replaced.
    fn serve(&self, stop: &StopSignal, is_quiet: bool) -> mdns_sd::Result<End> {
        let responder = ServiceDaemon::new()?;
        let events = responder.monitor()?;
        responder.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
        let service = self.service()?;
        let name = service.get_fullname().to_string();
        responder.register(service)?;
        let begun = Instant::now();
        let (mut announced, mut renamed) = (false, String::new());
        let (mut end, mut counted) = (End::Stopped, 0);
        while !stop.sleep(LOOK_EVERY) {
            for event in events.try_iter() {
                match event {
                    DaemonEvent::Announce(..) if !announced => {
                        announced = true;
                        // In a flood it begins anew every few seconds, which is no news.
                        if is_quiet {
                            debug!(name = self.name, "announced");
                        } else {
                            info!(name = self.name, "announced");
                        }
                    }
                    // Each record of a name reports it.
                    DaemonEvent::NameChange(change) if change.new_name != renamed => {
                        renamed = change.new_name;
                        info!(wanted = change.original, name = renamed, "announced_as");
                    }
                    _ => {}
                }
            }
            let load = Load::now(&responder).unwrap_or_default();
            counted += load.cached;
            let is_silent = !announced && begun.elapsed() > SILENCE_MAX;
            if load.is_too_much() {
                end = End::Flooded;
            } else if events.is_disconnected() || is_silent || counted > COUNTED_MAX {
                end = End::Replaced;
            }
            if end != End::Stopped {
                break;
            }
        }
        say_goodbye(&responder, &name);
        Ok(end)
    }

    fn service(&self) -> mdns_sd::Result<ServiceInfo> {
        let ip = self.address.ip();
        // Asking for all addresses of a machine on IPv4 answers on IPv4 alone.
        let everywhere = ip.is_unspecified();
        let own = if everywhere { String::new() } else { ip.to_string() };
        let service = ServiceInfo::new(
            SERVICE,
            instance(&self.name),
            &format!("{}.local.", announced_host(&self.device)),
            own,
            self.address.port(),
            &self.facts()[..],
        )?;
        let mut service = if everywhere { service.enable_addr_auto() } else { service };
        let ipv6 = ip.is_ipv6();
        let reaches = IfPredicate::new(move |interface| {
            !interface.is_loopback() && (ipv6 || interface.ip().is_ipv4())
        });
        service.set_interfaces(vec![IfKind::Predicate(reaches)]);
        Ok(service)
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![
            ("id", self.device.as_str().to_string()),
            ("name", self.name.clone()),
            ("path", "/".to_string()),
            ("tls", u8::from(self.fingerprint.is_some()).to_string()),
            ("version", env!("CARGO_PKG_VERSION").to_string()),
        ];
        facts.extend(self.fingerprint.clone().map(|own| ("fingerprint", own)));
        facts
    }
}

/// Tells the network that the service is gone, so that nobody lists it for two more minutes.
fn say_goodbye(responder: &ServiceDaemon, name: &str) {
    if let Ok(done) = responder.unregister(name) {
        let _ = done.recv_timeout(GOODBYE_TIME_MAX);
    }
    if let Ok(done) = responder.shutdown() {
        let _ = done.recv_timeout(GOODBYE_TIME_MAX);
    }
}

/// As much of the name as a label holds.
fn instance(name: &str) -> &str {
    let mut end = name.len().min(INSTANCE_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// A device that answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Its id, as in MQTT topics.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Host name in the local network.
    pub host: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its port.
    pub port: u16,
    /// Where to look.
    pub url: String,
    /// SHA-256 of its certificate, as it says itself; `None` without TLS.
    pub fingerprint: Option<String>,
    /// Its version.
    pub version: String,
}

/// Listens for so long and answers who is there, by name.
pub fn search(time: Duration) -> io::Result<Vec<Found>> {
    let failed = |error: mdns_sd::Error| io::Error::other(error.to_string());
    let querier = ServiceDaemon::new().map_err(failed)?;
    let events = querier.browse(SERVICE).map_err(failed)?;
    let deadline = Instant::now() + time;
    let mut found = BTreeMap::new();
    while let Ok(event) = events.recv_deadline(deadline) {
        match event {
            ServiceEvent::ServiceResolved(service) if found.len() < FOUND_MAX => {
                found.insert(service.get_fullname().to_string(), seen(&service));
            }
            ServiceEvent::ServiceRemoved(_, name) => drop(found.remove(&name)),
            _ => {}
        }
    }
    if let Ok(done) = querier.shutdown() {
        let _ = done.recv_timeout(GOODBYE_TIME_MAX);
    }
    let mut found: Vec<Found> = found.into_values().collect();
    found.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(found)
}

fn seen(service: &ResolvedService) -> Found {
    let fact = |key: &str| plain(service.get_property_val_str(key).unwrap_or_default());
    let mut addresses: Vec<IpAddr> =
        service.get_addresses().iter().map(mdns_sd::ScopedIp::to_ip_addr).collect();
    addresses.sort_unstable();
    let (host, port) = (plain(service.get_hostname().trim_end_matches('.')), service.get_port());
    let scheme = if fact("tls") == "1" { "https" } else { "http" };
    // Names need a resolver for multicast DNS, which not every client has.
    let place = addresses
        .first()
        .map_or_else(|| format!("{host}:{port}"), |ip| SocketAddr::new(*ip, port).to_string());
    Found {
        id: fact("id"),
        name: fact("name"),
        url: format!("{scheme}://{place}/"),
        host,
        addresses,
        port,
        fingerprint: Some(fact("fingerprint")).filter(|text| !text.is_empty()),
        version: fact("version"),
    }
}

/// Anybody in the network may have sent it: nothing in it may steer a terminal.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement(name: &str, address: &str) -> Announcement {
        Announcement {
            name: name.into(),
            device: DeviceId::from_machine_id("x"),
            address: address.parse().unwrap(),
            fingerprint: Some("AA:".repeat(31) + "AA"),
        }
    }

    #[test]
    fn what_is_announced_is_what_the_guide_says_and_nothing_else() {
        let service = announcement("Side door", "0.0.0.0:8443").service().unwrap();
        assert_eq!(service.get_fullname(), "Side door._facelatch._tcp.local.");
        assert_eq!(service.get_hostname(), "facelatch-2d711642b726.local.");
        assert!(service.is_addr_auto());
        let seen = service.as_resolved_service();
        let keys: Vec<&str> = seen.get_properties().iter().map(mdns_sd::TxtProperty::key).collect();
        assert_eq!(keys, ["id", "name", "path", "tls", "version", "fingerprint"]);
        let found = super::seen(&seen);
        assert_eq!((found.id.as_str(), found.name.as_str()), ("2d711642b726", "Side door"));
        assert_eq!((found.port, found.fingerprint.unwrap().len()), (8443, 95));
    }

    #[test]
    fn what_others_send_is_counted_and_too_much_is_noticed() {
        // The library's own names, as it answers them before anything has come.
        let responder = ServiceDaemon::new().unwrap();
        let mut figures = responder.get_metrics().unwrap().recv().unwrap();
        let _ = responder.shutdown();
        for kind in ["ptr", "srv", "addr", "txt", "nsec", "subtype"] {
            assert!(figures.contains_key(&format!("cached-{kind}")), "{figures:?}");
        }
        assert!(figures.contains_key("timer") && !Load::of(&figures).is_too_much(), "{figures:?}");
        for kind in ["cached-srv", "cached-txt", "cached-addr", "cached-nsec"] {
            figures.insert(kind.into(), CACHED_MAX / 4);
        }
        let before = Load::of(&figures).cached;
        figures.insert("cached-txt".into(), CACHED_MAX);
        assert!(Load::of(&figures).cached > before && Load::of(&figures).is_too_much());
        let timers = Metrics::from([("timer".into(), TIMERS_MAX + 1)]);
        assert!(Load::of(&timers).is_too_much());
        assert!(!Load::of(&Metrics::new()).is_too_much());
    }

    #[test]
    fn any_name_that_a_device_may_have_fits() {
        for name in ["ü".repeat(50), "x".repeat(100), "a.b\\c".into(), "\u{1F6AA}".repeat(25)] {
            let service = announcement(&name, "192.0.2.7:1").service().unwrap();
            let label = instance(&name);
            assert!(label.len() <= INSTANCE_BYTES_MAX && name.starts_with(label));
            assert!(!service.is_addr_auto(), "only the address that is listened on");
            let seen = super::seen(&service.as_resolved_service());
            assert_eq!((seen.name, seen.url.as_str()), (name, "https://192.0.2.7:1/"));
        }
    }

    #[test]
    fn what_the_network_says_steers_no_terminal() {
        assert_eq!(plain("\u{1b}[31mDoor\u{7}\n\u{9b}2J"), "[31mDoor2J");
    }
}
