//! Units: durations and sizes as people write them.

use std::time::Duration;

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

    proptest! {
        #[test]
        fn what_is_written_reads_back(number in 0u64..1 << 40) {
            let duration = Duration::from_millis(number);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_size(&format_size(number)), Ok(number));
        }
    }
}
