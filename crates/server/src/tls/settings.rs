//! Certificate and key, read at start and again whenever the operator says so. What is wrong with them is said in one line.

use rustls::RootCertStore;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// The one protocol that is spoken here (RFC 7301).
const ALPN_HTTP_1_1: &[u8] = b"http/1.1";

/// Bytes of a client's part of a handshake: its first message, with what it knows from before, is 2 KiB or 4, and the rest is small. rustls
/// alone would join messages of 64 KiB each, and who never sends the last byte of one holds all the others …
const HANDSHAKE_BYTES_MAX: usize = 20 * 1024;
/// … and where it shows a certificate, and those between it and its root.
const CERTIFIED_HANDSHAKE_BYTES_MAX: usize = 64 * 1024;

/// Where certificate and key lie, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, followed by those between it and its root.
    pub certificate: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
    /// Certificates of which one must have signed the certificate that every client then has to show.
    pub client_ca: Option<PathBuf>,
}

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read as PEM, or holds nothing of what it should.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The server's own certificate is not valid at this time.
    #[error("{path}: the certificate is valid from {from} until {until}, not now")]
    NotValidNow {
        /// The file.
        path: PathBuf,
        /// The first moment of its validity.
        from: String,
        /// The last one.
        until: String,
    },
    /// The key is another certificate's.
    #[error("the key in {key} does not belong to the certificate in {certificate}")]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// rustls refuses them for another reason.
    #[error("TLS with the certificate in {certificate} is impossible: {reason}")]
    Refused {
        /// The certificate's file.
        certificate: PathBuf,
        /// What rustls says.
        reason: String,
    },
}

/// What connections through TLS need.
#[derive(Debug)]
pub(crate) struct TlsSettings {
    /// What rustls needs.
    pub(super) config: Arc<ServerConfig>,
    /// Bytes that a client may send until it has agreed on keys.
    pub(super) handshake_bytes_max: usize,
}

/// Reads the files and makes of them what connections need.
pub(crate) fn load(files: &TlsFiles) -> Result<Arc<TlsSettings>, TlsError> {
    let certificates = read_certificates(&files.certificate)?;
    check_validity(&files.certificate, &certificates)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unreadable_key(&files.key, &error))?;
    let refused = |reason: String| TlsError::Refused { certificate: files.certificate.clone(), reason };
    let provider = Arc::new(default_provider());
    let certified = CertifiedKey::from_der(certificates, key, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() }
        }
        error => refused(error.to_string()),
    })?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| refused(error.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in read_certificates(path)? {
                roots.add(certificate).map_err(|error| refused(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| refused(error.to_string()))?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ALPN_HTTP_1_1.to_vec()];
    config.ticketer = Ticketer::new().map_err(|error| refused(error.to_string()))?;
    let asks_for_certificates = files.client_ca.is_some();
    let handshake_bytes_max = if asks_for_certificates { CERTIFIED_HANDSHAKE_BYTES_MAX } else { HANDSHAKE_BYTES_MAX };
    Ok(Arc::new(TlsSettings { config: Arc::new(config), handshake_bytes_max }))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(path, "certificate", &error))?;
    if certificates.is_empty() {
        return Err(unreadable(path, "certificate", &pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

fn unreadable_key(path: &Path, error: &pem::Error) -> TlsError {
    // Where nobody is who could be asked for a passphrase. In old files it is a line below the kind (RFC 1421 section 4.6.1.1).
    let is_encrypted = std::fs::read_to_string(path).is_ok_and(|text| text.contains("ENCRYPTED"));
    if is_encrypted {
        let reason =
            "the private key in it is encrypted: write it without a passphrase (openssl pkey -in … -out …)".to_owned();
        return TlsError::File { path: path.to_owned(), reason };
    }
    unreadable(path, "private key", error)
}

fn unreadable(path: &Path, what: &str, error: &pem::Error) -> TlsError {
    let reason = match error {
        pem::Error::Io(error) => format!("it cannot be read: {error}"),
        pem::Error::NoItemsFound => format!("there is no {what} in it"),
        error => format!("it is no {what} in PEM: {error:?}"),
    };
    TlsError::File { path: path.to_owned(), reason }
}

/// Clients would refuse a server's certificate that is not valid now: better said at once, and by name. Of the others that are sent with
/// it they use those that they need: one that has expired beside one that took its place does no harm.
fn check_validity(path: &Path, certificates: &[CertificateDer<'_>]) -> Result<(), TlsError> {
    for (number, certificate) in certificates.iter().enumerate() {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| TlsError::File {
            path: path.to_owned(),
            reason: format!("it is no certificate (X.509): {error}"),
        })?;
        let validity = parsed.validity();
        if !validity.is_valid_at(ASN1Time::now()) {
            let (from, until) = (validity.not_before.to_string(), validity.not_after.to_string());
            if number > 0 {
                let subject = parsed.subject().to_string();
                tracing::warn!(path = %path.display(), subject, from, until, "a certificate of the chain is not valid now");
                continue;
            }
            return Err(TlsError::NotValidNow { path: path.to_owned(), from, until });
        }
    }
    Ok(())
}
