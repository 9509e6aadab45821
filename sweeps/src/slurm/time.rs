//! Times as Slurm writes them: `1-12:00:00`, `30:00`, `UNLIMITED`.

/// Seconds of a limit that a person wrote: any of Slurm's forms, or a number with `s`, `min`, `h` or `d`.
pub fn parse_limit(text: &str) -> Option<u64> {
    let text = text.trim();
    for (unit, seconds) in [("min", 60.0), ("s", 1.0), ("m", 60.0), ("h", 3_600.0), ("d", 86_400.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            let number: f64 = number.trim().parse().ok()?;
            let seconds = (number * seconds).ceil();
            return (seconds > 0.0 && seconds < 1e10).then_some(seconds as u64);
        }
    }
    parse(text)
}

/// Seconds of a time as Slurm prints or takes it: minutes, minutes:seconds, hours:minutes:seconds, days-hours,
/// days-hours:minutes, days-hours:minutes:seconds. None for `UNLIMITED`, `Partition_Limit` and whatever else is no time.
pub fn parse(text: &str) -> Option<u64> {
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(days.parse::<u64>().ok()?), rest),
        None => (None, text),
    };
    let parts: Vec<u64> = rest.split(':').map(|p| p.parse().ok()).collect::<Option<_>>()?;
    let seconds = match (days, parts.as_slice()) {
        (None, [minutes]) => minutes.checked_mul(60)?,
        (None, [minutes, seconds]) => minutes.checked_mul(60)?.checked_add(*seconds)?,
        (Some(_), [hours]) => hours.checked_mul(3_600)?,
        (Some(_), [hours, minutes]) => hours.checked_mul(3_600)?.checked_add(minutes.checked_mul(60)?)?,
        (_, [hours, minutes, seconds]) => {
            hours.checked_mul(3_600)?.checked_add(minutes.checked_mul(60)?)?.checked_add(*seconds)?
        }
        _ => return None,
    };
    days.unwrap_or(0).checked_mul(86_400)?.checked_add(seconds)
}

/// `1-12:00:00` or `04:30:00`, as every version of Slurm takes it.
pub fn print(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let time = format!("{:02}:{:02}:{:02}", rest / 3_600, rest % 3_600 / 60, rest % 60);
    if days > 0 { format!("{days}-{time}") } else { time }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms_of_the_manual() {
        let cases = [
            ("60", 3_600),
            ("1:30", 90),
            ("04:30:00", 16_200),
            ("2-3", 183_600),
            ("2-3:30", 185_400),
            ("7-00:00:00", 604_800),
        ];
        for (text, seconds) in cases {
            assert_eq!((parse(text), parse_limit(text)), (Some(seconds), Some(seconds)), "{text}");
        }
        for none in
            ["UNLIMITED", "Partition_Limit", "NOT_SET", "INVALID", "", "1-", "a:b", "99999999999999999999"]
        {
            assert_eq!(parse(none), None, "{none}");
        }
        assert_eq!(
            ["4h", "1.5 h", "30min", "90s", "2d"].map(parse_limit),
            [14_400, 5_400, 1_800, 90, 172_800].map(Some)
        );
        assert_eq!(["-4h", "0h", "h", "4 weeks"].map(parse_limit), [None; 4]);
    }

    proptest! {
        #[test]
        fn printed_times_read_back(seconds in 0u64..100_000_000) {
            prop_assert_eq!(parse(&print(seconds)), Some(seconds));
        }
    }
}
