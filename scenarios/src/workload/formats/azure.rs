//! Azure LLM inference traces of 2023 and 2024: CSV with
//! `TIMESTAMP,ContextTokens,GeneratedTokens`. Stamps are wall-clock times to 100 ns; the trace's
//! clock begins with the first.

use super::super::input::{Bad, Source};
use super::super::table::{MAX_TIME_NS, Table, short};
use super::super::{Facts, TrafficError};
use super::{Rows, note_empty_answers};

/// Reads an Azure trace.
pub(crate) fn read(
    file: &str,
    source: &Source<'_>,
    facts: &mut Facts,
) -> Result<Rows, TrafficError> {
    let mut table = Table::open(
        source.open(file)?,
        &[&["TIMESTAMP"], &["ContextTokens"], &["GeneratedTokens"]],
    )?;
    let mut rows = Rows::default();
    // Nanoseconds since 1970; they exceed what may lie between rows, so the first is taken off.
    let mut stamps: Vec<u64> = Vec::new();
    let mut empty_answers = 0_u64;
    while table.advance()? {
        let row = table.check_width().and_then(|()| {
            let stamp = wall_clock(table.text(0)?).map_err(|e| Bad::new(table.name(0), e))?;
            let first = stamps.first().copied().unwrap_or(stamp);
            if stamp.abs_diff(first) > MAX_TIME_NS {
                let reason = "it lies more than 30 years from the first row";
                return Err(Bad::new(table.name(0), reason));
            }
            Ok((stamp, table.tokens(1, 1)?, table.tokens(2, 0)?))
        });
        match row {
            Ok((stamp, input, output)) => {
                empty_answers += u64::from(output == 0);
                stamps.push(stamp);
                rows.input.push(input);
                rows.output.push(output.max(1));
            }
            Err(bad) => table.lines().bad_row(bad, source, facts)?,
        }
    }
    let begin = stamps.iter().copied().min().unwrap_or(0);
    rows.at = stamps.iter().map(|s| s - begin).collect();
    note_empty_answers(empty_answers, facts);
    table.into_lines().finish(1, facts)?;
    Ok(rows)
}

/// `2023-11-16 18:17:03.9799600`, also with `T` and a time zone `Z` or `+00:00`, in nanoseconds
/// since 1970.
fn wall_clock(text: &str) -> Result<u64, String> {
    parse_wall_clock(text).ok_or_else(|| {
        format!(
            "`{}` is not a time like 2023-11-16 18:17:03.9799600",
            short(text)
        )
    })
}

fn parse_wall_clock(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let text = text.strip_suffix("+00:00").unwrap_or(text);
    let (date, time) = text.split_once([' ', 'T'])?;
    let (year, month_day) = date.split_once('-')?;
    let (month, day) = month_day.split_once('-')?;
    let (hour, minutes) = time.split_once(':')?;
    let (minute, seconds) = minutes.split_once(':')?;
    let (second, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let number = |text: &str, digits: usize, range: std::ops::RangeInclusive<u64>| {
        let plain = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
        let value = plain.then(|| text.parse::<u64>().ok())??;
        range.contains(&value).then_some(value)
    };
    let year = number(year, 4, 1970..=2200)?;
    let month = number(month, 2, 1..=12)?;
    let day = number(day, 2, 1..=31)?;
    let (hour, minute) = (number(hour, 2, 0..=23)?, number(minute, 2, 0..=59)?);
    let second = number(second, 2, 0..=60)?;
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse::<u64>().ok()?;
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(seconds * 1_000_000_000 + nanos)
}

/// Days of the Gregorian calendar, counted in eras of 400 years that begin in March (Hinnant,
/// "chrono-compatible low-level date algorithms").
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_clocks_count_from_1970() {
        assert_eq!(parse_wall_clock("1970-01-01 00:00:00"), Some(0));
        // 2000-03-01 is day 11017; 2024 is a leap year.
        assert_eq!(days_since_1970(2000, 3, 1), 11_017);
        assert_eq!(
            days_since_1970(2024, 3, 1) - days_since_1970(2024, 2, 28),
            2
        );
        assert_eq!(
            parse_wall_clock("2023-11-16 18:17:03.9799600"),
            Some(1_700_158_623_979_960_000)
        );
        assert_eq!(
            parse_wall_clock("2024-05-10T00:00:00.5+00:00"),
            parse_wall_clock("2024-05-10 00:00:00.500Z")
        );
        for bad in [
            "",
            "noon",
            "2023-13-01 00:00:00",
            "2023-11-16",
            "2023-11-16 1:2:3",
        ] {
            assert_eq!(parse_wall_clock(bad), None, "{bad}");
        }
    }
}
