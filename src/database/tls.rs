//! TLS to PostgreSQL: rustls on aws-lc-rs, verified against the system's certificate authorities and, if given,
//! those of `DB_CA_FILE`.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::settings::SettingsError;

/// Builds the connector. Reads the system's certificate store, which takes milliseconds and memory: called only
/// when a connection that needs TLS is about to be made.
pub(super) fn connector(ca_file: Option<&Path>) -> Result<MakeRustlsConnect, SettingsError> {
    let wrong = |problem: String| SettingsError { variable: "DB_CA_FILE", problem };
    let extra = match ca_file {
        Some(path) => read_authorities(path).map_err(wrong)?,
        None => Vec::new(),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Verifier::new_with_extra_roots(extra, Arc::clone(&provider)).map_err(|error| {
        wrong(format!("and the system's certificate store give no usable authority: {error}"))
    })?;
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(format!("cannot be used, TLS is not available: {error}")))?
        .dangerous() // rustls' word for any verifier passed by value; the platform's verifies fully
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let authorities = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("names {shown}, which cannot be read as PEM: {error}"))?;
    if authorities.is_empty() {
        return Err(format!("names {shown}, which holds no certificate"));
    }
    Ok(authorities)
}
