//! A scene: a simulated Veriff that goes wrong, and a deployment that archives from it into a directory.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::ExposeSecret as _;
use serde_json::Value;
use veriff_archive::model::signature::SigningKey;
use veriff_sim::{Attempt, Session, Simulator, World, id};

use super::program::{Deployment, Ended, results};
use super::stored;

/// A horizon that no test meets, whenever it runs.
pub(crate) const FAR_HORIZON: &str = "horizon = \"36500d\"\n";

/// A simulated Veriff and a deployment.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) simulator: Simulator,
    pub(crate) deployment: Deployment,
}

impl Scene {
    /// Sets up a world with three tries a request, and all of its sessions as the input.
    pub(crate) async fn of(world: World) -> Self {
        Self::with(world, "", "tries = 3\n").await
    }

    /// The same with more settings of the integration, and with these limits.
    pub(crate) async fn with(world: World, integration: &str, limits: &str) -> Self {
        let simulator = Simulator::start(world).await.unwrap();
        let deployment = Deployment::with_directory(&simulator);
        let scene = Self { simulator, deployment };
        scene.configure(integration, limits);
        let ids = scene.ids();
        scene.deployment.write_ids(&ids);
        scene
    }

    /// Writes the configuration anew.
    pub(crate) fn configure(&self, integration: &str, limits: &str) {
        self.deployment.configure_whole(&format!(
            "{}\n[store]\nurl = \"file://{}\"\n[limits]\n{limits}",
            self.deployment.default_integration(&format!("{FAR_HORIZON}{integration}")),
            self.store().display(),
        ));
    }

    /// Lets the runs of this deployment be signed from now on, by a new key whose public half is in `key.pem`, and entered
    /// in a chain.
    pub(crate) fn sign_runs(&self, group: &str) -> SigningKey {
        let key = SigningKey::generate();
        self.deployment.write("signing.pem", key.to_pem().unwrap().expose_secret());
        self.deployment.write("key.pem", &key.public().to_pem().unwrap());
        self.enter_in(group);
        key
    }

    /// Enters the runs of this deployment in a chain from now on, signed by the key that was made.
    pub(crate) fn enter_in(&self, group: &str) {
        self.configure("", "tries = 3\n");
        let path = self.deployment.path("signing.pem");
        let signing = format!("[signing]\nprivate_key = {{ file = \"{}\" }}\ngroup = \"{group}\"\n", path.display());
        self.deployment.configure_more(&signing);
    }

    /// The ids of all sessions of the world.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.simulator.world().session_ids()
    }

    /// The store's directory.
    pub(crate) fn store(&self) -> PathBuf {
        self.deployment.store()
    }

    /// Archives `sessions.txt` into results, and checks that every line given was counted once.
    pub(crate) async fn archive(&self, more: &[&str]) -> Ended {
        let words: Vec<&str> = ["--results", "results.ndjson"].into_iter().chain(more.iter().copied()).collect();
        let ended = self.deployment.archive(&words).await;
        if !ended.stdout.is_empty() {
            assert_in_equals_out(&ended);
        }
        ended
    }

    /// The last outcome and code of every session, from the results.
    pub(crate) fn outcomes(&self) -> BTreeMap<String, (String, Option<String>)> {
        let code = |line: &Value| line["code"].as_str().map(str::to_owned);
        results(&self.deployment.path("results.ndjson"))
            .iter()
            .map(|line| {
                let session = stored::text(&line["session_id"]);
                (session, (stored::text(&line["outcome"]), code(line)))
            })
            .collect()
    }

    /// Fails unless a session's last outcome is this.
    #[track_caller]
    pub(crate) fn assert_outcome(&self, session: &str, outcome: &str, code: Option<&str>) {
        let outcomes = self.outcomes();
        let (found, found_code) = &outcomes[session];
        assert_eq!((found.as_str(), found_code.as_deref()), (outcome, code), "{session}");
    }

    /// Fails unless all of a session stands in the store, byte for byte.
    #[track_caller]
    pub(crate) fn assert_whole(&self, session: &str) {
        stored::assert_whole(&self.store(), &self.simulator.world(), session);
    }

    /// Fails if anything stands as media that is not.
    #[track_caller]
    pub(crate) fn assert_only_media(&self) {
        stored::assert_only_media(&self.store(), &self.simulator.world());
    }

    /// Fails if anything at all was written into the store.
    #[track_caller]
    pub(crate) fn assert_nothing_written(&self) {
        let keys: Vec<String> = stored::everything(&self.store()).into_keys().collect();
        assert!(keys.is_empty(), "{keys:?}");
    }
}

/// Fails unless every record of a run was counted exactly once.
#[track_caller]
pub(crate) fn assert_in_equals_out(ended: &Ended) {
    let summary = ended.json();
    let counts = ["archived", "unchanged", "absent", "failed", "pending"];
    let sum: u64 = counts.iter().map(|outcome| ended.count(outcome)).sum();
    let repeated = summary["repeated"].as_u64().unwrap();
    assert_eq!(sum + repeated, summary["source"]["records"].as_u64().unwrap(), "{summary}");
}

/// A session of one approved attempt with two images.
pub(crate) fn session(label: &str) -> Session {
    Session::new(id(label)).attempt(
        Attempt::approved(id(&format!("{label}: attempt"))).image("face", 30_000).image("document-front", 20_000),
    )
}

/// The id of a session's only attempt.
pub(crate) fn attempt_id(session: &Session) -> String {
    session.attempts[0].id.clone()
}

/// The id of the first media item of a session.
pub(crate) fn first_item(session: &Session) -> String {
    session.attempts[0].media[0].id.clone()
}

/// A world of these sessions.
pub(crate) fn world_of<'s>(sessions: impl IntoIterator<Item = &'s Session>) -> World {
    sessions.into_iter().fold(World::new(), |world, session| world.session(session.clone()))
}
