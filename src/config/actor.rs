//! Actor: who runs this process, as the host says.
//!
//! `user@host`; in a cluster the host is the pod. It is what a document says of its writer, not a proof: whom the store
//! took the writer for is in the store's own log of accesses.

/// The longest actor that is written down, in characters.
const MAX_LENGTH: usize = 200;

/// Returns the actor. `user` is the name that the environment gives; without one, the number of the user is used.
#[must_use]
pub(super) fn actor(user: Option<&str>) -> String {
    let user = user.map_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()), str::to_owned);
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{user}@{host}").chars().filter(|c| !c.is_control()).take(MAX_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_is_one_line_of_user_and_host() {
        let named = actor(Some("ada\n"));
        assert!(named.starts_with("ada@") && named.len() > "ada@".len(), "{named}");
        assert!(actor(None).starts_with("uid-"));
    }
}
