//! Debian's `docker-registry` as a child process, and images made by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::http;
use super::run::{eventually, run};

pub const USER: &str = "skipper";
pub const PASSWORD: &str = "p4ss:word";

/// A running registry.
pub struct Registry {
    folder: tempfile::TempDir,
    child: Child,
    pub host: String,
    auth: bool,
}

impl Registry {
    /// With `auth`, only [`USER`] with [`PASSWORD`] gets in.
    pub fn start(auth: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut access = String::new();
        if auth {
            let line = run(Command::new("htpasswd").args(["-Bbn", USER, PASSWORD]), "").ok();
            fs::write(folder.path().join("htpasswd"), line).unwrap();
            access = format!("auth: {{htpasswd: {{realm: harbour, path: {}/htpasswd}}}}\n", folder.path().display());
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let root = folder.path().join("storage");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{host}'}}\n{access}",
            root.display()
        );
        let path = folder.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let registry = Self { folder, child, host, auth };
        eventually("the registry answers", || http::get(&format!("http://{}/v2/", registry.host)).map(drop));
        registry
    }

    /// A folder for `$DOCKER_CONFIG` with these credentials for this registry.
    pub fn docker_config(&self, password: &str) -> PathBuf {
        let folder = self.folder.path().join(format!("docker-{}", password.len()));
        fs::create_dir_all(&folder).unwrap();
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
        let config = json!({"auths": {&self.host: {"auth": auth}}});
        fs::write(folder.join("config.json"), config.to_string()).unwrap();
        folder
    }

    /// Pushes an image made of a config and layers, each a media type and bytes, as they are.
    pub fn put(&self, repository: &str, config: (&str, &[u8]), layers: &[(&str, &[u8])]) -> String {
        assert!(!self.auth, "by hand only where nobody asks for a password");
        let blobs: Vec<Value> =
            std::iter::once(&config).chain(layers).map(|(kind, bytes)| self.blob(repository, kind, bytes)).collect();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": blobs[0], "layers": &blobs[1..]});
        let url = format!("http://{}/v2/{repository}/manifests/1", self.host);
        let answer = http::send("PUT", &url, &[("content-type", kind)], manifest.to_string().into()).unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text());
        format!("{}/{repository}:1", self.host)
    }

    fn blob(&self, repository: &str, kind: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        let begun = http::post(&format!("http://{}/v2/{repository}/blobs/uploads/", self.host), "").unwrap();
        let place = begun.headers.get("location").unwrap().to_str().unwrap();
        let place = if place.starts_with('/') { format!("http://{}{place}", self.host) } else { place.to_owned() };
        let url = format!("{place}{}digest={digest}", if place.contains('?') { '&' } else { '?' });
        let kind_of_body = [("content-type", "application/octet-stream")];
        let answer = http::send("PUT", &url, &kind_of_body, Bytes::copy_from_slice(bytes)).unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text());
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    }

    /// Changes one byte in the middle of a stored blob.
    pub fn corrupt(&self, digest: &str) {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blobs = self.folder.path().join("storage/docker/registry/v2/blobs/sha256");
        let path = blobs.join(&hex[..2]).join(hex).join("data");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(&path, bytes).unwrap();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("--- the registry said:\n{log}---");
        }
    }
}

pub fn digest(bytes: &[u8]) -> String {
    let hex = Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    format!("sha256:{hex}")
}

/// An OCI layout in `folder` with one image: these files in one layer, for this platform, with this entrypoint.
pub fn layout(folder: &Path, platform: (&str, &str), entrypoint: &[&str], files: &[(&str, &[u8])]) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let store = |kind: &str, bytes: &[u8]| {
        let digest = digest(bytes);
        fs::write(blobs.join(digest.strip_prefix("sha256:").unwrap()), bytes).unwrap();
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    };
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *bytes).unwrap();
    }
    let layer = archive.into_inner().unwrap();
    let config = json!({
        "os": platform.0, "architecture": platform.1, "config": {"Entrypoint": entrypoint, "Env": ["FROM_IMAGE=yes"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    let config = store("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let layer = store("application/vnd.oci.image.layer.v1.tar", &layer);
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [layer]});
    let manifest = store("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    let mut entry = manifest;
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    fs::write(folder.join("index.json"), json!({"schemaVersion": 2, "manifests": [entry]}).to_string()).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}
