//! What the references that were pulled meant, and for whom: in memory, and in `references/` on disk.
//!
//! An image that is here is run for whoever could pull it. What a registry gave for credentials is given on to pods that
//! bring the same ones; for all others the registry is asked again, as the kubelet does.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use oci_distribution::Reference;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::credentials::Login;
use super::manifest::ManifestError;
use super::store::StoreError;

/// The extension of a file that is being written.
const PARTIAL: &str = "partial";

/// What a reference meant when it was last pulled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Known {
    pub reference: String,
    pub manifest: String,
    pub size: u64,
    /// What an earlier version pulled is for everybody, as under the kubelet what was there before it.
    #[serde(default)]
    pub given_to: GivenTo,
    /// Since this process started.
    #[serde(skip, default = "Instant::now")]
    pub last_used: Instant,
}

/// Whom a registry gave an image to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GivenTo {
    /// To nobody in particular.
    #[default]
    Everybody,
    /// To those with one of these credentials, by [`Login::fingerprint`].
    Holders(BTreeSet<String>),
}

impl GivenTo {
    /// Of an image that was given for this login.
    pub fn of(login: &Login, image: &Reference) -> Self {
        login.fingerprint(image).map_or(Self::Everybody, |one| Self::Holders([one].into()))
    }

    /// Whether one of these logins is enough.
    pub fn allows(&self, image: &Reference, logins: &[Login]) -> bool {
        match self {
            Self::Everybody => true,
            Self::Holders(known) => {
                logins.iter().filter_map(|login| login.fingerprint(image)).any(|one| known.contains(&one))
            }
        }
    }

    fn and(self, other: &Self) -> Self {
        match (self, other) {
            (Self::Holders(mut all), Self::Holders(more)) => {
                all.extend(more.iter().cloned());
                Self::Holders(all)
            }
            _ => Self::Everybody,
        }
    }
}

/// All of them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct KnownImages {
    folder: PathBuf,
    images: Arc<Mutex<HashMap<String, Known>>>,
    /// Held while one is written.
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl KnownImages {
    /// Reads the folder, which is made if it is not there; what was not written to its end is removed.
    pub fn open(folder: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let mut images = HashMap::new();
        for entry in std::fs::read_dir(&folder)?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == PARTIAL) {
                std::fs::remove_file(entry.path())?;
                continue;
            }
            match std::fs::read(entry.path()).ok().and_then(|bytes| serde_json::from_slice::<Known>(&bytes).ok()) {
                Some(one) => drop(images.insert(one.reference.clone(), one)),
                None => {
                    tracing::warn!(path = %entry.path().display(), "an image reference is damaged and will be pulled again");
                }
            }
        }
        Ok(Self { folder, images: Arc::new(Mutex::new(images)), writing: Arc::default() })
    }

    pub fn get(&self, reference: &Reference) -> Option<Known> {
        self.images.lock().get(&reference.whole()).cloned()
    }

    /// It was used just now.
    pub fn touch(&self, reference: &Reference) {
        if let Some(known) = self.images.lock().get_mut(&reference.whole()) {
            known.last_used = Instant::now();
        }
    }

    pub fn all(&self) -> Vec<Known> {
        self.images.lock().values().cloned().collect()
    }

    /// The reference means nothing any more, until it is pulled again.
    pub async fn forget(&self, reference: &str) {
        let _writing = self.writing.lock().await;
        self.images.lock().remove(reference);
        let _ = tokio::fs::remove_file(self.path(reference)).await;
    }

    fn path(&self, reference: &str) -> PathBuf {
        self.folder.join(super::blobs::digest_of(reference.as_bytes()).replace("sha256:", ""))
    }

    /// Keeps what was pulled. Who could use the same image before still can.
    pub async fn remember(&self, mut known: Known) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        if let Some(before) = self.images.lock().get(&known.reference)
            && before.manifest == known.manifest
        {
            known.given_to = known.given_to.and(&before.given_to);
        }
        let path = self.path(&known.reference);
        let partial = path.with_extension(PARTIAL);
        let bytes = serde_json::to_vec(&known).map_err(ManifestError::Parse)?;
        let failed = |source| StoreError::Io { path: path.clone(), source };
        tokio::fs::write(&partial, bytes).await.map_err(failed)?;
        tokio::fs::rename(&partial, &path).await.map_err(failed)?;
        self.images.lock().insert(known.reference.clone(), known);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use oci_distribution::secrets::RegistryAuth;

    use super::*;

    fn login(password: &str) -> Login {
        Login { auth: RegistryAuth::Basic("joe".to_owned(), password.to_owned()), origin: Some("a Secret".to_owned()) }
    }

    fn nobody() -> Login {
        Login { auth: RegistryAuth::Anonymous, origin: None }
    }

    fn known(manifest: &str, login: &Login, image: &Reference) -> Known {
        let (reference, given_to, last_used) = (image.whole(), GivenTo::of(login, image), Instant::now());
        Known { reference, manifest: manifest.to_owned(), size: 1, given_to, last_used }
    }

    #[tokio::test]
    async fn an_image_is_for_those_whose_credentials_got_it_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let image: Reference = "reg.example/team/app:1".parse().unwrap();
        let images = KnownImages::open(folder.path().to_owned()).unwrap();
        images.remember(known("sha256:a", &login("first"), &image)).await.unwrap();
        images.remember(known("sha256:a", &login("second"), &image)).await.unwrap();
        for images in [images, KnownImages::open(folder.path().to_owned()).unwrap()] {
            let given = images.get(&image).unwrap().given_to;
            let may = |logins: &[Login]| given.allows(&image, logins);
            assert!(may(&[login("wrong"), login("first"), nobody()]) && may(&[login("second")]));
            assert!(!may(&[]) && !may(&[nobody()]) && !may(&[login("wrong")]));
        }
        let stored: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
        let stored = std::fs::read_to_string(stored[0].path()).unwrap();
        assert!(!stored.contains("first") && !stored.contains("joe"), "{stored}");
    }

    #[tokio::test]
    async fn what_a_tag_meant_before_opens_nothing_that_it_means_now() {
        let folder = tempfile::tempdir().unwrap();
        let image: Reference = "reg.example/team/app:1".parse().unwrap();
        let images = KnownImages::open(folder.path().to_owned()).unwrap();
        images.remember(known("sha256:a", &nobody(), &image)).await.unwrap();
        assert!(images.get(&image).unwrap().given_to.allows(&image, &[]));
        images.remember(known("sha256:b", &login("first"), &image)).await.unwrap();
        assert!(!images.get(&image).unwrap().given_to.allows(&image, &[nobody()]));
        // Whom the registry gives it to without asking.
        images.remember(known("sha256:b", &nobody(), &image)).await.unwrap();
        assert!(images.get(&image).unwrap().given_to.allows(&image, &[]));
    }

    #[tokio::test]
    async fn what_was_not_written_to_its_end_means_nothing_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let image: Reference = "reg.example/team/app:1".parse().unwrap();
        let images = KnownImages::open(folder.path().to_owned()).unwrap();
        images.remember(known("sha256:a", &nobody(), &image)).await.unwrap();
        let path = images.path(&image.whole());
        std::fs::rename(&path, path.with_extension(PARTIAL)).unwrap();
        assert!(KnownImages::open(folder.path().to_owned()).unwrap().all().is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_an_earlier_version_pulled_is_for_everybody() {
        let known: Known = serde_json::from_str(r#"{"reference": "r", "manifest": "m", "size": 1}"#).unwrap();
        assert_eq!(known.given_to, GivenTo::Everybody);
    }

    #[test]
    fn credentials_for_one_repository_open_no_other() {
        let (one, other): (Reference, Reference) = ("reg/one:1".parse().unwrap(), "reg/other:1".parse().unwrap());
        assert!(!GivenTo::of(&login("same"), &one).allows(&other, &[login("same")]));
    }
}
