//! Kubeconfig files: what `kubectl` needs to reach this server as somebody.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::files::write_private;
use super::pki::{Identity, Pki, PkiError};

/// A kubeconfig with everything embedded, as YAML.
pub fn text(server: &str, cluster: &str, user: &str, ca_pem: &str, identity: &Identity) -> Result<String, PkiError> {
    let context = format!("{user}@{cluster}");
    Ok(serde_yaml::to_string(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(ca_pem),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": STANDARD.encode(&identity.certificate),
            "client-key-data": STANDARD.encode(&identity.key),
        }}],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
    }))?)
}

/// Writes the administrator's kubeconfig, mode 0600, in one step. An existing one keeps its certificate while this
/// authority stands behind it, so a restart does not change the file.
pub fn write_admin(path: &Path, server: &str, cluster: &str, pki: &Pki) -> Result<(), PkiError> {
    let before = std::fs::read_to_string(path).unwrap_or_default();
    let identity = match kept(&before).filter(|identity| pki.keeps(identity)) {
        Some(identity) => identity,
        None => pki.admin_identity()?,
    };
    let after = text(server, cluster, "wherry-admin", pki.ca_pem(), &identity)?;
    if after == before {
        return Ok(());
    }
    write_private(path, after.as_bytes()).map_err(|source| PkiError::Write { path: path.into(), source })
}

/// The identity in a kubeconfig that this module wrote.
fn kept(text: &str) -> Option<Identity> {
    let config: Value = serde_yaml::from_str(text).ok()?;
    let user = config.pointer("/users/0/user")?;
    let field = |name: &str| {
        let decoded = STANDARD.decode(user.get(name)?.as_str()?).ok()?;
        String::from_utf8(decoded).ok()
    };
    Some(Identity { certificate: field("client-certificate-data")?, key: field("client-key-data")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_kubeconfig_follows_the_servers_address_and_keeps_its_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let path = dir.path().join("admin.kubeconfig");
        write_admin(&path, "https://127.0.0.1:6443", "wherry", &pki).unwrap();
        let first = std::fs::read_to_string(&path).unwrap();
        write_admin(&path, "https://127.0.0.1:7443", "wherry", &pki).unwrap();
        let second = std::fs::read_to_string(&path).unwrap();
        assert!(second.contains("https://127.0.0.1:7443"));
        assert_eq!(kept(&first).unwrap(), kept(&second).unwrap());
    }

    #[test]
    fn a_client_reads_the_kubeconfig() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let yaml = text("https://h:1", "c", "u", pki.ca_pem(), &pki.admin_identity().unwrap()).unwrap();
        let config: kube::config::Kubeconfig = serde_yaml::from_str(&yaml).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("u@c"));
    }
}
