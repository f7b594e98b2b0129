//! Session records: what an input line says about one session.

use serde::{Deserialize, Serialize};

use super::SessionId;
use crate::clock::Timestamp;

/// One session to archive, as a file, a queue or the backlog names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SessionRequest {
    /// The session.
    pub session_id: SessionId,
    /// The configured integration it belongs to.
    #[serde(default)]
    pub integration: Option<String>,
    /// When Veriff decided, where the caller knows it.
    #[serde(default)]
    pub decided_at: Option<Timestamp>,
    /// The retention class asked for.
    #[serde(default)]
    pub retention_class: Option<String>,
    /// The caller's own reference; it stays in the ledger and in result lines.
    #[serde(default)]
    pub reference: Option<String>,
}

impl SessionRequest {
    /// Makes a record of a bare id.
    #[must_use]
    pub const fn of(session_id: SessionId) -> Self {
        Self { session_id, integration: None, decided_at: None, retention_class: None, reference: None }
    }
}
