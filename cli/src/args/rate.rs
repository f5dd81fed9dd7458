//! [`rate`]: a limit in bytes a second.

const UNITS: [(&str, i64); 7] = [
    ("B", 1),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// `50MiB`, also as `50 MiB/s`; `0` for no limit. Units have one spelling, because `Mb` means bits
/// elsewhere; a bare number would be bytes, which nobody means.
pub(super) fn rate(text: &str) -> Result<i64, String> {
    if text == "0" {
        return Ok(0);
    }
    let text = text.strip_suffix("/s").unwrap_or(text);
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let known = UNITS.iter().find(|(name, _)| *name == unit.trim_start());
    let (Some((_, bytes)), false) = (known, number.is_empty()) else {
        let units = UNITS.map(|(name, _)| name).join(", ");
        return Err(format!(
            "must be 0, or a whole number with a unit, such as `50MiB`; units: {units}"
        ));
    };
    let rate = number.parse::<i64>().ok();
    let rate = rate.and_then(|number| number.checked_mul(*bytes));
    rate.ok_or_else(|| "must be less than 8 EiB a second".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(rate("0"), Ok(0));
        assert_eq!(rate("0MiB"), Ok(0));
        assert_eq!(rate("50MiB"), Ok(50 << 20));
        assert_eq!(rate("50 MiB/s"), Ok(50 << 20));
        assert_eq!(rate("7B"), Ok(7));
        assert_eq!(rate("8kB"), Ok(8000));
        assert_eq!(rate("8KiB"), Ok(8 << 10));
        assert_eq!(rate("3MB"), Ok(3_000_000));
        assert_eq!(rate("2GB/s"), Ok(2_000_000_000));
        assert_eq!(rate("1GiB"), Ok(1 << 30));
        assert_eq!(rate("9223372036854775807B"), Ok(i64::MAX));
    }

    #[test]
    fn what_is_no_rate() {
        let bad = [
            "", "x", "MiB", "50", "50MIB", "50Mb", "50K", "50MiB/h", "-1MiB", "+1MiB", "1.5GiB",
            "1 0MiB", "1e3kB", "٣MiB", " 1MiB", "0/s",
        ];
        for bad in bad {
            assert!(rate(bad).unwrap_err().contains("units: B, kB"), "{bad}");
        }
        for too_much in [
            "9223372036854775808B",
            "8589934592GiB",
            "99999999999999999999MB",
        ] {
            assert!(rate(too_much).unwrap_err().contains("EiB"), "{too_much}");
        }
    }
}
