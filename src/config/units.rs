//! Units: durations and sizes as the configuration writes them, and the memory limit as the kernel does.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::model::units::{parse_duration, parse_size};

/// A duration as the configuration writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DurationText(pub(super) Duration);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        parse_duration(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string", "pattern": "^[0-9]+ *(ms|s|m|h|d)$", "description": "duration: 25s, 15m, 24h, 90d",
        })
    }
}

/// A size as the configuration writes it; `auto` is the limit the machine sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SizeText {
    Auto,
    Bytes(u64),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a size, such as 2GiB, 256 MiB or 1048576")]
enum RawSize {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for SizeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match RawSize::deserialize(deserializer)? {
            RawSize::Number(bytes) => Ok(Self::Bytes(bytes)),
            RawSize::Text(text) if text == "auto" => Ok(Self::Auto),
            RawSize::Text(text) => parse_size(&text).map(Self::Bytes).map_err(serde::de::Error::custom),
        }
    }
}

impl schemars::JsonSchema for SizeText {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["string", "integer"], "minimum": 0,
            "pattern": "^(auto|[0-9]+ *([kKmMgGtT][iI]?[bB]|[bB])?)$", "description": "size: 2GiB, 256 MiB, 1048576, or auto",
        })
    }
}

/// What the kernel says about memory limits: the contents of the limit files, from the root to our own group.
#[derive(Debug, Clone, Default)]
pub(super) struct CgroupFiles(pub(super) Vec<String>);

impl CgroupFiles {
    /// Reads the limit files of this process, version 2 and version 1; what is not there is not a limit.
    pub(super) fn of_process() -> Self {
        let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let files = limit_files(&membership);
        Self(files.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect())
    }

    /// Returns the least limit among them, if there is one.
    pub(super) fn limit_bytes(&self) -> Option<u64> {
        self.0.iter().filter_map(|text| parse_limit(text)).min()
    }
}

/// Lists where limits may be set for a process with this `/proc/self/cgroup`: each group up to the root limits too.
fn limit_files(membership: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut group = group.trim_end_matches('/');
        loop {
            files.push(format!("{root}{group}/{name}"));
            match group.rsplit_once('/') {
                Some((parent, _)) => group = parent,
                None => break,
            }
        }
    }
    files
}

/// Reads one limit file. Version 2 says `max` where there is none, version 1 a number near the largest there is.
fn parse_limit(text: &str) -> Option<u64> {
    const NO_LIMIT_FROM: u64 = 1 << 60;
    text.trim().parse().ok().filter(|bytes| (1..NO_LIMIT_FROM).contains(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_of_all_groups_counts_and_max_is_none() {
        let limit = |files: &[&str]| CgroupFiles(files.iter().map(|file| (*file).to_owned()).collect()).limit_bytes();
        assert_eq!(limit(&["max\n", "536870912\n"]), Some(512 << 20));
        assert_eq!(limit(&["1073741824\n", "536870912\n"]), Some(512 << 20));
        assert_eq!(limit(&["max\n"]), None);
        assert_eq!(limit(&["9223372036854771712\n"]), None);
        assert_eq!(limit(&[]), None);
    }

    #[test]
    fn limits_are_looked_for_in_every_group_up_to_the_root() {
        assert_eq!(
            limit_files("0::/pods/worker\n"),
            ["/sys/fs/cgroup/pods/worker/memory.max", "/sys/fs/cgroup/pods/memory.max", "/sys/fs/cgroup/memory.max"]
        );
        assert_eq!(limit_files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(
            limit_files("5:cpu:/\n4:memory:/docker\n"),
            ["/sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        );
    }
}
