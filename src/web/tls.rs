//! TLS for the HTTP service: the certificate of the first start, or the administrator's own.
//!
//! Without configuration a self-signed certificate is made once, in `<store>/tls`: `cert.pem` and
//! `key.pem`. The directory appears by one rename, so a power cut leaves a whole pair or none, and
//! an existing pair is never replaced: clients may have pinned it. Clients that cannot verify a
//! name compare the fingerprint, which the log shows at every start.
//!
//! TLS 1.2 and 1.3, HTTP/1.1 only, the `ring` provider.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::clock::UtcTime;

/// Years that the certificate of the first start is valid. Nobody renews it, so it outlives the
/// hardware.
const SELF_SIGNED_YEARS: i32 = 10;

/// The certificate is valid from this year on, because a board without a battery-backed clock may
/// believe in any later year at its first start.
const SELF_SIGNED_FROM_YEAR: i32 = 2020;

/// The current year is taken to be at least this one, for the same reason.
const PRESENT_YEAR_MIN: i32 = 2026;

/// Largest certificate or key file in bytes.
const PEM_BYTES_MAX: u64 = 256 * 1024;

/// What the server needs to speak TLS.
#[derive(Clone)]
pub struct TlsIdentity {
    /// For the acceptor.
    pub config: Arc<ServerConfig>,
    /// SHA-256 of the server's certificate, upper-case hex in pairs with colons, as browsers and
    /// `openssl x509 -fingerprint -sha256` show it.
    pub fingerprint: String,
    /// The file with the certificate, for clients that want to trust it.
    pub certificate_file: PathBuf,
}

/// Why the server cannot speak TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("the TLS file {file} cannot be read: {reason}. {remedy}")]
    Read {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A file holds something else.
    #[error("the TLS file {file} cannot be used: {reason}. {remedy}")]
    Content {
        /// The file.
        file: PathBuf,
        /// What does not fit.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// One file of the pair made at the first start is gone.
    #[error(
        "{missing} is missing while {present} exists. Restore it from a backup, or remove \
         {present} as well to have a new certificate made (clients must then trust the new one)"
    )]
    HalfPair {
        /// The file that is gone.
        missing: PathBuf,
        /// The file that is there.
        present: PathBuf,
    },
    /// The pair of the first start cannot be made or stored.
    #[error("the TLS certificate cannot be made in {dir}: {reason}")]
    Create {
        /// Where it goes.
        dir: PathBuf,
        /// What failed.
        reason: String,
    },
}

/// Loads the configured pair, or the one in `<store_dir>/tls`, which is made when there is none.
///
/// `listen` and `now` only matter for a certificate that is made.
pub fn load(
    configured: Option<&(PathBuf, PathBuf)>,
    store_dir: &Path,
    listen: SocketAddr,
    now: UtcTime,
) -> Result<TlsIdentity, TlsError> {
    if let Some((certificate, key)) = configured {
        return read_pair(certificate, key, CONFIGURED_REMEDY);
    }
    let dir = store_dir.join("tls");
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    match (exists(&certificate)?, exists(&key)?) {
        (true, true) => {}
        (false, false) => create_pair(&dir, &names_of_this_machine(), &addresses(listen), now)?,
        (true, false) => return Err(TlsError::HalfPair { missing: key, present: certificate }),
        (false, true) => return Err(TlsError::HalfPair { missing: certificate, present: key }),
    }
    read_pair(&certificate, &key, SELF_SIGNED_REMEDY)
}

const CONFIGURED_REMEDY: &str = "Correct `http.certificate_file` and `http.private_key_file`, and let \
                                 the user that runs facelatch read both files";

const SELF_SIGNED_REMEDY: &str = "Restore `tls/cert.pem` and `tls/key.pem` from a backup, or \
                                  remove both to have a new certificate made";

/// Whether something is there; only a clear "no such file" counts as absent.
fn exists(file: &Path) -> Result<bool, TlsError> {
    file.try_exists().map_err(|error| TlsError::Read {
        file: file.to_path_buf(),
        reason: error.to_string(),
        remedy: SELF_SIGNED_REMEDY,
    })
}

fn read_pair(
    certificate_file: &Path,
    key_file: &Path,
    remedy: &'static str,
) -> Result<TlsIdentity, TlsError> {
    let refuse = |file: &Path, reason: String| TlsError::Content {
        file: file.to_path_buf(),
        reason,
        remedy,
    };
    let chain = CertificateDer::pem_slice_iter(&read_bounded(certificate_file, remedy)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refuse(certificate_file, error.to_string()))?;
    let Some(own) = chain.first() else {
        return Err(refuse(certificate_file, "it holds no PEM certificate".into()));
    };
    let fingerprint = fingerprint(own);
    let key = PrivateKeyDer::from_pem_slice(&read_bounded(key_file, remedy)?)
        .map_err(|error| refuse(key_file, format!("no usable PEM private key: {error}")))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| {
            let other = certificate_file.display();
            refuse(key_file, format!("it does not work together with {other}: {error}"))
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsIdentity {
        config: Arc::new(config),
        fingerprint,
        certificate_file: certificate_file.to_path_buf(),
    })
}

fn read_bounded(file: &Path, remedy: &'static str) -> Result<Vec<u8>, TlsError> {
    let unreadable = |reason: String| TlsError::Read { file: file.to_path_buf(), reason, remedy };
    let length = fs::metadata(file).map_err(|error| unreadable(error.to_string()))?.len();
    if length > PEM_BYTES_MAX {
        return Err(unreadable(format!("{length} bytes, more than {PEM_BYTES_MAX}")));
    }
    fs::read(file).map_err(|error| unreadable(error.to_string()))
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = Sha256::digest(certificate.as_ref());
    digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

fn create_pair(
    dir: &Path,
    names: &[String],
    addresses: &[IpAddr],
    now: UtcTime,
) -> Result<(), TlsError> {
    let failed = |reason: String| TlsError::Create { dir: dir.to_path_buf(), reason };
    let (certificate, key) =
        self_signed(names, addresses, now).map_err(|error| failed(error.to_string()))?;
    store_pair(dir, &certificate, &key).map_err(|error| failed(error.to_string()))
}

fn self_signed(
    names: &[String],
    addresses: &[IpAddr],
    now: UtcTime,
) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // X.509 allows a common name of at most 64 characters.
    let common_name: String =
        names.first().map_or("facelatch", |name| name).chars().take(64).collect();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, "facelatch");
    for name in names {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
    let year = year(now).max(PRESENT_YEAR_MIN);
    params.not_before = date_time_ymd(SELF_SIGNED_FROM_YEAR, 1, 1);
    params.not_after = date_time_ymd(year + SELF_SIGNED_YEARS, 12, 31);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // ECDSA P-256: what every TLS client since 2012 understands.
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Both files become visible by one rename of their directory.
fn store_pair(dir: &Path, certificate: &str, key: &str) -> io::Result<()> {
    let parent = dir.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let unfinished = parent.join("tls.unfinished");
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&unfinished)?;
    write_private(&unfinished.join("key.pem"), key)?;
    write_private(&unfinished.join("cert.pem"), certificate)?;
    File::open(&unfinished)?.sync_all()?;
    // Replaces an empty directory and nothing else.
    fs::rename(&unfinished, dir)?;
    File::open(parent)?.sync_all()
}

fn write_private(file: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn year(now: UtcTime) -> i32 {
    jiff::Timestamp::from_millisecond(now.as_millis())
        .map_or(PRESENT_YEAR_MIN, |time| i32::from(time.to_zoned(jiff::tz::TimeZone::UTC).year()))
        // Beyond this a four-digit year no longer holds the end of validity.
        .min(9980)
}

/// `HOST.local`, which multicast DNS answers, first: it is what people type.
fn names_of_this_machine() -> Vec<String> {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().to_ascii_lowercase();
    names(&host)
}

fn names(host: &str) -> Vec<String> {
    let label = host.split('.').next().unwrap_or_default();
    let mut names = vec![format!("{label}.local"), label.to_string(), host.to_string()];
    names.retain(|name| {
        name.split('.').all(is_dns_label) && name.len() <= 253 && name != "localhost.local"
    });
    names.push("localhost".to_string());
    let mut seen = Vec::new();
    names.retain(|name| {
        !seen.contains(name) && {
            seen.push(name.clone());
            true
        }
    });
    names
}

fn is_dns_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Loopback, the address that is listened on, and the address of the default route.
fn addresses(listen: SocketAddr) -> Vec<IpAddr> {
    let mut addresses =
        vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST), listen.ip()];
    // Connecting a datagram socket sends nothing: it only asks the routing table for the source
    // address. The targets are reserved for documentation (RFC 5737, RFC 3849).
    for (own, target) in [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")] {
        let routed = UdpSocket::bind(own).and_then(|socket| {
            socket.connect(target)?;
            socket.local_addr()
        });
        addresses.extend(routed.map(|address| address.ip()));
    }
    addresses.retain(|address| !address.is_unspecified());
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::fs::PermissionsExt as _;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    const NOW: UtcTime = UtcTime::from_millis(1_780_000_000_000);

    fn error_of(result: Result<TlsIdentity, TlsError>) -> String {
        result.err().expect("an error").to_string()
    }

    #[test]
    fn the_first_start_makes_a_private_pair_and_the_next_keeps_it() {
        let store = tempfile::tempdir().unwrap();
        let first = load(None, store.path(), LOOPBACK, NOW).unwrap();
        for name in ["cert.pem", "key.pem"] {
            let mode = fs::metadata(store.path().join("tls").join(name)).unwrap().permissions();
            assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
        }
        let mode = fs::metadata(store.path().join("tls")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(!store.path().join("tls.unfinished").exists());
        let second = load(None, store.path(), LOOPBACK, NOW).unwrap();
        assert_eq!(first.fingerprint, second.fingerprint);
        assert_eq!(first.fingerprint.len(), 32 * 3 - 1);
    }

    #[test]
    fn a_power_cut_while_the_pair_was_made_is_harmless() {
        let store = tempfile::tempdir().unwrap();
        let unfinished = store.path().join("tls.unfinished");
        fs::create_dir(&unfinished).unwrap();
        fs::write(unfinished.join("key.pem"), "half").unwrap();
        fs::create_dir(store.path().join("tls")).unwrap();
        load(None, store.path(), LOOPBACK, NOW).unwrap();
    }

    #[test]
    fn half_a_pair_is_refused_and_left_alone() {
        for (gone, left) in [("cert.pem", "key.pem"), ("key.pem", "cert.pem")] {
            let store = tempfile::tempdir().unwrap();
            load(None, store.path(), LOOPBACK, NOW).unwrap();
            let dir = store.path().join("tls");
            fs::remove_file(dir.join(gone)).unwrap();
            let before = fs::read(dir.join(left)).unwrap();
            let message = error_of(load(None, store.path(), LOOPBACK, NOW));
            assert!(message.contains(gone) && message.contains("remove"), "{message}");
            assert_eq!(fs::read(dir.join(left)).unwrap(), before);
            assert!(!dir.join(gone).exists());
        }
    }

    #[test]
    fn configured_files_are_named_when_they_do_not_work() {
        let store = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        for dir in [&store, &other] {
            load(None, dir.path(), LOOPBACK, NOW).unwrap();
        }
        let certificate = store.path().join("tls/cert.pem");
        let key = store.path().join("tls/key.pem");
        let (absent, nonsense) = (store.path().join("absent.pem"), store.path().join("n.pem"));
        fs::write(&nonsense, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n")
            .unwrap();
        let huge = store.path().join("huge.pem");
        File::create(&huge).unwrap().set_len(PEM_BYTES_MAX + 1).unwrap();
        let cases = [
            ((absent.clone(), key.clone()), "absent.pem cannot be read"),
            ((certificate.clone(), absent), "absent.pem cannot be read"),
            ((nonsense.clone(), key.clone()), "n.pem cannot be used"),
            ((key.clone(), key.clone()), "holds no PEM certificate"),
            ((certificate.clone(), certificate.clone()), "no usable PEM private key"),
            ((certificate.clone(), other.path().join("tls/key.pem")), "does not work together"),
            ((huge, key.clone()), "more than"),
        ];
        for (pair, expected) in cases {
            let message = error_of(load(Some(&pair), store.path(), LOOPBACK, NOW));
            assert!(message.contains(expected), "{message}");
            assert!(message.contains("http.certificate"), "{message}");
        }
        load(Some(&(certificate, key)), other.path(), LOOPBACK, NOW).unwrap();
    }

    #[test]
    fn names_survive_every_host_name() {
        let cases: [(&str, &[&str]); 5] = [
            ("door", &["door.local", "door", "localhost"]),
            ("door.lan", &["door.local", "door", "door.lan", "localhost"]),
            ("localhost", &["localhost"]),
            ("", &["localhost"]),
            ("tür_1", &["localhost"]),
        ];
        for (host, expected) in cases {
            assert_eq!(names(host), expected, "`{host}`");
        }
    }

    #[test]
    fn a_board_without_a_clock_makes_a_certificate_that_is_valid_today() {
        assert_eq!(year(UtcTime::from_millis(0)), 1970);
        assert_eq!(year(NOW), 2026);
        assert_eq!(year(UtcTime::from_millis(i64::MAX)), PRESENT_YEAR_MIN);
        self_signed(&["localhost".into()], &[], UtcTime::from_millis(0)).unwrap();
        self_signed(&["localhost".into()], &[], UtcTime::from_millis(i64::MAX)).unwrap();
    }

    #[test]
    fn addresses_hold_loopback_and_nothing_unspecified() {
        let addresses = addresses("0.0.0.0:8443".parse().unwrap());
        assert!(addresses.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(addresses.iter().all(|address| !address.is_unspecified()));
        let given: IpAddr = "198.51.100.7".parse().unwrap();
        assert!(super::addresses(SocketAddr::new(given, 1)).contains(&given));
    }
}
