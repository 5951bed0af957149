//! Why a registry refused, in words that tell cases apart: a password that it did not take, one that it took and that is
//! not enough, and none at all, with where was looked for one.
//!
//! No user and no password is ever shown: events are read by more people than Secrets are.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use oci_distribution::Reference;

use super::credentials::{Credentials, Login};

/// Names of registries that are listed at most.
const LISTED: usize = 5;

/// What was asked of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Pull,
    Push,
}

/// What was found in a place where credentials may be.
#[derive(Debug)]
pub enum Seen {
    /// Registries with credentials and with an entry that holds none; and the programs that the file names instead.
    Read { usable: Vec<String>, empty: Vec<String>, store: Option<String>, helpers: BTreeMap<String, String> },
    /// Nothing, because of this.
    Useless(String),
}

/// A login that was refused.
#[derive(Debug)]
pub struct Refused {
    pub login: Login,
    /// The registry knows who asks (403), rather than not (401).
    pub known: bool,
}

impl Credentials {
    /// Why `image` could not be had, or pushed, after everything that [`Credentials::matching`] gave was refused.
    pub fn refusal(&self, access: Access, image: &Reference, refused: &[Refused]) -> String {
        let registry = image.registry();
        if let Some(whose) = whose(refused.iter().filter(|one| one.known)) {
            let verb = if access == Access::Pull { "pull" } else { "push" };
            let repository = image.repository();
            return format!(
                "denied: requested access to the resource is denied: {registry} does not let the credentials of {whose} \
                 {verb} {repository}"
            );
        }
        if let Some(whose) = whose(refused) {
            return format!("unauthorized: authentication required: {registry} refused the credentials of {whose}");
        }
        match access {
            Access::Pull => format!(
                "pull access denied for {registry}/{}, repository does not exist or may require authorization: {}",
                image.repository(),
                self.searched(registry, "the pod has no imagePullSecrets")
            ),
            Access::Push => {
                format!(
                    "unauthorized: authentication required: {}",
                    self.searched(registry, "there is no Docker config file")
                )
            }
        }
    }

    /// Where was looked for credentials, and why there were none.
    fn searched(&self, registry: &str, nowhere: &str) -> String {
        if self.seen.is_empty() {
            return format!("{nowhere}, so no credentials were sent to {registry}");
        }
        let places: Vec<String> =
            self.seen.iter().map(|(origin, seen)| format!("{origin} {}", seen.tell(registry))).collect();
        format!("no credentials for {registry}: {}", places.join("; "))
    }
}

/// Where these logins were found, each place once; `None`: nobody in particular asked.
fn whose<'a>(refused: impl IntoIterator<Item = &'a Refused>) -> Option<String> {
    let mut origins: Vec<&str> = Vec::new();
    for origin in refused.into_iter().filter_map(|one| one.login.origin.as_deref()) {
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    (!origins.is_empty()).then(|| origins.join(" and of "))
}

impl Seen {
    fn tell(&self, registry: &str) -> String {
        let Self::Read { usable, empty, store, helpers } = self else {
            let Self::Useless(why) = self else { return String::new() };
            return why.clone();
        };
        let about = |key: &&String| key.as_str() == registry || key.starts_with(&format!("{registry}/"));
        let mut text = if empty.iter().any(|key| about(&key)) {
            format!("has an entry for {registry} without a user and password")
        } else if let Some(key) = usable.iter().find(about) {
            format!("has an entry for {key} alone")
        } else if usable.is_empty() {
            "has no entry with credentials".to_owned()
        } else {
            let more = if usable.len() > LISTED { ", …" } else { "" };
            let first: Vec<&str> = usable.iter().take(LISTED).map(String::as_str).collect();
            format!("has entries for {}{more}", first.join(", "))
        };
        // A `String` takes all that is written.
        if let Some(helper) = helpers.get(registry) {
            let _ = write!(text, ", and names the credHelper \"{helper}\" for it, which Wherry does not run");
        } else if let Some(store) = store {
            let _ = write!(text, ", and names the credsStore \"{store}\", which Wherry does not run");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use oci_distribution::secrets::RegistryAuth;

    use super::super::credentials::{PullSecret, PullSecretContent};
    use super::*;

    const JSON: &str = "kubernetes.io/dockerconfigjson";

    fn refused(credentials: &Credentials, access: Access, known: bool) -> String {
        let image: Reference = "reg.example/team/app:1".parse().unwrap();
        let all: Vec<Refused> =
            credentials.matching(&image).into_iter().map(|login| Refused { login, known }).collect();
        credentials.refusal(access, &image, &all)
    }

    fn of(type_: &str, file: &str) -> Credentials {
        let content = PullSecretContent::Found {
            type_: type_.to_owned(),
            config: (type_ == JSON).then(|| file.as_bytes().to_vec()),
        };
        Credentials::of_secrets(&[PullSecret { name: "s".to_owned(), content }]).unwrap()
    }

    #[test]
    fn a_refused_pull_says_which_credentials_were_wrong_or_where_there_were_none() {
        let none =
            "pull access denied for reg.example/team/app, repository does not exist or may require authorization: ";
        let right = of(JSON, r#"{"auths":{"reg.example":{"auth":"YTpi"}}}"#);
        let other = of(JSON, r#"{"auths":{"other.example":{"auth":"YTpi"}}}"#);
        let bare = of(JSON, r#"{"auths":{"reg.example":{}},"credsStore":"desktop"}"#);
        let lost = PullSecretContent::Missing("secret \"s\" not found".to_owned());
        let lost = Credentials::of_secrets(&[PullSecret { name: "s".to_owned(), content: lost }]).unwrap();
        let cases = [
            (
                refused(&right, Access::Pull, false),
                "unauthorized: authentication required: reg.example refused the credentials of imagePullSecret \"s\""
                    .to_owned(),
            ),
            (
                refused(&right, Access::Pull, true),
                "denied: requested access to the resource is denied: reg.example does not let the credentials of \
                 imagePullSecret \"s\" pull team/app"
                    .to_owned(),
            ),
            (
                refused(&Credentials::default(), Access::Pull, false),
                format!("{none}the pod has no imagePullSecrets, so no credentials were sent to reg.example"),
            ),
            (
                refused(&other, Access::Pull, false),
                format!("{none}no credentials for reg.example: imagePullSecret \"s\" has entries for other.example"),
            ),
            (
                refused(&of("Opaque", ""), Access::Pull, false),
                format!("{none}no credentials for reg.example: imagePullSecret \"s\" is of type Opaque, not {JSON}"),
            ),
            (
                refused(&bare, Access::Pull, false),
                format!(
                    "{none}no credentials for reg.example: imagePullSecret \"s\" has an entry for reg.example without a user \
                     and password, and names the credsStore \"desktop\", which Wherry does not run"
                ),
            ),
            (
                refused(&lost, Access::Pull, false),
                format!(
                    "{none}no credentials for reg.example: imagePullSecret \"s\" cannot be read (secret \"s\" not found)"
                ),
            ),
        ];
        for (said, expected) in cases {
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn of_several_credentials_those_that_were_taken_are_named_each_place_once() {
        let image: Reference = "reg.example/team/app:1".parse().unwrap();
        let said = |all: &[(&str, bool)]| {
            let login = |origin: &str| Login { auth: RegistryAuth::Anonymous, origin: Some(origin.to_owned()) };
            let all: Vec<_> =
                all.iter().map(|(origin, known)| Refused { login: login(origin), known: *known }).collect();
            Credentials::default().refusal(Access::Pull, &image, &all)
        };
        let denied = "denied: requested access to the resource is denied: reg.example does not let the credentials of";
        assert_eq!(said(&[("a", false), ("b", true)]), format!("{denied} b pull team/app"));
        assert_eq!(said(&[("a", true), ("b", true), ("a", true)]), format!("{denied} a and of b pull team/app"));
        let unauthorized = "unauthorized: authentication required: reg.example refused the credentials of";
        assert_eq!(said(&[("a", false), ("a", false)]), format!("{unauthorized} a"));
    }

    #[test]
    fn a_refused_push_names_the_file_and_no_secret_of_a_pod() {
        let read = |file: &str| {
            let mut credentials = Credentials::default();
            credentials.read("/c.json", file.as_bytes()).unwrap();
            refused(&credentials, Access::Push, false)
        };
        let start = "unauthorized: authentication required: ";
        assert_eq!(
            read(r#"{"auths":{"reg.example":{"auth":"YTpi"}}}"#),
            format!("{start}reg.example refused the credentials of /c.json")
        );
        assert_eq!(
            read(r#"{"credHelpers":{"reg.example":"gcloud"}}"#),
            format!(
                "{start}no credentials for reg.example: /c.json has no entry with credentials, and names the credHelper \
                 \"gcloud\" for it, which Wherry does not run"
            )
        );
    }
}
