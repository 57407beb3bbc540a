//! Numbers, sizes and times as people write them: `4`, `256MiB`, `60s`.

use std::time::Duration;

/// A whole number without sign.
pub(super) fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Bytes. `kb`, `mb` and `gb` count in 1024s, as redis.conf reads them; `k`, `m` and `g`, which redis.conf counts in
/// 1000s and most other programs in 1024s, are left out for that.
pub(super) fn size(text: &str) -> Option<u64> {
    let (count, unit) = split_unit(text)?;
    let bytes = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" | "kb" => 1 << 10,
        "mib" | "mb" => 1 << 20,
        "gib" | "gb" => 1 << 30,
        "tib" | "tb" => 1 << 40,
        _ => return None,
    };
    count.checked_mul(bytes)
}

/// A time with its unit. Only zero may go without: `60` is seconds to one reader and milliseconds to the next.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (count, unit) = split_unit(text)?;
    let milliseconds = match unit {
        "" if count == 0 => 1,
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return None,
    };
    count.checked_mul(milliseconds).map(Duration::from_millis)
}

/// `yes` and `no` as in redis.conf, `true` and `false` as in TOML.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "yes" | "true" => Some(true),
        "no" | "false" => Some(false),
        _ => None,
    }
}

/// `256 MiB` as 256 and `MiB`.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(end);
    Some((number(count)?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_carry_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("1234", 1234),
            ("7B", 7),
            ("1KiB", 1024),
            ("2 kb", 2048),
            ("256MiB", 256 << 20),
            ("256mib", 256 << 20),
            ("256mb", 256 << 20),
            ("3GiB", 3 << 30),
            ("1TiB", 1 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_that_are_unclear_or_too_large_are_refused() {
        for text in ["", "MiB", "1k", "1M", "1.5GiB", "-1", "+1", "1 Mi B", "1e6", "0x10", "18446744073709551616"] {
            assert_eq!(size(text), None, "{text}");
        }
        assert_eq!(size("16777216TiB"), None, "2^64");
        assert_eq!(size("16777215TiB"), Some(16_777_215 << 40));
    }

    #[test]
    fn times_carry_a_unit() {
        for (text, milliseconds) in [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250),
            ("60s", 60_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "60", "s", "1.5s", "-1s", "1w", "1S", "1m30s", "18446744073709551615s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_digits_alone() {
        assert_eq!(number("10000"), Some(10_000));
        for text in ["", "+1", "-1", "1 ", "1.0", "0x1", "99999999999999999999"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn booleans_are_written_as_in_redis_conf_or_toml() {
        assert_eq!([boolean("yes"), boolean("true")], [Some(true); 2]);
        assert_eq!([boolean("no"), boolean("false")], [Some(false); 2]);
        assert_eq!([boolean("1"), boolean("Yes"), boolean("")], [None; 3]);
    }
}
