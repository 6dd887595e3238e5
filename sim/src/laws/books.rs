//! Books balance: both sides of every posting, in every segment; replicas cost their price times the
//! length of the run, to the nano-dollar; and no nanosecond of a replica is paid twice.

use super::{Law, Verdict, Violation};
use windtunnel_base::time::SimTime;
use windtunnel_ledger::account::{Account, Books};

/// What the books of a run must come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owed {
    /// Replicas' price times the length of the run, each rounded down once, in nano-dollars.
    pub(crate) replicas: u64,
    /// Checks times their price, in nano-dollars.
    pub(crate) verification: u64,
    /// The gateway's instances and stages, in nano-dollars.
    pub(crate) gateway: u64,
    /// Tokens times their prices, rounded down once, in nano-dollars.
    pub(crate) tokens: u64,
    /// Steps that began before the step before them on the same replica had ended.
    pub(crate) overlaps: u64,
}

/// Checks the books at the end of a run.
pub(crate) fn finish<'a>(
    at: SimTime,
    segments: impl Iterator<Item = &'a Books>,
    owed: Owed,
) -> Verdict {
    let fail =
        |expected: String, found: String| Err(Violation::new(Law::Books, at, expected, found));
    let mut all = Books::default();
    for (i, books) in segments.enumerate() {
        for (accounts, what) in [(&books.money, "money"), (&books.energy, "energy")] {
            if !accounts.balanced() {
                return fail(
                    format!("{what} of segment {i} to balance"),
                    format!("{accounts:?}"),
                );
            }
        }
        all.merge(books);
    }
    let verification = all.money.received(Account::Verification);
    if verification != owed.verification {
        return fail(
            format!("checks to cost {} nano-dollars", owed.verification),
            format!("{verification}"),
        );
    }
    let gateway = all.money.received(Account::Gateway);
    if gateway != owed.gateway {
        return fail(
            format!("the gateway to cost {} nano-dollars", owed.gateway),
            format!("{gateway}"),
        );
    }
    let tokens = all.money.received(Account::Tokens);
    if tokens != owed.tokens {
        return fail(
            format!("tokens to cost {} nano-dollars", owed.tokens),
            format!("{tokens}"),
        );
    }
    let replicas = all.money.total() - verification - gateway - tokens;
    if replicas != owed.replicas {
        return fail(
            format!(
                "replicas to cost {} nano-dollars, price times time",
                owed.replicas
            ),
            format!("{replicas}"),
        );
    }
    if owed.overlaps > 0 {
        return fail(
            "steps of a replica one after another".into(),
            format!("{} that began before the last one ended", owed.overlaps),
        );
    }
    Ok(())
}

/// Checks that every prompt token that was not computed was found in one cache or another.
pub(crate) fn cached<'a>(
    at: SimTime,
    segments: impl Iterator<Item = &'a Books>,
    found: u64,
) -> Verdict {
    let booked: u64 = segments.map(|books| books.prompt_tokens_cached).sum();
    if booked == found {
        return Ok(());
    }
    Err(Violation::new(
        Law::Books,
        at,
        format!("{booked} prompt tokens taken from caches"),
        format!("{found} found there"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWED: Owed = Owed {
        replicas: 70,
        verification: 30,
        gateway: 0,
        tokens: 0,
        overlaps: 0,
    };

    fn books(decode: u64, idle: u64, verification: u64) -> Books {
        let mut books = Books::default();
        for (account, amount) in [
            (Account::Decode, decode),
            (Account::Idle, idle),
            (Account::Verification, verification),
        ] {
            books.money.post(Account::Source, account, amount);
        }
        books
    }

    fn verdict(books: &Books, owed: Owed) -> Verdict {
        finish(SimTime::ZERO, std::iter::once(books), owed)
    }

    fn breaks(verdict: Verdict) -> bool {
        verdict.is_err_and(|v| v.law == Law::Books)
    }

    #[test]
    fn exact_books_pass_and_a_nano_dollar_too_much_or_little_shows() {
        assert_eq!(verdict(&books(50, 20, 30), OWED), Ok(()));
        assert!(breaks(verdict(&books(51, 20, 30), OWED)));
        assert!(breaks(verdict(&books(49, 20, 30), OWED)));
        assert!(breaks(verdict(&books(50, 20, 29), OWED)));
    }

    #[test]
    fn a_gateway_that_costs_too_much_or_little_shows() {
        let mut books = books(50, 20, 30);
        assert!(breaks(verdict(&books, Owed { gateway: 5, ..OWED })));
        books.money.post(Account::Source, Account::Gateway, 5);
        assert!(breaks(verdict(&books, OWED)));
        assert_eq!(verdict(&books, Owed { gateway: 5, ..OWED }), Ok(()));
    }

    #[test]
    fn a_forged_side_of_a_posting_shows() {
        // Files are the only way to forge one: the type has no means to.
        let honest = serde_json::to_string(&books(50, 20, 30)).expect("books are plain data");
        let forged = honest.replacen("\"posted\":100", "\"posted\":101", 1);
        assert_ne!(forged, honest);
        let forged: Books = serde_json::from_str(&forged).expect("still books");
        assert!(breaks(verdict(&forged, OWED)));
    }

    #[test]
    fn tokens_that_cost_too_much_or_little_show() {
        let mut books = books(50, 20, 30);
        books.money.post(Account::Source, Account::Tokens, 7);
        assert_eq!(verdict(&books, Owed { tokens: 7, ..OWED }), Ok(()));
        assert!(breaks(verdict(&books, Owed { tokens: 6, ..OWED })));
    }

    #[test]
    fn time_paid_twice_shows() {
        assert!(breaks(verdict(
            &books(50, 20, 30),
            Owed {
                overlaps: 1,
                ..OWED
            }
        )));
    }
}
