//! Service accounts as users: their names and their groups, in Kubernetes' words.

use super::{AUTHENTICATED, UserInfo};

const PREFIX: &str = "system:serviceaccount:";
/// The group of all of them; those of a namespace have it in their group's name.
const ALL: &str = "system:serviceaccounts";

/// `system:serviceaccount:NAMESPACE:NAME`.
pub(crate) fn user_name(namespace: &str, name: &str) -> String {
    format!("{PREFIX}{namespace}:{name}")
}

/// The namespace and the name of the service account that a user is; `None` if it is none.
pub(crate) fn parts(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix(PREFIX)?.split_once(':').filter(|(_, name)| !name.contains(':'))
}

/// The groups that it is in because it is one.
pub(crate) fn groups(namespace: &str) -> [String; 2] {
    [ALL.to_owned(), format!("{ALL}:{namespace}")]
}

/// The user that it is.
pub(crate) fn user(namespace: &str, name: &str) -> UserInfo {
    let groups = groups(namespace).into_iter().chain([AUTHENTICATED.to_owned()]).collect();
    UserInfo { name: user_name(namespace, name), groups, ..UserInfo::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_is_told_from_other_users_by_its_name() {
        let robot = user("web", "robot");
        assert_eq!(parts(&robot.name), Some(("web", "robot")));
        assert_eq!(robot.groups, ["system:serviceaccounts", "system:serviceaccounts:web", AUTHENTICATED]);
        assert!(
            ["jane", "system:serviceaccount:web", "system:serviceaccount:web:a:b"]
                .map(parts)
                .iter()
                .all(Option::is_none)
        );
    }
}
