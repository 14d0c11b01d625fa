//! What somebody needs to make a fresh device theirs: where it answers, how to know that it is the
//! right one, and the first admin key.
//!
//! The key is made once, by the first start or by `facelatch init`, and the store keeps its hash
//! alone. A device without a screen has to hand it over somehow: `<store.dir>/claim.txt`, mode 0600,
//! holds it until it is revoked. The journal never does, because it is kept, copied and sent on.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Write as _;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use tempfile::NamedTempFile;
use tracing::info;
use tracing::warn;
use zeroize::Zeroizing;

use crate::bus::wire::DeviceId;
use crate::config::Config;
use crate::daemon::assembly::machine_id;
use crate::roster::Roster;
use crate::roster::keys;
use crate::roster::keys::KEY_PREFIX;
use crate::store::KeyRecord;
use crate::store::Scope;
use crate::telemetry::logging;
use crate::web::server::Server;

/// Name of the claim file in the store's directory.
pub const CLAIM_FILE_NAME: &str = "claim.txt";
/// Most bytes of a claim file that are read; ours has about two thousand.
const CLAIM_BYTES_MAX: u64 = 64 << 10;

/// The facts of a device that its new owner needs.
#[derive(Clone, Debug)]
pub struct Claim {
    store_dir: PathBuf,
    name: String,
    device: DeviceId,
    urls: Vec<String>,
    fingerprint: Option<String>,
    topics: Option<String>,
}

/// A first key that was just made.
pub struct FirstKey {
    /// What the store keeps of it.
    pub record: KeyRecord,
    /// The key itself.
    pub key: Zeroizing<String>,
    /// The claim file, or why there is none.
    pub file: io::Result<PathBuf>,
}

impl Claim {
    /// Gathers the facts. `address` is what the server listens on, `fingerprint` its certificate's.
    pub fn of(
        config: &Config,
        address: SocketAddr,
        fingerprint: Option<String>,
    ) -> anyhow::Result<Self> {
        let device = DeviceId::from_machine_id(&machine_id(&config.store.dir)?);
        let names = host_names(&host(), &device, config.device.announce);
        let scheme = if config.http.tls { "https" } else { "http" };
        Ok(Self {
            store_dir: config.store.dir.clone(),
            name: config.device.name.clone(),
            urls: urls(scheme, address, &names, &interfaces()),
            fingerprint,
            topics: config.mqtt.as_ref().map(|mqtt| format!("{}/{}", mqtt.base, device.as_str())),
            device,
        })
    }

    /// Makes the first admin key and writes the claim file, unless some key may administer already.
    pub fn make_first_key(&self, roster: &Roster) -> anyhow::Result<Option<FirstKey>> {
        if has_admin_key(roster) {
            return Ok(None);
        }
        // Before the key: a directory that takes no file must not cost the only copy of it.
        let place = || claim_file(&self.store_dir).display().to_string();
        let file = NamedTempFile::new_in(&self.store_dir).with_context(place)?;
        let Some((record, key)) = roster.ensure_admin_key()? else { return Ok(None) };
        let key = Zeroizing::new(key);
        let written = self.write(file, &self.text(Some((&record.id, &key))));
        Ok(Some(FirstKey { record, key, file: written }))
    }

    fn write(&self, mut file: NamedTempFile, text: &str) -> io::Result<PathBuf> {
        let path = claim_file(&self.store_dir);
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        // A temporary file has mode 0600 from its first moment.
        file.persist(&path).map_err(|error| error.error)?;
        File::open(&self.store_dir)?.sync_all()?;
        Ok(path)
    }

    /// What people read; with the id and the text of the first key where that was just made.
    pub fn text(&self, first: Option<(&str, &str)>) -> Zeroizing<String> {
        let fingerprint = match &self.fingerprint {
            Some(fingerprint) => format!("SHA-256 {fingerprint}"),
            None => "none: plain HTTP".to_string(),
        };
        let topics = match &self.topics {
            Some(topics) => format!("{topics}/…"),
            None => {
                format!("none until mqtt.url is set; then <mqtt.base>/{}/…", self.device.as_str())
            }
        };
        let facts = format!(
            "{}: a facelatch device\n\n\
             Device id      {}\n\
             Open           {}\n\
             Certificate    {fingerprint}\n\
             MQTT topics    {topics}\n",
            self.name,
            self.device.as_str(),
            self.urls.join("\n               "),
        );
        let key =
            first.map(|(id, key)| format!("Admin API key\n\n    {key}\n\n{}", next_steps(id)));
        Zeroizing::new(facts + &key.unwrap_or_default())
    }
}

fn next_steps(id: &str) -> String {
    format!(
        "What to do next\n\
         1. Open an address. No browser knows the certificate: compare its fingerprint with the one\n   \
            above before you trust it. Programs send the key in the header X-API-Key.\n\
         2. Make a key of your own:     facelatch key add --name owner --scope admin\n\
         3. Revoke this one:            facelatch key revoke {id}\n   \
            This file goes with it.\n\
         4. See what is still missing:  facelatch doctor\n"
    )
}

/// At a start: makes the first key if there is none, says where it is found, and removes a claim
/// file whose key has been revoked.
///
/// The key is shown on standard error unless that is the journal, and is in no log record.
pub fn hand_over(config: &Config, server: &Server, roster: &Roster) -> anyhow::Result<()> {
    forget_revoked(&config.store.dir, roster);
    if has_admin_key(roster) {
        return Ok(());
    }
    let fingerprint = server.tls().map(|tls| tls.fingerprint.clone());
    let claim = Claim::of(config, server.local_addr(), fingerprint)?;
    let Some(first) = claim.make_first_key(roster)? else { return Ok(()) };
    info!(key_id = first.record.id, "admin_key_made");
    match &first.file {
        Ok(path) => info!(path = %path.display(), "claim_file_written"),
        Err(error) => {
            let remedy = "make another key: facelatch key add --name owner --scope admin";
            warn!(%error, remedy, "claim_file_failed");
        }
    }
    if !logging::is_journal(io::stderr()) {
        show(&first);
    }
    Ok(())
}

fn has_admin_key(roster: &Roster) -> bool {
    roster.keys().iter().any(|record| record.scopes.contains(&Scope::Admin))
}

fn show(first: &FirstKey) {
    let kept = match &first.file {
        Ok(path) => format!("kept in {} until it is revoked", path.display()),
        Err(_) => "shown this once".to_string(),
    };
    let _ = writeln!(
        io::stderr(),
        "\nAdmin API key, {kept}:\n\n    {}\n\n\
         Make keys for your clients with `facelatch key add`, and revoke this one with \
         `facelatch key revoke {}`.\n",
        first.key.as_str(),
        first.record.id
    );
}

/// Where the claim file of a store lies.
pub fn claim_file(store_dir: &Path) -> PathBuf {
    store_dir.join(CLAIM_FILE_NAME)
}

/// The id of the key that the claim file holds; `None` without file or key, and for whoever may not
/// read it.
pub fn waiting_key_id(store_dir: &Path) -> Option<String> {
    waiting_key(store_dir).map(|key| keys::public_id(&keys::hash(&key)))
}

/// Removes the claim file if its key opens nothing any more.
pub fn forget_revoked(store_dir: &Path, roster: &Roster) {
    if waiting_key(store_dir).is_some_and(|key| roster.authenticate(&key).is_none()) {
        remove(store_dir);
    }
}

/// Removes the claim file if it holds the key with this id, which has just been revoked.
pub fn forget_key(store_dir: &Path, id: &str) {
    if waiting_key_id(store_dir).as_deref() == Some(id) {
        remove(store_dir);
    }
}

fn remove(store_dir: &Path) {
    let path = claim_file(store_dir);
    match fs::remove_file(&path) {
        Ok(()) => info!(path = %path.display(), "claim_file_removed"),
        // Somebody else was faster.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let remedy = "remove it by hand; its key is revoked and opens nothing";
            warn!(path = %path.display(), %error, remedy, "claim_file_not_removed");
        }
    }
}

fn waiting_key(store_dir: &Path) -> Option<Zeroizing<String>> {
    let path = claim_file(store_dir);
    let length = fs::metadata(&path).ok()?.len();
    if length > CLAIM_BYTES_MAX {
        return None;
    }
    let text = Zeroizing::new(fs::read_to_string(&path).ok()?);
    let key = text.split_whitespace().find(|word| word.starts_with(KEY_PREFIX))?;
    Some(Zeroizing::new(key.to_string()))
}

/// The first label of this machine's name; empty when it has none that others could use.
fn host() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy().to_ascii_lowercase();
    let label = name.split('.').next().unwrap_or_default().to_string();
    let usable = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if usable && label != "localhost" { label } else { String::new() }
}

/// The names that multicast DNS answers: the machine's, where its system sees to that, and the one
/// that the daemon itself announces.
fn host_names(host: &str, device: &DeviceId, announced: bool) -> Vec<String> {
    let own = announced.then(|| announced_host(device));
    let system = (!host.is_empty()).then(|| host.to_string());
    system.into_iter().chain(own).map(|label| format!("{label}.local")).collect()
}

/// The label of the host name that the daemon announces: no other device has it, and the name that
/// the system announces stays the system's.
pub fn announced_host(device: &DeviceId) -> String {
    format!("facelatch-{}", device.as_str())
}

/// Addresses of this machine that others may reach. A link-local IPv6 address needs the name of the
/// caller's own interface, which nobody here knows.
fn interfaces() -> Vec<IpAddr> {
    let is_link_local = |address: &IpAddr| match address {
        IpAddr::V6(address) => address.is_unicast_link_local(),
        IpAddr::V4(_) => false,
    };
    let mut found: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .filter(|interface| !interface.is_loopback())
        .map(|interface| interface.ip())
        .filter(|address| !is_link_local(address))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// What to type: names and addresses that lead to a server listening on `address`.
fn urls(scheme: &str, address: SocketAddr, names: &[String], own: &[IpAddr]) -> Vec<String> {
    let port = address.port();
    if !address.ip().is_unspecified() {
        return vec![format!("{scheme}://{address}")];
    }
    let reaches = |ip: &&IpAddr| address.is_ipv6() || ip.is_ipv4();
    let own = own.iter().filter(reaches).map(|ip| SocketAddr::new(*ip, port).to_string());
    let names = names.iter().map(|name| format!("{name}:{port}"));
    let found: Vec<String> = names.chain(own).map(|place| format!("{scheme}://{place}")).collect();
    if found.is_empty() { vec![format!("{scheme}://localhost:{port}")] } else { found }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::gallery::person::EmbeddingModelId;
    use crate::store::memory::MemoryStore;

    fn roster() -> Roster {
        let model = EmbeddingModelId("m".into());
        Roster::open(Arc::new(MemoryStore::new()), Arc::new(SystemClock), model, 1).unwrap()
    }

    fn claim(dir: &Path) -> Claim {
        Claim {
            store_dir: dir.to_path_buf(),
            name: "Side door".into(),
            device: DeviceId::from_machine_id("x"),
            urls: vec!["https://192.0.2.7:8443".into()],
            fingerprint: Some("AA:BB".into()),
            topics: Some("facelatch/2d711642b726".into()),
        }
    }

    #[test]
    fn the_file_is_private_holds_every_fact_and_goes_with_its_key() {
        let (dir, roster) = (tempfile::tempdir().unwrap(), roster());
        let claim = claim(dir.path());
        let first = claim.make_first_key(&roster).unwrap().expect("the first key");
        let path = first.file.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        for fact in ["Side door", "2d711642b726", "https://192.0.2.7:8443", "AA:BB", &first.key] {
            assert!(text.contains(fact), "{fact} is not in: {text}");
        }
        assert_eq!(waiting_key_id(dir.path()), Some(first.record.id.clone()));
        assert!(claim.make_first_key(&roster).unwrap().is_none(), "only once");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no file is left over");

        roster.add_key("owner", &[Scope::Admin]).unwrap();
        forget_revoked(dir.path(), &roster);
        forget_key(dir.path(), "00000000");
        assert!(path.exists(), "its key still opens");
        roster.revoke_key(&first.record.id).unwrap();
        forget_revoked(dir.path(), &roster);
        assert!(!path.exists());
        forget_revoked(dir.path(), &roster);
    }

    #[test]
    fn a_directory_that_takes_no_file_costs_no_key() {
        let (dir, roster) = (tempfile::tempdir().unwrap(), roster());
        let refused = claim(&dir.path().join("absent")).make_first_key(&roster).err().unwrap();
        assert!(format!("{refused:#}").contains("claim.txt"), "{refused:#}");
        assert!(!has_admin_key(&roster));
    }

    #[test]
    fn other_files_of_that_name_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(waiting_key_id(dir.path()), None);
        for text in [&b"notes"[..], b"", b"\xff\xfe", &vec![b'x'; CLAIM_BYTES_MAX as usize + 1]] {
            fs::write(claim_file(dir.path()), text).unwrap();
            assert_eq!(waiting_key_id(dir.path()), None);
            forget_revoked(dir.path(), &roster());
            assert!(claim_file(dir.path()).exists());
        }
    }

    #[test]
    fn addresses_are_those_that_lead_to_the_server() {
        let names = ["door.local".to_string()];
        let own: Vec<IpAddr> = vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        let cases = [
            ("0.0.0.0:8443", vec!["https://door.local:8443", "https://192.0.2.7:8443"]),
            (
                "[::]:443",
                vec![
                    "https://door.local:443",
                    "https://192.0.2.7:443",
                    "https://[2001:db8::7]:443",
                ],
            ),
            ("127.0.0.1:1", vec!["https://127.0.0.1:1"]),
            ("192.0.2.9:1", vec!["https://192.0.2.9:1"]),
        ];
        for (listen, expected) in cases {
            assert_eq!(urls("https", listen.parse().unwrap(), &names, &own), expected, "{listen}");
        }
        let alone = urls("http", "0.0.0.0:80".parse().unwrap(), &[], &[]);
        assert_eq!(alone, ["http://localhost:80"]);
    }

    #[test]
    fn names_are_the_machines_and_the_announced_one() {
        let device = DeviceId::from_machine_id("x");
        let own = "facelatch-2d711642b726.local";
        assert_eq!(host_names("door", &device, true), ["door.local", own]);
        assert_eq!(host_names("door", &device, false), ["door.local"]);
        assert_eq!(host_names("", &device, true), [own]);
    }
}
