//! Undo: the command that removes what shadows an object of the archive.
//!
//! An audit knows the key and the version, the configuration where that is. Only what shadows the archive's own version
//! is ever named, and by its id, so that nothing else of the key is touched.

use crate::audit::{Finding, FindingCode};
use crate::config::Config;
use crate::store::settings::S3Settings;
use crate::store::settings::StoreSettings;

/// Where the objects of an archive are.
#[derive(Debug, Clone)]
pub(super) struct Undo(Option<S3Settings>);

impl Undo {
    /// Takes what is configured; of a directory, which keeps one version of each key, there is nothing to remove by its id.
    pub(super) fn of(config: &Config) -> Self {
        Self(match &config.store {
            Some(StoreSettings::S3(settings)) => Some(settings.clone()),
            _ => None,
        })
    }

    /// Gives a finding of what shadows an object the command that removes it.
    pub(super) fn named(&self, finding: &Finding) -> Finding {
        let command = || {
            let settings = self.0.as_ref()?;
            matches!(finding.code, FindingCode::ObjectHidden | FindingCode::ObjectShadowed).then_some(())?;
            let (key, version_id) = (finding.key.as_ref()?, finding.version_id.as_deref()?);
            let prefix = settings.prefix.trim_matches('/');
            let key = if prefix.is_empty() { key.to_string() } else { format!("{prefix}/{key}") };
            let mut words =
                vec![("--bucket", settings.bucket.as_str()), ("--key", key.as_str()), ("--version-id", version_id)];
            words.extend(settings.expected_bucket_owner.as_deref().map(|owner| ("--expected-bucket-owner", owner)));
            words.extend(settings.region.as_deref().map(|region| ("--region", region)));
            words.extend(settings.endpoint_url.as_deref().map(|url| ("--endpoint-url", url)));
            let words: Vec<String> = words.iter().map(|(flag, value)| format!("{flag} {}", quoted(value))).collect();
            Some(format!("aws s3api delete-object {}", words.join(" ")))
        };
        let mut named = finding.clone();
        if let Some(command) = command() {
            named.repair = command;
        }
        named
    }
}

/// Quotes a word for a POSIX shell, unless it needs no quotes.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':');
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Severity;
    use crate::model::key::ObjectKey;

    fn finding(code: FindingCode, key: &str, version_id: Option<&str>) -> Finding {
        let key = ObjectKey::from_store(key.to_owned());
        Finding::of(Severity::Error, code, "find out").object(&key, version_id)
    }

    #[test]
    fn what_lies_over_an_object_is_removed_by_its_version_alone() {
        let mut settings = S3Settings::of_bucket("archive", "/of 2026/");
        settings.endpoint_url = Some("https://s3.example:9000".to_owned());
        let hidden = finding(FindingCode::ObjectHidden, "sessions/a/1/it's.jpg", Some("v1"));
        assert_eq!(
            Undo(Some(settings)).named(&hidden).repair,
            r"aws s3api delete-object --bucket archive --key 'of 2026/sessions/a/1/it'\''s.jpg' --version-id v1 --endpoint-url https://s3.example:9000"
        );
        let undo = Undo(Some(S3Settings::of_bucket("archive", "")));
        let shadowed = finding(FindingCode::ObjectShadowed, "runs/a", Some("null"));
        let command = "aws s3api delete-object --bucket archive --key runs/a --version-id null";
        assert_eq!(undo.named(&shadowed).repair, command);
    }

    #[test]
    fn nothing_else_is_ever_to_be_removed() {
        let undo = Undo(Some(S3Settings::of_bucket("archive", "")));
        for code in FindingCode::ALL {
            if !matches!(code, FindingCode::ObjectHidden | FindingCode::ObjectShadowed) {
                assert_eq!(undo.named(&finding(*code, "runs/a", Some("v1"))).repair, "find out", "{code}");
            }
        }
        assert_eq!(undo.named(&finding(FindingCode::ObjectHidden, "runs/a", None)).repair, "find out");
        assert_eq!(Undo(None).named(&finding(FindingCode::ObjectHidden, "runs/a", Some("v1"))).repair, "find out");
    }
}
