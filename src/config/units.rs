//! Units: durations, sizes and the memory limit as people and kernels write them.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("b", 1),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
];

/// Reads a duration: a whole number and `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// Fatal (configuration): what a duration looks like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refusal = || "a duration is a whole number and a unit, such as 25s, 15m, 24h or 90d".to_owned();
    let (count, unit) = split(text).ok_or_else(refusal)?;
    let (_, millis) = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refusal)?;
    count
        .checked_mul(*millis)
        .map(Duration::from_millis)
        .ok_or_else(|| "a duration this long is not supported".to_owned())
}

/// Reads a size in bytes: a whole number and `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB`, `TB` or nothing.
///
/// # Errors
/// Fatal (configuration): what a size looks like.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let refusal = || "a size is a whole number and a unit, such as 2GiB, 256 MiB or 1048576".to_owned();
    let (count, unit) = split(text).ok_or_else(refusal)?;
    let unit = unit.to_ascii_lowercase();
    let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refusal)?;
    count.checked_mul(*bytes).ok_or_else(|| "a size this large is not supported".to_owned())
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let count = text.get(..end)?.parse().ok()?;
    Some((count, text.get(end..)?.trim_start()))
}

/// Writes a duration in the largest unit that loses nothing.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, size) = DURATION_UNITS
        .iter()
        .rev()
        .find(|(_, size)| millis.is_multiple_of(*size) && millis >= *size)
        .unwrap_or(&("s", 1_000));
    format!("{}{unit}", millis / size)
}

/// Writes a size in the largest binary unit that loses nothing.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    for (unit, size) in [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= size && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    bytes.to_string()
}

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
    use proptest::prelude::*;

    #[test]
    fn durations_read_as_people_write_them() {
        assert_eq!(parse_duration("25s"), Ok(Duration::from_secs(25)));
        assert_eq!(parse_duration("15m"), Ok(Duration::from_mins(15)));
        assert_eq!(parse_duration("90d"), Ok(Duration::from_hours(90 * 24)));
        for wrong in ["", "5", "d", "1.5h", "-1s", "1w", "99999999999999d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("256 MiB"), Ok(256 << 20));
        assert_eq!(parse_size("1048576"), Ok(1 << 20));
        assert_eq!(parse_size("1MB"), Ok(1_000_000));
        for wrong in ["", "GiB", "2.5GiB", "1 apple", "99999999999TiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

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

    proptest! {
        #[test]
        fn what_is_written_reads_back(number in 0u64..1 << 40) {
            let duration = Duration::from_millis(number);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_size(&format_size(number)), Ok(number));
        }
    }
}
